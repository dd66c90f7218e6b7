"""The rows of the table: every load and scenario by its name, and how one sample of it is taken.

Rule: a row's sample is taken the same way from every subject, and whatever it started is over when it returns. Called
by `run`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from shoal.bench import failing, fairness, memory, throughput
from shoal.bench.figures import Mode
from shoal.bench.loads import LOADS, Load
from shoal.bench.stage import Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.bench.figures import Sample
    from shoal.bench.stage import Stage
    from shoal.bench.subjects import Subject

BOTH = (Mode.PINNED, Mode.UNPINNED)
ONLY_UNPINNED = (Mode.UNPINNED,)
USUAL = Setting()
FEW = 3
"""Rounds of a scenario whose figure hardly scatters, and takes its time."""
MANY_SHARDS = 8
WORKERS = (1, 2, 4, 8, 16)
SHARDS = (8, 64)


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
    setting: Setting = USUAL
    needs_proxy: bool = True
    """Whether it says nothing of servers without a proxy."""
    beside_peers: bool = True
    """Whether it asks something of the others too."""


def all_rows(scale: float) -> Mapping[str, Row]:
    """Every row by its name; `scale` shortens the loads."""
    rows = [_load_row(name, load, scale) for name, load in LOADS.items()] + _scenarios() + _growth(scale)
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


def _growth(scale: float) -> list[Row]:
    """The same load over more workers, over more shards, and while another shard has no master."""
    load = LOADS["get-p16"]
    as_usual = _load_row("get-p16", load, scale)
    counts = [count for count in WORKERS if count <= len(os.sched_getaffinity(0))]
    workers = [
        replace(
            as_usual,
            name=f"workers-{count}",
            title=f"{load}, {count} worker{'s' * (count > 1)}",
            setting=Setting(workers=count),
            modes=ONLY_UNPINNED,
            beside_peers=False,
        )
        for count in counts
    ]
    shards = [
        replace(
            as_usual,
            name=f"shards-{count}",
            title=f"{load}, {count} shards",
            setting=Setting(shards=count),
            modes=ONLY_UNPINNED,
        )
        for count in SHARDS
    ]
    failover = Row(
        "failover",
        "50 clients of one shard while another one fails over",
        failing.beside_a_failover,
        failing.LOAD,
        rounds=FEW,
        setting=Setting(replicas=1),
        beside_peers=False,
    )
    return [*workers, *shards, failover]


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
        Row(
            "slow-upload",
            "50 clients beside one that uploads 1 MiB slowly",
            _alone(fairness.beside_a_slow_upload),
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
            setting=Setting(shards=MANY_SHARDS),
        ),
    ]
