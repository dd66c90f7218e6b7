"""The page with everything that was measured: tables, and a plot for each row, in one file that needs nothing else.

A plot shows each subject's samples as dots and their median as a bar, so that scatter is seen and not hidden in a
number. Pure; called by `shoal bench`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from shoal.bench.figures import FIGURES
from shoal.bench.goals import GOALS
from shoal.bench.tables import goal_table, number, series_table, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.bench.figures import Series
    from shoal.bench.goals import Judged
    from shoal.bench.run import Results

WIDTH, LABEL, ROW_HEIGHT = 460, 90, 22
PLOTTED = ("proxy_us", "requests_per_second", "p99_ms")
"""Of a load; of a scenario those figures that a goal is about."""


def page(results: Results, judged: Sequence[Judged], titles: Mapping[str, str]) -> str:
    """The whole page as HTML."""
    environment = Environment(loader=PackageLoader("shoal.bench"), autoescape=True, undefined=StrictUndefined)
    rows = [
        {
            "title": f"{titles[series.row]}, {series.mode}",
            "name": series.row,
            "plots": [_plot(series, figure) for figure in _plotted(series)],
            "table": series_table(series),
        }
        for series in results.series
    ]
    return environment.get_template("page.html").render(
        machine={**results.machine, **results.versions}, goals=goal_table(judged), rows=rows
    )


def _plotted(series: Series) -> list[str]:
    measured = {figure for samples in series.samples.values() for sample in samples for figure in sample}
    wanted = (*PLOTTED, *(goal.figure for goal in GOALS if goal.row == series.row))
    return [figure for figure in dict.fromkeys(wanted) if figure in measured]


def _plot(series: Series, figure: str) -> Mapping[str, object]:
    """Where everything of one plot stands, in pixels."""
    found = {name: values for name in series.samples if (values := series.values(name, figure))}
    most = max(max(values) for values in found.values()) or 1.0
    scale = (WIDTH - LABEL - 10) / most
    lines = [
        {
            "name": name,
            "y": place * ROW_HEIGHT,
            "bar": max(0.0, scale * sorted(values)[len(values) // 2]),
            "dots": [LABEL + max(0.0, scale * value) for value in values],
            "words": spread(series, name, figure),
        }
        for place, (name, values) in enumerate(found.items())
    ]
    title = f"{FIGURES[figure].title}, {FIGURES[figure].unit}"
    size = {"width": WIDTH, "height": len(lines) * ROW_HEIGHT, "label": LABEL}
    return {"title": title, "lines": lines, "most": number(most), **size}
