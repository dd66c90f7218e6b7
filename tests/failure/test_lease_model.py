"""The lease against a model of Sentinel: no scenario that its rule covers may end with a lease on a replaced master.

Three families of scenarios, for the three things that the lease stands on (docs/architecture/life-of-a-failover.md):

- by time alone: the master dies for a quorum; polls and events are late, lost, or the leader cannot be reached at all;
- by flags and events: anything happens (forced failovers, flapping links, stepping clocks), but answers come in time;
- by votes: the leader cannot be reached, and the quorum's opinion is an old one; the voters' events come in time.

And for each, that the model notices when the rule is broken on purpose.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from shoal.sentinel import Timing
from tests.failure.model_scenario import LeaseViolationError, Mutation, Outage, Scenario
from tests.failure.model_world import World

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYONE = frozenset(range(3))
SCENARIOS = 20
DEEP = 500
FOR_EVER = 10**9


def by_time(seed: int) -> Scenario:
    """The master is gone for at least a quorum, for good; the proxies see as little as the adversary likes."""
    r = random.Random(seed)
    start = r.randint(1000, 2200)
    witnesses = EVERYONE if r.random() < 0.5 else frozenset(r.sample(range(3), 2))
    outages = [
        Outage(start + r.randint(0, 400), FOR_EVER, frozenset({one}), refused=r.random() < 0.3) for one in witnesses
    ]
    if r.random() < 0.5:  # as fast as Sentinel can be, and the proxies are cut off just before they would see it
        return Scenario(
            seed,
            tick=(52, r.choice((52, 56))),
            delay=(0, 0),
            event_loss=1.0,
            outages=tuple(outages),
            cut=start + r.randint(700, 1300),
            until=5000,
        )
    slow = r.choice((3, 30, 400))
    return Scenario(
        seed,
        delay=r.choice(((0, 0), (0, 3), (0, 40))),
        poll_delay=(0, slow),
        event_delay=(0, slow),
        poll_loss=r.choice((0.0, 0.1, 0.5)),
        event_loss=r.choice((0.0, 0.5, 1.0)),
        outages=tuple(outages),
        blind=frozenset() if r.random() < 0.6 else frozenset({r.randrange(3)}),
        cut=FOR_EVER if r.random() < 0.5 else start + r.randint(0, 1500),
        slow_reconf=r.choice((0, 0, 1500)),
        proxies=2,
        until=6500,
    )


def by_flags(seed: int) -> Scenario:
    """Anything at all, as long as every sentinel answers the proxies within 45 ms."""
    r = random.Random(seed)
    outages = []
    for _ in range(r.randint(0, 5)):
        start = r.randint(500, 5000)
        length = r.choice((300, 1000, 1300, 2500))
        some = frozenset(r.sample(range(3), r.randint(1, 3)))
        outages.append(Outage(start, start + r.randint(100, length), some, refused=r.random() < 0.5))
    return Scenario(
        seed,
        tick=r.choice(((52, 52), (52, 100))),
        delay=(0, r.choice((0, 3, 20))),
        poll_delay=(0, 22),
        event_delay=(0, 45),
        outages=tuple(outages),
        forced=tuple((r.randint(1000, 5000), r.randrange(3)) for _ in range(r.randint(0, 2))),
        steps=tuple(_step(r) for _ in range(r.choice((0, 0, 2, 3)))),
        slow_reconf=r.choice((0, 0, 1500)),
        proxies=2,
        until=7500,
    )


def _step(r: random.Random) -> tuple[int, int, int]:
    return r.randint(1000, 4000), r.randrange(3), r.randint(-300, 1900)


def by_votes(seed: int) -> Scenario:
    """One sentinel is out of the proxies' reach and sees the master down; another one only thought so a moment ago."""
    r = random.Random(seed)
    leader, flapping, steady = r.sample(range(3), 3)
    start = r.randint(1000, 9000)
    back = start + r.randint(1100, 2600)
    outages = [
        Outage(start + r.randint(-200, 200), FOR_EVER, frozenset({leader})),
        Outage(start, back, frozenset({flapping}), refused=r.random() < 0.3),
    ]
    if r.random() < 0.3:
        outages.append(Outage(start, back + r.randint(-200, 200), frozenset({steady})))
    lasting = r.random() < 0.5
    return Scenario(
        seed,
        tick=r.choice(((52, 52), (52, 100))),
        delay=(0, r.choice((0, 3, 20))),
        poll_delay=(0, 22),
        event_delay=(0, 45),
        outages=tuple(outages),
        blind=frozenset({leader}),
        strangers=frozenset({leader, flapping}),
        apart=back if lasting else FOR_EVER,
        not_before=back + r.randint(0, 6000) if lasting else 0,
        until=start + 6000 + 6000 * lasting,
    )


FAMILIES: dict[str, Callable[[int], Scenario]] = {"time": by_time, "flags": by_flags, "votes": by_votes}


def play(scenario: Scenario, mutation: Mutation | None = None) -> World:
    world = World(scenario, mutation)
    world.run()
    return world


@pytest.mark.unit
@pytest.mark.parametrize("family", FAMILIES)
def test_no_lease_outlives_the_promotion_of_another_master(family: str) -> None:
    worlds = [play(FAMILIES[family](seed)) for seed in range(SCENARIOS)]
    promotions = sum(bool(world.promotions) for world in worlds)
    assert promotions > SCENARIOS / 3, "the scenarios must bring failovers about, or they prove nothing"


@pytest.mark.failure
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_lease_outlives_the_promotion_of_another_master_in_many_more_scenarios(family: str) -> None:
    for seed in range(SCENARIOS, SCENARIOS + DEEP):
        play(FAMILIES[family](seed))


@pytest.mark.unit
def test_the_grace_is_nearly_all_that_sentinel_leaves() -> None:
    """With the fastest timers, the lease ends shortly before the promotion: the model is no easy one."""
    slack = [gap for seed in range(6 * SCENARIOS) for gap in play(by_time(seed)).slack[:1]]
    assert 0 <= min(slack) < 110


BROKEN = {
    "a grace of 400 ms": ("time", Mutation(timing=Timing(promotion_grace=400))),
    "a vote that counts from the reply": ("time", Mutation(counts_from_reply=True)),
    "flags and events not read": ("flags", Mutation(deaf=True, blind_to_flags=True)),
    "events not read": ("flags", Mutation(deaf=True)),
    "votes for an unreachable leader not waited for": ("votes", Mutation(timing=Timing(leader_hold=1))),
    "old opinions forgotten too soon": ("votes", Mutation(timing=Timing(down_memory=200))),
}


def play_until_it_breaks(family: str, mutation: Mutation) -> None:
    for seed in range(15 * SCENARIOS):
        play(FAMILIES[family](seed), mutation)


@pytest.mark.unit
@pytest.mark.parametrize("how", BROKEN)
def test_the_model_notices(how: str) -> None:
    family, mutation = BROKEN[how]
    with pytest.raises(LeaseViolationError):
        play_until_it_breaks(family, mutation)


@pytest.mark.unit
def test_all_proxies_end_at_the_highest_config_epoch() -> None:
    """After whatever happened, once everything is reachable again and quiet."""
    for seed in range(SCENARIOS // 4):
        hostile = by_flags(seed)
        healing = Scenario(**{**hostile.__dict__, "until": 16_000, "steps": ()})
        world = play(healing)
        highest = max(sentinel.config_epoch for sentinel in world.sentinels)
        for proxy in world.proxies:
            assert proxy.committed[-1].config_epoch == highest, healing
            assert proxy.lease_until > world.now - 200, healing
