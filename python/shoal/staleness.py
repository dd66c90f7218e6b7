"""What a replica may miss at most: replication offsets of a master and its replicas in, leases for reads out.

Rule: **a read sent to a replica before its lease ends misses no write that was acknowledged `max_lag` before it was
sent.** It stands on four facts:

    master asked, says 700     replica asked, says 710
    ──┬──────────────────────────┬───────────────────────────────────►
      │◄──────────── max_lag, from the earliest of these ───────►│ the lease ends
      all that was acknowledged until here is in 700, and so in the replica

1. a master's offset only grows, and what is acknowledged is in it: whatever was acknowledged before the question was
   sent is at an offset no higher than the answer;
2. a replica's offset counts what it has executed, and only grows while it follows one history (the replication id) and
   its process lives; a worker reads only on connections that are older than the sample, so that they end with that
   process (`crates/dataplane/src/readers.rs`);
3. so a replica that has said an offset no lower than its master's has all that was acknowledged before the master was
   asked, and goes on having it;
4. no other master takes writes while the lease for writes holds (`shoal.sentinel.lease`): what a deposed one says is
   worth nothing from then on.

Pure: clocks (CLOCK_BOOTTIME) and answers are passed in. Whatever stops (an answer, the link, a clock that is read) ends
leases early and never late; an answer that speaks against a replica ends its lease at once. Called by `reads`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoal.topology import Endpoint

NS_PER_MS = 1_000_000
ROUND_TRIPS = 10
"""Of so many the shortest says how far a server is: the others have waited somewhere."""
NEAR, STAYS_NEAR = (1.2, 200_000), (1.5, 500_000)
"""A server is as near as the nearest one up to this factor and so many ns more; one that has been near, up to that."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a server is in a history of writes: its answer to INFO replication."""

    history: str
    """The replication id."""
    offset: int
    why_not: str | None = None
    """Why it is not what it should be: a master, or a replica whose link is up."""


class Sample(NamedTuple):
    """An answer with the moments before the question and after the answer."""

    asked_ns: int
    answered_ns: int
    position: Position


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica: until when it may be read from, and if not, why not."""

    sampled_ns: int = 0
    until_ns: int = 0
    current_ns: int | None = None
    """It has all that was acknowledged until then."""
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Who reads of a shard go to."""

    replicas: Mapping[Endpoint, ReplicaView] = field(default_factory=dict)
    with_master: bool = False
    """The master takes a share too: it is as near as they."""


@dataclass(frozen=True)
class ReadRule:
    """How a pool reads: what a read may miss, and whether it goes where the answer comes from soonest."""

    max_lag_ms: int
    nearest: bool = False


class _History:
    """The last offsets of a master: at which offset it was known to be no further, and when."""

    def __init__(self) -> None:
        self._id = ""
        self._offsets: list[int] = []
        self._asked_ns: list[int] = []

    def add(self, sample: Sample, span_ns: int) -> None:
        if sample.position.history != self._id or (self._offsets and sample.position.offset < self._offsets[-1]):
            self._id, self._offsets, self._asked_ns = sample.position.history, [], []
        if self._offsets and self._offsets[-1] == sample.position.offset:
            self._asked_ns[-1] = sample.asked_ns
        else:
            self._offsets.append(sample.position.offset)
            self._asked_ns.append(sample.asked_ns)
        old = bisect_right(self._asked_ns, sample.asked_ns - span_ns)
        del self._offsets[:old], self._asked_ns[:old]

    def current_ns(self, position: Position) -> int | None:
        """When last the master was known to be no further than this."""
        if position.history != self._id:
            return None
        reached = bisect_right(self._offsets, position.offset)
        return self._asked_ns[reached - 1] if reached else None


class _Server:
    """What was heard of one server."""

    def __init__(self) -> None:
        self.good: Sample | None = None
        self.why_not: str | None = "has not answered yet"
        self._trips: deque[int] = deque(maxlen=ROUND_TRIPS)

    def hear(self, sample: Sample) -> None:
        self.why_not = sample.position.why_not
        self.good = sample if self.why_not is None else None
        self._trips.append(sample.answered_ns - sample.asked_ns)

    @property
    def trip_ns(self) -> int | None:
        return min(self._trips, default=None)


