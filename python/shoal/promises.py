"""Whether a failover kept what Shoal promises, judged from the record of the traffic.

Owns: the promises, one function each; every one returns a sentence with the numbers it was judged by.
Rule: pure; no clock, no connection. Acknowledged writes may be lost only from the end of what the killed master had
executed (replication is asynchronous), and that end is listed, never hidden.
Called by the demonstration and by the failure tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from shoal.traffic import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.traffic import Attempt

RESUME_WITHIN = 3.5
"""Seconds from the kill until the shard takes writes again, with down_after 1000 ms."""
UNTOUCHED_WITHIN = 0.050
"""Seconds that a request of another shard may take while this one has no master."""
SLACK = 0.1
"""Seconds that the answer of a killed master may still be on its way through the proxy to the client."""
TAIL = 1.0
"""Seconds before the kill in which an acknowledged write may not have reached the replica yet."""


@dataclass(frozen=True)
class Stall:
    """A time in which the machine itself was slow, and how much of it was lost to waiting for a processor."""

    started: float
    ended: float
    lost: float


@dataclass(frozen=True)
class Evidence:
    """What was seen while `shard` lost its master at `killed_at` (time.monotonic)."""

    shard: str
    killed_at: float
    attempts: Mapping[str, Sequence[Attempt]]
    homes: Mapping[str, frozenset[str]]
    """After it: the shards whose master holds the key with the value that was written."""
    stalls: Sequence[Stall] = ()

    def until(self, moment: float) -> Evidence:
        """What had ended by then."""
        attempts = {shard: [one for one in many if one.ended <= moment] for shard, many in self.attempts.items()}
        return replace(self, attempts=attempts)

    def acknowledged(self, shard: str) -> list[Attempt]:
        return [one for one in self.attempts[shard] if one.write and one.outcome is Outcome.OK]

    def others(self) -> list[str]:
        return [shard for shard in self.attempts if shard != self.shard]


@dataclass(frozen=True)
class Promise:
    """One promise, whether it was kept, and by what numbers that was judged."""

    text: str
    kept: bool
    detail: str


def judge(evidence: Evidence) -> tuple[Promise, ...]:
    return (
        _keys_stay(evidence),
        _ring_unchanged(evidence),
        _resumes(evidence),
        _no_error_unless_sent(evidence),
        _others_untouched(evidence),
        _reads_right(evidence),
    )


def gap(evidence: Evidence) -> tuple[float, float]:
    """The longest time without an acknowledged write on the shard, after the kill or across it: when, and how long."""
    ends = [one.ended for one in evidence.acknowledged(evidence.shard)]
    spans = [(before, after - before) for before, after in pairwise(ends) if after > evidence.killed_at]
    return max(spans, key=lambda span: span[1], default=(evidence.killed_at, float("inf")))


def lost(evidence: Evidence, shard: str) -> list[Attempt]:
    """Acknowledged writes that are not readable where they were written."""
    return [one for one in evidence.acknowledged(shard) if shard not in evidence.homes.get(one.key, frozenset())]


def _keys_stay(evidence: Evidence) -> Promise:
    total = sum(len(evidence.acknowledged(shard)) for shard in evidence.attempts)
    gone = [one for shard in evidence.attempts for one in lost(evidence, shard)]
    broken = [one for one in gone if not _in_tail(evidence, one)]
    detail = f"{total - len(gone)} of {total} read back from the master of their shard"
    if gone:
        last = max((evidence.killed_at - one.ended) * 1000 for one in gone)
        detail += f"; {len(gone)} not yet replicated when the master died (the last {last:.0f} ms): "
        detail += _some([one.key for one in gone])
    if broken:
        detail += f"; LOST though they had time to replicate: {_some([one.key for one in broken])}"
    return Promise("Every acknowledged key is readable from where it was written", not broken, detail)


def _in_tail(evidence: Evidence, attempt: Attempt) -> bool:
    """Whether the loss of this write is the price of asynchronous replication, and not a fault."""
    if attempt.shard != evidence.shard or not evidence.killed_at - TAIL < attempt.ended <= evidence.killed_at + SLACK:
        return False
    survivors = (
        one for one in evidence.acknowledged(attempt.shard) if attempt.shard in evidence.homes.get(one.key, ())
    )
    # Replication keeps the order: what was written later and before the kill must be lost too.
    return not any(attempt.ended < one.started and one.ended <= evidence.killed_at for one in survivors)


def _ring_unchanged(evidence: Evidence) -> Promise:
    moved = [
        one.key
        for shard in evidence.attempts
        for one in evidence.acknowledged(shard)
        if evidence.homes.get(one.key, frozenset()) - {shard}
    ]
    detail = f"{len(moved)} keys on another shard: {_some(moved)}" if moved else "no key is on any other shard"
    return Promise("The ring never changes", not moved, detail)


def _resumes(evidence: Evidence) -> Promise:
    began, length = gap(evidence)
    resumed = began + length - evidence.killed_at
    return Promise(
        f'Shard "{evidence.shard}" takes writes again within {RESUME_WITHIN} s',
        max(resumed, length) <= RESUME_WITHIN,
        f"{resumed:.2f} s after the kill; {length:.2f} s without an acknowledged write",
    )


def _no_error_unless_sent(evidence: Evidence) -> Promise:
    mine = evidence.attempts[evidence.shard]
    doubts = [one for one in mine if one.outcome is Outcome.IN_DOUBT]
    bad = [one for one in mine if one.outcome in {Outcome.REFUSED, Outcome.FAILED}]
    detail = f"in doubt (sent, not confirmed): {len(doubts)}; other errors: {len(bad)}"
    if bad:
        detail += f": {_some(sorted({one.error for one in bad}))}"
    return Promise(
        f'Clients of shard "{evidence.shard}" wait, and see no error on what had not been sent', not bad, detail
    )


def _others_untouched(evidence: Evidence) -> Promise:
    requests = [one for shard in evidence.others() for one in evidence.attempts[shard]]
    bad = [one for one in requests if one.outcome is not Outcome.OK]
    since = [one for one in requests if one.ended >= evidence.killed_at]
    longest = max(since, key=lambda one: one.took, default=None)
    raw = longest.took if longest else 0.0
    slow = [one for one in since if one.took > UNTOUCHED_WITHIN]  # of the others no wait has to be taken away
    slowest = max((_excess(evidence, one) for one in slow), default=0.0)
    detail = f"{len(since)} requests after the kill, {len(bad)} errors, slowest {raw * 1000:.1f} ms"
    if longest and raw > UNTOUCHED_WITHIN:
        kind, after = "write" if longest.write else "read", longest.started - evidence.killed_at
        detail += f", one of {len(slow)} above the limit, a {kind} sent {after:.2f} s after the kill"
        detail += f" ({slowest * 1000:.1f} ms without waits for a processor or the disk)"
    if bad:
        detail += f": {_some(sorted({one.error for one in bad}))}"
    kept = bool(since) and not bad and slowest <= UNTOUCHED_WITHIN
    limit = f"{UNTOUCHED_WITHIN * 1000:.0f} ms"
    return Promise(f"Other shards see no error and nothing above {limit} because of it", kept, detail)


def _excess(evidence: Evidence, attempt: Attempt) -> float:
    """How long a request took, without what the machine took from everybody meanwhile."""
    taken = 0.0
    for stall in evidence.stalls:
        together = min(stall.ended, attempt.ended) - max(stall.started, attempt.started)
        if together > 0:
            taken += min(stall.lost, together)
    return attempt.took - taken


def _reads_right(evidence: Evidence) -> Promise:
    reads = [one for many in evidence.attempts.values() for one in many if not one.write]
    wrong = [one.key for one in reads if one.outcome is Outcome.WRONG]
    detail = f"{len(reads)} reads, {len(wrong)} wrong" + (f": {_some(wrong)}" if wrong else "")
    return Promise("No read returns what was never written there", not wrong, detail)


def _some(items: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown}, ... ({len(items)})"
