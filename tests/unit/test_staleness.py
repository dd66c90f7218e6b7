"""Leases for reads: what is in them, what ends them, and that no read on a replica ever misses more than it may."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.staleness import NS_PER_MS, Position, ReadRule, Sample, Staleness, read_position
from shoal.topology import Endpoint

MS = NS_PER_MS
MASTER, NEXT, ONE, TWO = (Endpoint("10.0.0.1", port) for port in (1, 2, 3, 4))
RULE = ReadRule(1000)


def shard(rule: ReadRule = RULE) -> Staleness:
    known = Staleness(rule)
    known.follow(MASTER)
    known.know([ONE, TWO])
    known.sole(10**12)
    return known


def says(known: Staleness, server: Endpoint, at_ms: float, offset: int, history: str = "h", trip_ms: float = 1) -> None:
    asked = int(at_ms * MS)
    known.hear(server, Sample(asked, asked + int(trip_ms * MS), Position(history, offset)))


def until_ms(known: Staleness, replica: Endpoint, now_ms: float) -> float:
    return known.decide(int(now_ms * MS)).replicas[replica].until_ns / MS


def why_not(known: Staleness, replica: Endpoint, now_ms: float) -> str | None:
    return known.decide(int(now_ms * MS)).replicas[replica].why_not


def test_a_replica_that_has_all_is_leased_from_when_its_master_was_asked() -> None:
    known = shard()
    says(known, MASTER, 100, 700)
    says(known, ONE, 150, 710)
    assert until_ms(known, ONE, 160) == 1100
    assert why_not(known, TWO, 160) == "has not answered yet"


def test_a_replica_that_lags_is_leased_from_when_its_master_was_no_further() -> None:
    known = shard()
    for at, offset in ((100, 700), (200, 800), (300, 900)):
        says(known, MASTER, at, offset)
    says(known, ONE, 350, 850)
    assert until_ms(known, ONE, 360) == 1200
    says(known, TWO, 350, 699)
    assert (until_ms(known, TWO, 360), why_not(known, TWO, 360)) == (0, "is too far behind")


def test_an_idle_master_needs_no_new_offset() -> None:
    known = shard()
    says(known, ONE, 90, 700)
    for at in range(100, 2000, 100):
        says(known, MASTER, at, 700)
        says(known, ONE, at + 50, 700)
    assert until_ms(known, ONE, 1960) == 2900


def test_a_replica_that_is_not_heard_runs_out_although_its_master_is_idle() -> None:
    known = shard()
    says(known, ONE, 90, 700)
    says(known, MASTER, 1000, 700)
    assert until_ms(known, ONE, 1001) == 1090
    known.miss(ONE, "does not answer: no answer in time")
    assert until_ms(known, ONE, 1080) == 1090, "what was said holds"
    assert why_not(known, ONE, 1090) == "does not answer: no answer in time"


def test_a_master_that_is_not_heard_lets_all_run_out() -> None:
    known = shard()
    says(known, MASTER, 100, 700)
    known.miss(MASTER, "does not answer: Connection refused")
    says(known, ONE, 1050, 700)
    assert until_ms(known, ONE, 1060) == 1100
    says(known, ONE, 1150, 700)
    assert why_not(known, ONE, 1160) == "cannot be compared with its master, which does not answer: Connection refused"


@pytest.mark.parametrize("bad", ["has lost its master", "copies its master's data", "says that it is a master"])
def test_an_answer_against_a_replica_ends_its_lease_at_once(bad: str) -> None:
    known = shard()
    says(known, MASTER, 100, 700)
    says(known, ONE, 150, 700)
    known.hear(ONE, Sample(200 * MS, 201 * MS, Position("h", 700, bad)))
    assert (until_ms(known, ONE, 202), why_not(known, ONE, 202)) == (0, bad)


def test_another_history_is_not_compared() -> None:
    known = shard()
    says(known, MASTER, 100, 700)
    says(known, ONE, 150, 900, history="other")
    assert (until_ms(known, ONE, 160), why_not(known, ONE, 160)) == (0, "does not follow this master")
    says(known, MASTER, 200, 10, history="new")
    says(known, ONE, 250, 700)
    assert until_ms(known, ONE, 260) == 0, "a master that was started anew has another history"


def test_of_another_master_all_is_learnt_anew() -> None:
    known = shard()
    says(known, MASTER, 100, 700)
    says(known, ONE, 150, 700)
    known.follow(ONE)
    known.know([MASTER, ONE, TWO])
    assert known.replicas == (MASTER, TWO)
    assert not any(view.until_ns for view in known.decide(160 * MS).replicas.values())


def test_a_master_that_may_be_deposed_ends_leases_max_lag_after_it_was_not() -> None:
    known = Staleness(RULE)
    known.follow(MASTER)
    known.know([ONE])
    known.sole(120 * MS)
    for at in (100, 200, 1000):
        says(known, MASTER, at, 700)
        says(known, ONE, at + 50, 700)
    assert until_ms(known, ONE, 1060) == 1120
    assert why_not(known, ONE, 1120) == "its master has no lease: there may be another one"


def test_nearest_leaves_the_far_ones_out_and_shares_among_the_near() -> None:
    known = shard(ReadRule(1000, nearest=True))
    says(known, MASTER, 100, 700, trip_ms=5)
    says(known, ONE, 150, 700, trip_ms=1)
    says(known, TWO, 150, 700, trip_ms=1.2)
    reading = known.decide(160 * MS)
    assert [reading.replicas[at].until_ns > 0 for at in (ONE, TWO)] == [True, True]
    assert not reading.with_master
    says(known, MASTER, 200, 700, trip_ms=0.2)
    reading = known.decide(210 * MS)
    assert reading.with_master
    assert reading.replicas[ONE].why_not == "is 1.0 ms away, others are nearer"


def test_nearest_has_hysteresis() -> None:
    def two_near_after(*, before: bool) -> bool:
        known = shard(ReadRule(1000, nearest=True))
        says(known, MASTER, 100, 700, trip_ms=90)
        says(known, ONE, 150, 700, trip_ms=13 if before else 10)
        says(known, TWO, 150, 700, trip_ms=14)
        known.decide(165 * MS)
        says(known, ONE, 170, 700, trip_ms=10)
        return known.decide(185 * MS).replicas[TWO].until_ns > 0

    assert two_near_after(before=True)
    assert not two_near_after(before=False)


def test_nearest_among_those_that_may_be_read_from() -> None:
    known = shard(ReadRule(1000, nearest=True))
    says(known, MASTER, 100, 700, trip_ms=50)
    says(known, ONE, 150, 600, trip_ms=1)
    says(known, TWO, 150, 700, trip_ms=9)
    reading = known.decide(200 * MS)
    assert reading.replicas[TWO].until_ns > 0
    assert not reading.with_master


# ------------------------------------------------------------------------------------------------------------- answers

REPLICA = (
    b"# Replication\r\nrole:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:1\r\nmaster_link_status:%s\r\n"
    b"master_sync_in_progress:%s\r\nslave_read_repl_offset:99\r\nslave_repl_offset:98\r\nmaster_replid:abc\r\n"
    b"master_repl_offset:97\r\n"
)


@pytest.mark.parametrize(
    ("link", "copies", "why"),
    [
        (b"up", b"0", None),
        (b"down", b"0", "has lost its master"),
        (b"down", b"1", "copies its master's data"),
    ],
)
def test_a_replica_is_where_it_has_executed(link: bytes, copies: bytes, why: str | None) -> None:
    assert read_position(REPLICA % (link, copies), of_master=False) == Position("abc", 98, why)


def test_a_master_is_where_it_has_written() -> None:
    info = b"# Replication\r\nrole:master\r\nmaster_replid:abc\r\nmaster_repl_offset:97\r\n"
    assert read_position(info, of_master=True) == Position("abc", 97)
    assert read_position(info, of_master=False).why_not == "says that it is a master"
    assert read_position(REPLICA % (b"up", b"0"), of_master=True).why_not == "says that it is a replica"


@pytest.mark.parametrize(
    "info", [b"", b"role:slave\r\n", b"role:master\r\nmaster_replid:a\r\nmaster_repl_offset:x\r\n"]
)
def test_an_answer_of_another_kind_is_an_error(info: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_position(info, of_master=True)


# --------------------------------------------------------------------------------------------------------- simulation


@dataclass
class World:
    """A master that is written to, replicas that follow at their own pace, and questions that take their time.

    `written[n]` is when write n was acknowledged; what a replica has is a number of writes. Everything happens in
    steps of a millisecond.
    """

    chance: random.Random
    known: Staleness
    now: int = 0
    history: int = 0
    written: list[int] = field(default_factory=list)
    has: dict[Endpoint, int] = field(default_factory=lambda: {ONE: 0, TWO: 0})
    stalled: dict[Endpoint, int] = field(default_factory=dict)
    asked: dict[Endpoint, tuple[int, int, int, Position | None]] = field(default_factory=dict)

    def step(self) -> None:
        self.now += 1
        for _ in range(self.chance.choice((0, 0, 1, 3))):
            self.written.append(self.now)
        for replica, has in self.has.items():
            if self.chance.random() < 0.01:
                self.stalled[replica] = self.now + self.chance.randint(1, 300)
            if self.stalled.get(replica, 0) <= self.now:
                self.has[replica] = min(len(self.written), has + self.chance.randint(0, 8))
        for server in (MASTER, ONE, TWO):
            self._ask(server)

    def _ask(self, server: Endpoint) -> None:
        """A question under way is answered at one moment, and heard of at another."""
        if server not in self.asked:
            if self.chance.random() < 0.1:
                executed = self.now + self.chance.randint(0, 60)
                self.asked[server] = (self.now, executed, executed + self.chance.randint(0, 60), None)
            return
        asked, executed, heard, position = self.asked[server]
        if self.now == executed:
            offset = len(self.written) if server == MASTER else self.has[server]
            position = Position("h", offset)
            self.asked[server] = (asked, executed, heard, position)
        if self.now >= heard:
            del self.asked[server]
            if position is not None and self.chance.random() < 0.95:
                self.known.hear(server, Sample(asked * MS, self.now * MS, position))

    def missed_since(self, replica: Endpoint) -> int | None:
        """When the oldest write was acknowledged that a replica has not."""
        has = self.has[replica]
        return self.written[has] if has < len(self.written) else None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), max_lag=st.sampled_from([100, 150, 400]))
def test_no_leased_replica_ever_misses_more_than_it_may(seed: int, max_lag: int) -> None:
    world = World(random.Random(seed), shard(ReadRule(max_lag)))
    leases: dict[Endpoint, int] = {}
    for _ in range(800):
        world.step()
        if world.chance.random() < 0.3:  # the control plane is slow, too
            reading = world.known.decide(world.now * MS)
            leases = {at: view.until_ns // MS for at, view in reading.replicas.items()}
        for replica, until in leases.items():
            missed = world.missed_since(replica)
            if world.now < until and missed is not None:
                assert world.now - missed <= max_lag, f"{replica} at {world.now} misses what was written at {missed}"


def test_the_simulated_replicas_are_read_from_and_would_be_caught() -> None:
    """The simulation can fail: with leases that last longer, reads would miss too much."""
    leased = stale = 0
    for seed in range(6):
        world = World(random.Random(seed), shard(ReadRule(150)))
        for _ in range(1500):
            world.step()
            for replica, view in world.known.decide(world.now * MS).replicas.items():
                leased += world.now * MS < view.until_ns
                missed = world.missed_since(replica)
                longer = world.now < (view.current_ns or 0) / MS + 300
                stale += longer and missed is not None and world.now - missed > 150
    assert leased > 2000
    assert stale > 100
