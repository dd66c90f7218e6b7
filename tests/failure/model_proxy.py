"""A proxy of the model: polls and events with their delays and losses, around the real reducer.

Rule: it does what `shoal.watch` and `shoal.follow` do, in simulated time. Used by: model_world.py.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shoal.sentinel import Event, Identified, Kind, Polled, Published, Reducer, Report, Said, Tilted
from tests.failure.model_scenario import (
    NAME,
    NS,
    POLL_PERIOD,
    POLL_TIMEOUT,
    SENTINELS,
    SERVERS,
    LeaseViolationError,
    Mutation,
)

if TYPE_CHECKING:
    from shoal.sentinel import Master, View
    from tests.failure.model_world import World


class SimProxy:
    """A proxy's watch around the real reducer."""

    def __init__(self, world: World, mutation: Mutation) -> None:
        self.world, self.mutation = world, mutation
        self.reducer = Reducer(SENTINELS, [NAME], timing=mutation.timing)
        self.lease_on: Master | None = None
        self.lease_until = 0
        self.committed: list[Master] = []
        self._asking = [False] * 3
        self._again = [False] * 3
        self._heard_at = [0] * 3
        for number in range(3):
            self.reducer.observe(Identified(SENTINELS[number], f"{number:040d}"))
            world.at(world.random.randint(0, POLL_PERIOD), partial(self._poll_for_ever, number))

    def _poll_for_ever(self, number: int) -> None:
        self.world.at(self.world.now + POLL_PERIOD, lambda: self._poll_for_ever(number))
        self.poll(number)

    def poll(self, number: int) -> None:
        """One poll; a second one waits for its end."""
        if self._asking[number]:
            self._again[number] = True
            return
        self._asking[number] = True
        scenario, sent = self.world.scenario, self.world.now
        if self._cut_off(number) or self.world.random.random() < scenario.poll_loss:
            self.world.at(sent + POLL_TIMEOUT, lambda: self._end(number))
            return

        def asked() -> None:
            sentinel = self.world.sentinels[number]
            said, tilt = sentinel.said(), sentinel.tilt
            self.world.after(scenario.poll_delay, lambda: answered(said, tilt))

        def answered(said: Said, tilt: bool) -> None:
            self._end(number)
            if self.world.now - sent >= POLL_TIMEOUT:
                return
            if self.mutation.blind_to_flags:
                calm = frozenset({"master"})
                report = said.report
                said = Said(Report(report.endpoint, calm, "master", "", *_rest(report)), said.ok_ping_age_ms)
            counted = self.world.now if self.mutation.counts_from_reply else sent
            self.reducer.observe(Tilted(SENTINELS[number], counted * NS, tilt))
            self.reducer.observe(Polled(SENTINELS[number], counted * NS, {NAME: said}))
            self._decide()

        self.world.after(scenario.poll_delay, asked)

    def _cut_off(self, number: int) -> bool:
        return number in self.world.scenario.blind or self.world.now >= self.world.scenario.cut

    def _end(self, number: int) -> None:
        self._asking[number] = False
        if self._again[number]:
            self._again[number] = False
            self.poll(number)

    def hear(self, number: int, event: Event) -> None:
        """An event is on its way: in order, if it comes at all."""
        scenario = self.world.scenario
        if self._cut_off(number) or self.mutation.deaf or self.world.random.random() < scenario.event_loss:
            return
        arrives = max(self._heard_at[number], self.world.now + self.world.random.randint(*scenario.event_delay))
        self._heard_at[number] = arrives

        def heard() -> None:
            self.reducer.observe(Published(SENTINELS[number], self.world.now * NS, event))
            for one in range(3):
                self.poll(one)
            if event.kind is not Kind.LOOK:
                self._decide()

        self.world.at(arrives, heard)

    def _decide(self) -> None:
        view = self.reducer.decide(self.world.now * NS).masters[NAME]
        if view.candidate is not None:
            candidate = view.candidate
            self.world.after(self.world.scenario.delay, lambda: self._confirm(candidate))
        self.lease_on = self.committed[-1] if self.committed else None
        self.lease_until = view.lease_until_ns // NS
        self.world.judge()

    def _confirm(self, candidate: Master) -> None:
        view = self.view()
        if view.masters[NAME].candidate != candidate or self.world.roles[SERVERS.index(candidate.endpoint)] != "master":
            return
        if self.committed and candidate.config_epoch < self.committed[-1].config_epoch:
            raise LeaseViolationError(f"{candidate} after {self.committed[-1]}")
        if self.reducer.confirm(NAME, candidate):
            self.committed.append(candidate)
            self._decide()

    def view(self) -> View:
        return self.reducer.decide(self.world.now * NS)


def _rest(report: Report) -> tuple[int, int, int, int]:
    return report.config_epoch, report.down_after_ms, report.quorum, report.other_sentinels
