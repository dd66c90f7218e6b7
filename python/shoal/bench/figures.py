"""What is measured: every figure declared once, and the shape in which figures travel from a run to its tables.

A *sample* is one run of a row's load through one subject; a *series* is all samples of a row in one mode, of every
subject equally many, in the order of their rounds. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

Sample = Mapping[str, float]


class Mode(StrEnum):
    """Who runs where: the proxy alone on the last core and everybody else on the others, or all where they like."""

    PINNED = "pinned"
    UNPINNED = "unpinned"


class Figure(NamedTuple):
    """One thing that is measured."""

    title: str
    unit: str
    more_is_better: bool = False


FIGURES: Mapping[str, Figure] = {
    "requests_per_second": Figure("throughput", "requests/s", more_is_better=True),
    "steady_per_second": Figure("throughput before the failover", "requests/s", more_is_better=True),
    "p50_ms": Figure("latency, p50", "ms"),
    "p99_ms": Figure("latency, p99", "ms"),
    "p999_ms": Figure("latency, p99.9", "ms"),
    "proxy_us": Figure("CPU of the proxy", "us/request"),
    "workers_us": Figure("of that, its workers", "us/request"),
    "servers_us": Figure("CPU of the servers", "us/request"),
    "load_us": Figure("CPU of the load generator", "us/request"),
    "sleeps": Figure("times the proxy slept", "/1000 requests"),
    "syscalls": Figure("system calls of the proxy", "/request"),
    "rss_mb": Figure("memory of the proxy", "MB"),
    "high_water_mb": Figure("most memory of the proxy", "MB"),
    "idle_kib": Figure("an idle client", "KiB"),
    "asked_kib": Figure("a client after one request", "KiB"),
    "peak_mb": Figure("growth at the peak", "MB"),
    "later_mb": Figure("growth 5 s later", "MB"),
    "cpu_percent": Figure("CPU of the idle proxy", "% of a core"),
}


@dataclass(frozen=True)
class Series:
    """All samples of one row in one mode, by subject."""

    row: str
    mode: Mode
    samples: Mapping[str, Sequence[Sample]]
    counted: Mapping[str, Sample] = field(default_factory=dict)
    """What the warm-up counted that would disturb a timed run: system calls."""

    def values(self, subject: str, figure: str) -> list[float]:
        """One figure of one subject, round by round; empty where it was not measured."""
        return [sample[figure] for sample in self.samples.get(subject, ()) if figure in sample]
