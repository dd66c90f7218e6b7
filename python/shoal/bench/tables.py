"""What was measured, as rows of words for a terminal or a page, and as one document for programs.

Rule: a table of a row shows throughput, the CPU of all parties and the sleeps together, since each alone misleads.
Pure; called by `shoal bench` and by `page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING

from shoal.bench.estimate import interval, ratio, standing
from shoal.bench.figures import FIGURES
from shoal.bench.goals import OURS, REFERENCE

if TYPE_CHECKING:
    from shoal.bench.figures import Series
    from shoal.bench.goals import Judged
    from shoal.bench.run import Results

Table = Sequence[Sequence[str]]
NOTHING = "-"


def goal_table(judged: Sequence[Judged]) -> Table:
    """Goal, measured, verdict."""
    heads = ["row", "", "figure", "goal", "measured", "verdict"]
    lines = [
        [one.goal.row, one.goal.mode, FIGURES[one.goal.figure].title, str(one.goal), str(one.measured), one.outcome]
        for one in judged
    ]
    return [heads, *lines]


def series_table(series: Series) -> Table:
    """The median of each figure for each subject, and ours to the reference's."""
    subjects = list(series.samples)
    beside = REFERENCE in subjects
    heads = ["", *subjects, *([f"{OURS} / {REFERENCE}", ""] if beside else [])]
    lines = []
    for name, figure in FIGURES.items():
        cells = [_cell(_values(series, subject, name)) for subject in subjects]
        if all(cell == NOTHING for cell in cells):
            continue
        lines.append([f"{figure.title}, {figure.unit}", *cells, *(_comparison(series, name) if beside else [])])
    return [heads, *lines]


def document(results: Results, judged: Sequence[Judged], titles: Mapping[str, str]) -> Mapping[str, object]:
    """Everything, down to the single samples."""
    return {
        "machine": results.machine,
        "versions": results.versions,
        "workers": results.workers,
        "goals": [
            {
                "row": one.goal.row,
                "mode": one.goal.mode,
                "figure": one.goal.figure,
                "goal": str(one.goal),
                "floor": one.goal.floor,
                "measured": one.measured._asdict(),
                "verdict": one.verdict,
            }
            for one in judged
        ],
        "rows": [{"title": titles[series.row], **asdict(series)} for series in results.series],
    }


def _values(series: Series, subject: str, figure: str) -> list[float]:
    """Round by round, or what was counted once."""
    counted = series.counted.get(subject, {})
    return series.values(subject, figure) or ([counted[figure]] if figure in counted else [])


def _cell(values: Sequence[float]) -> str:
    return number(median(values)) if values else NOTHING


def _comparison(series: Series, figure: str) -> list[str]:
    ours, theirs = (_values(series, subject, figure) for subject in (OURS, REFERENCE))
    if not ours or not theirs:
        return [NOTHING, ""]
    if min(theirs) <= 0:  # memory that did not grow, a proxy that did not run: no ratio says anything
        return [NOTHING, ""]
    measured = ratio(ours, theirs)
    if len(ours) == 1:
        return [f"{measured.middle:.2f}", ""]
    return [str(measured), standing(measured, more_is_better=FIGURES[figure].more_is_better)]


def number(value: float) -> str:
    """Three digits of it, and no fewer than stand before the point."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def spread(series: Series, subject: str, figure: str) -> str:
    """A median with its interval, in words for a tooltip."""
    values = series.values(subject, figure)
    found = interval(values)
    return f"{number(found.middle)} [{number(found.low)}-{number(found.high)}] of {len(values)}"
