"""What is remembered about one master between two decisions: events not yet settled, and who held it to be down when.

Rule: an event can only take a lease away. It is over when polls sent after it show nothing of it, and at its time
limit, so a late, repeated or forged one costs a short hold at most. Nothing here knows the time but what it is passed.

    event                from whom it must be heard again, without a failover, before writes go on
    ─────────────────    ──────────────────────────────────────────────────────────────────────────
    FAILOVER, ODOWN      the sentinel that said so, and a majority
    VOTE                 the sentinel that was voted for, and a majority
    EPOCH                a majority

VOTE and EPOCH name no master. They unsettle only masters for which a majority has not been steady: a sentinel can be
elected for a master only if a quorum held it to be down within `Timing.down_memory`. Called by the reducer alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.sentinel.lease import NS_PER_MS, Timing, is_newer
from shoal.sentinel.wire import Event, Kind, Said

if TYPE_CHECKING:
    from shoal.sentinel.view import Master
    from shoal.topology import Endpoint

    Word = tuple[Said | None, int]  # what a sentinel said of a master, and when the poll was sent


@dataclass(frozen=True, slots=True)
class Disturbance:
    """An event that has taken the lease away and is not settled yet."""

    kind: Kind
    source: Endpoint
    at_ns: int
    until_ns: int
    asks: Endpoint | None
    """The sentinel that must be heard again."""
    heard_by_majority: bool
    """Whether a majority heard again is enough; else only `asks` or the time limit settles it."""
    text: str


@dataclass(slots=True)
class MasterMemory:
    """One master's past, by sentinel where it is a sentinel's word."""

    timing: Timing
    committed: Master | None = None
    disturbances: dict[tuple[Kind, Endpoint], Disturbance] = field(default_factory=dict)
    down_ns: dict[Endpoint, int] = field(default_factory=dict)
    """When a sentinel last published that the master is down: older polls of it are no votes."""
    steady_ns: dict[Endpoint, int] = field(default_factory=dict)
    """Since when a sentinel has been heard without a gap and has not held the master to be down."""
    newer_ns: dict[Endpoint, int] = field(default_factory=dict)
    """Since when a sentinel has known a later master."""

    def polled(self, sentinel: Endpoint, said: Said | None, sent_ns: int, before: Word | None) -> None:
        """Take in a sentinel's word; `before` is its last one."""
        steady = said is not None and "s_down" not in said.report.flags and sent_ns > self.down_ns.get(sentinel, -1)
        if not steady:
            self.steady_ns.pop(sentinel, None)
        elif sentinel not in self.steady_ns or self._interrupted(said, sent_ns, before):
            self.steady_ns[sentinel] = sent_ns
        if said is None or self.committed is None or not is_newer(said.report, self.committed):
            self.newer_ns.pop(sentinel, None)
        else:
            self.newer_ns.setdefault(sentinel, sent_ns)

    def _interrupted(self, said: Said | None, sent_ns: int, before: Word | None) -> bool:
        if before is None or sent_ns - before[1] > self.timing.gap * NS_PER_MS:
            return True
        return said is None or before[0] is None or said.report.endpoint != before[0].report.endpoint

    def published(self, sentinel: Endpoint, event: Event, at_ns: int, leader: Endpoint | None) -> None:
        """Take in an event about this master, or about one that it does not name."""
        if event.kind in (Kind.SDOWN, Kind.ODOWN):
            self.down_ns[sentinel] = max(at_ns, self.down_ns.get(sentinel, 0))
            self.steady_ns.pop(sentinel, None)
        if event.kind in (Kind.FAILOVER, Kind.ODOWN, Kind.VOTE, Kind.EPOCH):
            self._disturb(sentinel, event, at_ns, leader)

    def _disturb(self, sentinel: Endpoint, event: Event, at_ns: int, leader: Endpoint | None) -> None:
        key = (event.kind, sentinel)
        earlier = self.disturbances.get(key)
        if earlier is not None and earlier.at_ns > at_ns:
            return
        waits_for_leader = event.kind in (Kind.FAILOVER, Kind.VOTE)
        limit = self.timing.leader_hold if waits_for_leader else self.timing.event_hold
        asks = leader if event.kind is Kind.VOTE else None if event.kind is Kind.EPOCH else sentinel
        self.disturbances[key] = Disturbance(
            kind=event.kind,
            source=sentinel,
            at_ns=at_ns,
            until_ns=at_ns + limit * NS_PER_MS,
            asks=asks,
            heard_by_majority=event.kind is Kind.EPOCH or asks is not None,
            text=f"sentinel {sentinel} published {event.channel}",
        )

    def steady(self, now_ns: int) -> int:
        """How many sentinels cannot have held the master to be down lately."""
        long_ago = now_ns - self.timing.down_memory * NS_PER_MS
        return sum(since <= long_ago for since in self.steady_ns.values())