class Staleness:
    """One shard of one pool: what is known of its servers, and what follows from it."""

    def __init__(self, rule: ReadRule) -> None:
        self.master: Endpoint | None = None
        self._max_lag_ns = rule.max_lag_ms * NS_PER_MS
        self._nearest = rule.nearest
        self._forget()

    def _forget(self) -> None:
        self._history = _History()
        self._sole_ns = 0
        self._mine = _Server()
        self._replicas: dict[Endpoint, _Server] = {}
        self._near: set[Endpoint | None] = set()

    # ------------------------------------------------------------------------------------------------ observations

    def follow(self, master: Endpoint | None) -> None:
        """This is the master; of another one everything is to be learnt anew."""
        if master != self.master:
            self.master = master
            self._forget()

    def sole(self, at_ns: int) -> None:
        """No other master had taken writes by then."""
        self._sole_ns = max(self._sole_ns, at_ns)

    def know(self, replicas: Iterable[Endpoint]) -> None:
        """These are the replicas; what is known of others is forgotten."""
        self._replicas = {at: self._replicas.get(at) or _Server() for at in replicas if at != self.master}

    @property
    def replicas(self) -> tuple[Endpoint, ...]:
        return tuple(sorted(self._replicas))

    def hear(self, server: Endpoint, sample: Sample) -> None:
        """A server has said where it is."""
        if server == self.master:
            self._mine.hear(sample)
            if self._mine.good is not None:
                self._history.add(sample, self._max_lag_ns)
        elif server in self._replicas:
            self._replicas[server].hear(sample)

    def miss(self, server: Endpoint, why: str) -> None:
        """A server did not answer: its lease runs out by itself."""
        known = self._mine if server == self.master else self._replicas.get(server)
        if known is not None:
            known.why_not = why

    # ------------------------------------------------------------------------------------------------ decision

    def decide(self, now_ns: int) -> Reading:
        """Leases as they are at this moment."""
        views = {at: self._view(server, now_ns) for at, server in self._replicas.items()}
        if not self._nearest:
            return Reading(views)
        may = [at for at, view in views.items() if view.until_ns > now_ns]
        near = self._nearest_of([*may, None])
        far = {at: self._too_far(view, at) for at, view in views.items() if at in may and at not in near}
        return Reading({**views, **far}, with_master=None in near)

    def _view(self, server: _Server, now_ns: int) -> ReplicaView:
        good = server.good
        if good is None:
            return ReplicaView(why_not=server.why_not)
        current_ns = self._history.current_ns(good.position)
        if current_ns is None:
            other = self._mine.good is not None and self._mine.good.position.history != good.position.history
            why = "does not follow this master" if other else "is too far behind"
            return ReplicaView(good.asked_ns, why_not=self._mine.why_not if self._mine.good is None else why)
        until_ns = min(current_ns, good.asked_ns, self._sole_ns) + self._max_lag_ns
        if until_ns > now_ns:
            return ReplicaView(good.asked_ns, until_ns, current_ns)
        return ReplicaView(good.asked_ns, 0, current_ns, self._overdue(server, current_ns))

    def _overdue(self, server: _Server, current_ns: int) -> str:
        """Why a lease has run out."""
        if server.why_not is not None:
            return server.why_not
        if self._mine.why_not is not None:
            return f"cannot be compared with its master, which {self._mine.why_not}"
        if self._sole_ns < current_ns:
            return "its master has no lease: there may be another one"
        return "is too far behind"

    def _trip_ns(self, at: Endpoint | None) -> int | None:
        """How far a replica is, or the master (None)."""
        return (self._mine if at is None else self._replicas[at]).trip_ns

    def _nearest_of(self, candidates: list[Endpoint | None]) -> set[Endpoint | None]:
        """Those that are as near as the nearest; None is the master."""
        trips = {at: trip for at in candidates if (trip := self._trip_ns(at)) is not None}
        best = min(trips.values(), default=0)
        limits = {near: int(best * factor) + more for near, (factor, more) in ((False, NEAR), (True, STAYS_NEAR))}
        self._near = {at for at, trip in trips.items() if trip <= limits[at in self._near]}
        return self._near

    def _too_far(self, view: ReplicaView, at: Endpoint) -> ReplicaView:
        trip_ms = (self._trip_ns(at) or 0) / NS_PER_MS
        return ReplicaView(view.sampled_ns, 0, view.current_ns, f"is {trip_ms:.1f} ms away, others are nearer")


def read_position(info: bytes, *, of_master: bool) -> Position:
    """What INFO replication says; ValueError if that is something else.

    Link and history say all that is needed of a replica: while it loads its data or a copy of its master's, its link
    is down.
    """
    fields = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
    try:
        role, history = fields[b"role"], fields[b"master_replid"].decode()
        if of_master:
            why_not = None if role == b"master" else "says that it is a replica"
            return Position(history, int(fields[b"master_repl_offset"]), why_not)
        if role == b"master":
            return Position(history, 0, "says that it is a master")
        why_not = None if fields[b"master_link_status"] == b"up" else "has lost its master"
        if fields[b"master_sync_in_progress"] != b"0":
            why_not = "copies its master's data"
        return Position(history, int(fields[b"slave_repl_offset"]), why_not)
    except (KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"INFO replication has no {error}") from None
