"""What Shoal's proxy has to reach, declared once, and the judgement of what was measured.

A goal limits a figure of Shoal's, or its ratio to another subject's in the same rounds. The floor is what a throwaway
prototype in C reached that did nothing but forward; a goal within CLOSE of it wants more rounds. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.bench.estimate import Interval, Verdict, interval, ratio, verdict
from shoal.bench.figures import FIGURES, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shoal.bench.figures import Series

OURS = "shoal"
REFERENCE = "nutcracker"
CLOSE = 0.05
SLACK = 1.15
"""What --quick allows beyond a limit: it runs on machines that do other things too."""

PINNED, UNPINNED = Mode.PINNED, Mode.UNPINNED


@dataclass(frozen=True)
class Goal:
    """One row of the table: what a figure must not exceed, or with `at_least` has to reach."""

    row: str
    mode: Mode
    figure: str
    limit: float
    floor: float | None = None
    against: str | None = REFERENCE
    at_least: bool = False

    @property
    def close(self) -> bool:
        """Whether so little lies between goal and floor that it takes many rounds to see it."""
        return self.floor is not None and abs(self.limit - self.floor) <= CLOSE

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        to = f" of {self.against}'s" if self.against else f" {FIGURES[self.figure].unit}"
        return f"{sign} {self.limit:g}{to}"


GOALS = (
    Goal("get", PINNED, "proxy_us", 0.95, floor=0.91),
    Goal("get", UNPINNED, "proxy_us", 0.88, floor=0.80),
    Goal("set", PINNED, "proxy_us", 0.95, floor=0.93),
    Goal("set", UNPINNED, "proxy_us", 0.88, floor=0.80),
    Goal("get-p16", PINNED, "proxy_us", 0.60, floor=0.48),
    Goal("get-p16", UNPINNED, "proxy_us", 0.60, floor=0.58),
    Goal("get-p100", PINNED, "proxy_us", 0.28, floor=0.19),
    Goal("set-p100", PINNED, "proxy_us", 0.40, floor=0.32),
    Goal("mget-10", PINNED, "proxy_us", 0.88, floor=0.82),
    Goal("get-4k", PINNED, "proxy_us", 0.96, floor=0.92),
    Goal("get-64k", PINNED, "proxy_us", 0.80, floor=0.73),
    Goal("get-1m", PINNED, "proxy_us", 0.70, floor=0.64),
    Goal("set-64k", PINNED, "proxy_us", 1.03, floor=1.01),
    Goal("set-1m", PINNED, "proxy_us", 0.98, floor=0.94),
    Goal("get", UNPINNED, "requests_per_second", 0.97, floor=1.00, at_least=True),
    Goal("get-p16", UNPINNED, "requests_per_second", 1.4, floor=1.58, at_least=True),
    Goal("get-p100", UNPINNED, "requests_per_second", 1.8, floor=2.09, at_least=True),
    Goal("beside-p5000", UNPINNED, "p99_ms", 0.20, floor=0.12),
    Goal("beside-p5000", UNPINNED, "p99_ms", 1.0, against="direct"),
    Goal("idle-clients", UNPINNED, "idle_kib", 0.30, against=None),
    Goal("idle-clients", UNPINNED, "asked_kib", 0.60, against=None),
    Goal("burst", UNPINNED, "peak_mb", 32, against=None),
    Goal("burst", UNPINNED, "later_mb", 8, against=None),
    Goal("reads-nothing", UNPINNED, "peak_mb", 16, against=None),
    Goal("idle-cpu", UNPINNED, "cpu_percent", 3, against=None),
)


@dataclass(frozen=True)
class Judged:
    """A goal beside what was measured."""

    goal: Goal
    measured: Interval
    verdict: Verdict

    @property
    def outcome(self) -> str:
        """The verdict in words; where it is open, with the interval that leaves it open."""
        if self.verdict is Verdict.NOT_RESOLVED:
            return f"{self.verdict} (interval {self.measured.low:.2f}-{self.measured.high:.2f})"
        return str(self.verdict)

    @property
    def beyond_slack(self) -> bool:
        """Whether it is a ratio of CPU that is missed even with the slack of --quick."""
        goal = self.goal
        return (
            goal.figure == "proxy_us" and verdict(self.measured, goal.limit * SLACK, at_least=False) is Verdict.MISSED
        )


def judge(all_series: Iterable[Series]) -> Iterator[Judged]:
    """Every goal that something was measured for, in the order of the table."""
    found = {(series.row, series.mode): series for series in all_series}
    for goal in GOALS:
        series = found.get((goal.row, goal.mode))
        measured = None if series is None else _measured(goal, series)
        if measured is not None:
            yield Judged(goal, measured, verdict(measured, goal.limit, at_least=goal.at_least))


def _measured(goal: Goal, series: Series) -> Interval | None:
    ours = series.values(OURS, goal.figure)
    if goal.against is None:
        return interval(ours) if ours else None
    theirs = series.values(goal.against, goal.figure)
    return ratio(ours, theirs) if ours and theirs else None
