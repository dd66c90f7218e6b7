"""The rows of the table: every load and scenario by its name, and how one sample of it is taken.

Rule: a row's sample is taken the same way from every subject, and whatever it started is over when it returns. Called
by `run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from shoal.bench import fairness, memory, throughput
from shoal.bench.figures import Mode
from shoal.bench.loads import LOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.bench.figures import Sample
    from shoal.bench.loads import Load
    from shoal.bench.stage import Stage
    from shoal.bench.subjects import Subject

BOTH = (Mode.PINNED, Mode.UNPINNED)
ONLY_UNPINNED = (Mode.UNPINNED,)
FEW = 3
"""Rounds of a scenario whose figure hardly scatters, and takes its time."""
MANY_SHARDS = 8


@dataclass(frozen=True)
class Row:
    """One load or scenario."""

    name: str
    title: str
    measure: Callable[[Stage, Subject], Sample]
    values: Load
    """Whose values the servers have while it is measured."""
    modes: tuple[Mode, ...] = ONLY_UNPINNED
    warm_up: Callable[[Stage, Subject], Sample] | None = None
    """Before the rounds; what it returns is counted apart from them."""
    rounds: int | None = None
    """How many, where not as many as the run says."""
    shards: int = 2
    needs_proxy: bool = True
    """Whether it says nothing of servers without a proxy."""


def all_rows(scale: float) -> Mapping[str, Row]:
    """Every row by its name; `scale` shortens the loads."""
    rows = [_load_row(name, load, scale) for name, load in LOADS.items()] + _scenarios()
    return {row.name: row for row in rows}


def _load_row(name: str, load: Load, scale: float) -> Row:
    requests = max(load.clients * load.pipeline, round(load.requests * scale))
    return Row(
        name,
        str(load),
        partial(throughput.measure, load=load, requests=requests),
        load,
        BOTH,
        partial(throughput.count, load=load, requests=requests),
        needs_proxy=False,
    )


def _alone(measure: Callable[[Subject], Sample]) -> Callable[[Stage, Subject], Sample]:
    """A scenario that looks at its subject only."""
    return lambda _stage, subject: measure(subject)


def _scenarios() -> list[Row]:
    small, large = LOADS["get"], LOADS["get-64k"]
    return [
        Row(
            "beside-p5000",
            "50 clients beside one with -P 5000",
            _alone(fairness.beside_a_deep_pipeline),
            small,
            needs_proxy=False,
        ),
        Row("idle-1000", "1,000 idle clients", _alone(partial(memory.idle_clients, count=1_000)), small, rounds=FEW),
        Row(
            "idle-clients", "10,000 idle clients", _alone(partial(memory.idle_clients, count=10_000)), small, rounds=FEW
        ),
        Row("burst", "a burst of 200 x 20 GETs of 64 KiB", _alone(memory.burst), large, rounds=FEW),
        Row(
            "reads-nothing",
            "a client that asks for 262 MB and reads nothing",
            _alone(memory.reads_nothing),
            large,
            rounds=FEW,
        ),
        Row(
            "idle-cpu",
            f"nobody asks anything ({MANY_SHARDS} shards)",
            _alone(fairness.idle_cpu),
            small,
            rounds=FEW,
            shards=MANY_SHARDS,
        ),
    ]
