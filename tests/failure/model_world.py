"""The world of the model: its clock and network, three sentinels, some proxies, and the judge of every lease.

Rule: whatever Sentinel leaves open (tick lengths, delays, losses, outages, clock steps) is the scenario's to choose and
is chosen against us. Every promotion and every lease is judged when it happens. Used by: test_lease_model.py.
"""

from __future__ import annotations

import heapq
import random
from functools import partial
from typing import TYPE_CHECKING

from tests.failure.model_proxy import SimProxy
from tests.failure.model_scenario import SERVERS, LeaseViolationError, Mutation, Outage, Promotion, Scenario
from tests.failure.model_sentinel import SimSentinel

if TYPE_CHECKING:
    from collections.abc import Callable


class World:
    """The clock, the network and the judge."""

    def __init__(self, scenario: Scenario, mutation: Mutation | None = None) -> None:
        self.scenario = scenario
        self.random = random.Random(scenario.seed)
        self.now = 0
        self._queue: list[tuple[int, float, int, Callable[[], None]]] = []
        self._count = 0
        self.roles = ["master", "slave", "slave"]
        self.promotions: list[Promotion] = []
        self.abandoned: set[tuple[int, int]] = set()
        self.slack: list[int] = []
        """How long before each promotion the last lease on the old master had ended."""
        self.sentinels = [SimSentinel(self, number) for number in range(3)]
        self.proxies = [SimProxy(self, mutation or Mutation()) for _ in range(scenario.proxies)]
        for when, which in scenario.forced:
            self.at(when, self.sentinels[which].force_failover)
        for when, which, jump in scenario.steps:
            self.at(when, partial(self.sentinels[which].step_clock, jump))
        for outage in scenario.outages:
            if outage.refused:
                self.at(outage.start, partial(self._refuse, outage))

    def at(self, when: int, action: Callable[[], None]) -> None:
        """Schedule; what is due at one moment happens in any order."""
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.now), self.random.random(), self._count, action))

    def after(self, span: tuple[int, int], action: Callable[[], None]) -> None:
        self.at(self.now + self.random.randint(*span), action)

    def run(self) -> None:
        while self._queue and self._queue[0][0] <= self.scenario.until:
            self.now, _, _, action = heapq.heappop(self._queue)
            action()

    def reaches(self, sentinel: int, server: int) -> bool:
        return not any(
            o.server == server and sentinel in o.sentinels and o.start <= self.now < o.end
            for o in self.scenario.outages
        )

    def refuses(self, sentinel: int, server: int) -> bool:
        return any(
            o.refused and o.server == server and sentinel in o.sentinels and o.start <= self.now < o.end
            for o in self.scenario.outages
        )

    def meet(self, one: int, other: int) -> bool:
        return self.now < self.scenario.apart or not {one, other} <= self.scenario.strangers

    def _refuse(self, outage: Outage) -> None:
        for number in outage.sentinels:
            if self.sentinels[number].server == outage.server:
                self.sentinels[number].lose_link()

    # ------------------------------------------------------------------------------------------------ the judge

    def promote(self, leader: int, epoch: int, server: int) -> None:
        self.roles[server] = "master"
        self.promotions.append(Promotion(self.now, leader, epoch, server))
        ends = [
            p.lease_until for p in self.proxies if p.lease_on is not None and p.lease_on.endpoint != SERVERS[server]
        ]
        self.slack.append(self.now - max(ends, default=0))
        self.judge()

    def abandon(self, leader: int, epoch: int) -> None:
        """A leader has given its failover up before it knew of the promotion: to Sentinel it never happened."""
        self.abandoned.add((leader, epoch))

    def judge(self) -> None:
        """No lease on a master that was replaced; no two leases on different masters."""
        leases = [(p.lease_on, p.lease_until) for p in self.proxies if p.lease_on and p.lease_until > self.now]
        for on, until in leases:
            for promotion in self.promotions:
                replaced = on.config_epoch < promotion.epoch and on.endpoint != SERVERS[promotion.server]
                if replaced and (promotion.leader, promotion.epoch) not in self.abandoned:
                    raise LeaseViolationError(
                        f"at {self.now}: lease on {on} until {until} after {promotion} in {self.scenario}"
                    )
        if len({on.endpoint for on, _ in leases}) > 1:
            raise LeaseViolationError(f"at {self.now}: {leases} in {self.scenario}")
