"""What a sentinel's word is worth: how long its vote lasts, what makes it no vote, and what unsettles a master.

Rule: **no lease on a master is valid at the moment when another one is promoted in its place.** It stands on three
facts of sentinel.c (docs/architecture/life-of-a-failover.md derives them):

    last good ping          s_down at the earliest          promotion at the earliest
    ──┬─────────────────────────┬───────────────────────────────┬──────►
      │◄───── down_after ──────►│◄── 3 timer ticks, >= 156 ms ──►│
      │            poll sent    │◄── grace 150 ms ──►│
      │                ├────────┴─── the vote ───────┤

1. a sentinel holds a master to be down no earlier than down_after after the last ping it answered;
2. from there it takes at least three ticks of at most 19 Hz until the replica is told to be master;
3. whoever is promoted without that (SENTINEL FAILOVER, a stepping clock, an old opinion still on file) is promoted
   by a sentinel that shows failover_in_progress for at least two ticks before: that, and the events around it,
   break the lease at once.

Pure functions on reports; the reducer keeps the memory. Called by the reducer alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.sentinel.view import Master
    from shoal.sentinel.wire import Report, Said
    from shoal.topology import Endpoint

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Timing:
    """The spans the lease is made of, in ms. Only tests change them, to see the model catch it."""

    promotion_grace: int = 150
    """How much longer than until the first possible s_down a vote lasts. Three ticks are 156 ms at least."""
    event_hold: int = 1000
    """Longest hold for an event alone."""
    leader_hold: int = 2000
    """The same when the sentinel that fails over stays silent: until the others must have heard (about 1.6 s)."""
    newer_hold: int = 3000
    """Longest hold for a minority that knows a newer config epoch: sentinels tell each other every 2 s."""
    down_memory: int = 6000
    """How long a sentinel's opinion that a master is down stays on file at another one: 5 ask periods, and a tick."""
    gap: int = 1000
    """After a longer silence a sentinel's last word names no master any more, nor proves what it thought since."""


def vote_until(sent_ns: int, said: Said, timing: Timing) -> int:
    """When a vote ends, from the moment its poll was sent: the sentinel looked at its clock later than that."""
    left_ms = max(0, said.report.down_after_ms - said.ok_ping_age_ms)
    return sent_ns + (left_ms + timing.promotion_grace) * NS_PER_MS


def objection(said: Said, endpoint: Endpoint) -> str | None:
    """Why this word is no vote for that endpoint; None if it is one."""
    report = said.report
    if report.endpoint != endpoint:
        return f"names {report.endpoint}"
    if "s_down" in report.flags:
        return "holds the master to be down"
    if report.role_reported != "master":
        return f"was told by the server that it is a {report.role_reported}"
    if "master_reboot" in report.flags:
        return "waits for the restarted master"
    if said.ok_ping_age_ms < 0:
        return "had its clock set back"
    return None


def unrest(report: Report, committed: Master) -> str | None:
    """What in a report forbids writing to the committed master, whoever else vouches for it."""
    if report.failing_over and not (report.promoted and report.config_epoch <= committed.config_epoch):
        return f"a failover is in progress ({report.failover_state})"
    if "o_down" in report.flags and report.endpoint == committed.endpoint:
        return "the master is held to be down by a quorum"
    return None


def is_newer(report: Report, committed: Master) -> bool:
    """Whether this sentinel knows a later master than the committed one."""
    return report.config_epoch > committed.config_epoch and report.endpoint != committed.endpoint


def votes_needed(sentinels: int, quorum: int) -> int:
    """So many votes meet every majority, and every quorum, in at least one sentinel."""
    return max(sentinels // 2 + 1, sentinels - quorum + 1)
