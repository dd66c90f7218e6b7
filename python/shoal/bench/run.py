"""The order of a whole run: who comes when, how often, and what is kept of it.

    for each setting (so many shards):  start everybody, check their answers
      for each row:  load its values
        for each mode:  warm up A B C, then the rounds  A B C | C B A | A B C | ...

Rule: subjects take turns within each round, in an order that is reversed every other time, so that a drift of the
machine meets all alike; the warm-up is not among the samples. Called by `shoal bench`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from shoal.bench import answers, machine
from shoal.bench.figures import Mode, Series
from shoal.bench.goals import GOALS
from shoal.bench.stage import Stage, versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shoal.bench.figures import Sample
    from shoal.bench.peers import Peer
    from shoal.bench.rows import Row
    from shoal.bench.subjects import Subject


class Audience(Protocol):
    """Whoever watches: hears what begins, and each step that is done."""

    def begin(self, what: str) -> None: ...
    def step(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    rows: Sequence[Row]
    peers: Sequence[Peer]
    modes: Sequence[Mode]
    rounds: int
    close_rounds: int
    """For a row with a goal that is close to its floor."""
    workers: int = 0
    """Of Shoal in every setting that does not say how many; 0 is as many as it takes by itself."""

    def rounds_of(self, row: Row, mode: Mode) -> int:
        if row.rounds is not None:
            return min(row.rounds, self.rounds)
        close = any(goal.close for goal in GOALS if (goal.row, goal.mode) == (row.name, mode))
        return self.close_rounds if close else self.rounds

    def modes_of(self, row: Row) -> list[Mode]:
        return [mode for mode in row.modes if mode in self.modes]

    def steps(self) -> int:
        """How many samples and warm-ups there will be."""
        total = 0
        for row in self.rows:
            subjects = 1 + (len(self.peers) if row.beside_peers else 0) + (not row.needs_proxy)
            rounds = sum(self.rounds_of(row, mode) + (row.warm_up is not None) for mode in self.modes_of(row))
            total += subjects * rounds
        return total


@dataclass(frozen=True)
class Results:
    """Everything that was measured, and what it was measured on."""

    machine: Mapping[str, object]
    versions: Mapping[str, str]
    workers: int
    series: Sequence[Series]


def run(plan: Plan, audience: Audience) -> Results:
    """Measure it all; nothing that was started for it runs when this returns or raises."""
    described = machine.describe()
    series: list[Series] = []
    by_setting = attrgetter("setting", "beside_peers")
    for (setting, beside_peers), rows in groupby(sorted(plan.rows, key=by_setting), key=by_setting):
        audience.begin(f"starting {setting.shards} shards")
        peers = plan.peers if beside_peers else ()
        with Stage(peers, replace(setting, workers=setting.workers or plan.workers)) as stage:
            _check(stage, plan, audience)
            for row in rows:
                series += _measure(stage, row, plan, audience)
    return Results(described, versions(plan.peers), plan.workers, series)


def _check(stage: Stage, plan: Plan, audience: Audience) -> None:
    whole = {peer.name for peer in plan.peers if peer.shards} | {stage.subjects[0].name, stage.subjects[-1].name}
    for subject in stage.subjects:
        if subject.name in whole:
            audience.begin(f"checking the answers of {subject.name}")
            answers.check(subject.name, subject.port)


def _measure(stage: Stage, row: Row, plan: Plan, audience: Audience) -> Iterator[Series]:
    stage.load_values(row.values)
    for mode in plan.modes_of(row):
        audience.begin(f"{row.title}, {mode}")
        yield _series(stage, row, mode, (plan.rounds_of(row, mode), audience))


def _series(stage: Stage, row: Row, mode: Mode, how: tuple[int, Audience]) -> Series:
    rounds, audience = how
    subjects = [subject for subject in stage.subjects if subject.pid is not None or not row.needs_proxy]
    counted: dict[str, Sample] = {}
    samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
    if row.warm_up is not None:
        for subject in subjects:
            stage.arrange(mode, subject)
            counted[subject.name] = row.warm_up(stage, subject)
            audience.step()
    for number in range(rounds):
        for subject in _turns(subjects, number):
            stage.arrange(mode, subject)
            samples[subject.name].append(row.measure(stage, subject))
            audience.step()
    return Series(row.name, mode, samples, counted)


def _turns(subjects: Sequence[Subject], number: int) -> Iterator[Subject]:
    """Everybody once, from the other end every other time."""
    return iter(subjects) if number % 2 == 0 else reversed(subjects)
