"""What repeated measurements say: a median with its interval, and what follows from it for a goal.

Rule: single runs scatter by 20 % and more, so nothing is said of a median without its interval, and a verdict is only
given where the whole interval lies on one side. Pure; called by `goals`, `tables` and `page`.
"""

from __future__ import annotations

import random
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 2000
OUTSIDE = 0.025
"""The share of resampled medians that is cut off at each end: what is left is a 95 % interval."""


class Interval(NamedTuple):
    """A median, and where it lies with 95 % confidence."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} [{self.low:.2f}-{self.high:.2f}]"


class Verdict(StrEnum):
    """Of a goal."""

    MET = "met"
    MISSED = "missed"
    NOT_RESOLVED = "not resolved"


def interval(values: Sequence[float]) -> Interval:
    """The median with its bootstrap interval; of the same values always the same. One value has no width."""
    chooser = random.Random(len(values))
    medians = sorted(median(chooser.choices(values, k=len(values))) for _ in range(RESAMPLES))
    cut = int(RESAMPLES * OUTSIDE)
    return Interval(median(values), medians[cut], medians[-1 - cut])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Of ours to theirs, each to the one measured in the same round: a drift of the machine meets both."""
    return interval([one / other for one, other in zip(ours, theirs, strict=True)])


def verdict(measured: Interval, limit: float, *, at_least: bool) -> Verdict:
    """Whether what was measured keeps to a limit that it must not exceed, or with `at_least` has to reach."""
    worst, best = (measured.low, measured.high) if at_least else (measured.high, measured.low)
    sign = -1 if at_least else 1
    if sign * worst <= sign * limit:
        return Verdict.MET
    return Verdict.MISSED if sign * best > sign * limit else Verdict.NOT_RESOLVED


def standing(measured: Interval, *, more_is_better: bool) -> str:
    """`win` or `loss` against the one that ours is divided by, or `even` where the interval contains 1."""
    if measured.low <= 1 <= measured.high:
        return "even"
    return "win" if (measured.low > 1) == more_is_better else "loss"
