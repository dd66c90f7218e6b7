"""Goals: every one is about a row and a figure that exist, and is judged by what was measured of both sides."""

from __future__ import annotations

import pytest

from shoal.bench.figures import FIGURES, Mode, Series
from shoal.bench.goals import GOALS, SLACK, Goal, judge
from shoal.bench.rows import all_rows
from shoal.bench.tables import goal_table, series_table


def series(row: str, mode: Mode, **figures: list[list[float]]) -> Series:
    """Series of a row in which `figure=[ours, nutcracker's]`."""
    ours, theirs = (
        [dict(zip(figures, values, strict=True)) for values in zip(*sides, strict=True)] for sides in _sides(figures)
    )
    return Series(row, mode, {"shoal": ours, "nutcracker": theirs})


def _sides(figures: dict[str, list[list[float]]]) -> tuple[list[list[float]], list[list[float]]]:
    return [pair[0] for pair in figures.values()], [pair[1] for pair in figures.values()]


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.row}-{goal.mode}-{goal.figure}")
def test_every_goal_is_about_a_row_that_is_measured_in_that_mode(goal: Goal) -> None:
    assert goal.mode in all_rows(1.0)[goal.row].modes
    assert goal.figure in FIGURES


def test_a_goal_is_judged_by_the_ratio_to_the_other_side_of_the_same_rounds() -> None:
    found = list(judge([series("get-p16", Mode.PINNED, proxy_us=[[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])]))
    (one,) = found
    assert one.measured == (0.5, 0.5, 0.5)
    assert one.outcome == "met"


def test_an_open_verdict_shows_its_interval() -> None:
    ours = [0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.5, 0.7]
    (one,) = judge([series("get-p16", Mode.PINNED, proxy_us=[ours, [1.0] * 9])])
    assert one.outcome.startswith("not resolved (interval 0.5")


def test_an_absolute_goal_needs_no_other_side() -> None:
    measured = Series("burst", Mode.UNPINNED, {"shoal": [{"peak_mb": 33.0, "later_mb": 2.0}] * 3})
    assert [one.outcome for one in judge([measured])] == ["missed", "met"]


def test_nothing_is_judged_where_one_side_is_missing() -> None:
    assert not list(judge([Series("get", Mode.PINNED, {"shoal": [{"proxy_us": 10.0}]})]))


def test_quick_gates_on_cpu_only_and_with_slack() -> None:
    limit = next(goal.limit for goal in GOALS if (goal.row, goal.mode) == ("mget-10", Mode.PINNED))
    (within,) = judge([series("mget-10", Mode.PINNED, proxy_us=[[limit * SLACK] * 3, [1.0] * 3])])
    (beyond,) = judge([series("mget-10", Mode.PINNED, proxy_us=[[limit * SLACK * 1.01] * 3, [1.0] * 3])])
    assert within.verdict == beyond.verdict == "missed"
    assert (within.beyond_slack, beyond.beyond_slack) == (False, True)
    slow = judge([series("get-p16", Mode.UNPINNED, requests_per_second=[[1.0] * 3, [9.0] * 3])])
    assert [(one.verdict, one.beyond_slack) for one in slow] == [("missed", False)]


def test_the_table_of_a_row_shows_medians_the_ratio_and_who_wins() -> None:
    table = series_table(series("get", Mode.PINNED, proxy_us=[[9.0, 10.0, 11.0], [20.0, 20.0, 20.0]]))
    assert table == [
        ["", "shoal", "nutcracker", "shoal / nutcracker", ""],
        ["CPU of the proxy, us/request", "10.0", "20.0", "0.50 [0.45-0.55]", "win"],
    ]


def test_memory_that_did_not_grow_has_no_ratio() -> None:
    table = series_table(series("burst", Mode.UNPINNED, later_mb=[[1.0], [0.0]]))
    assert table[1][-2:] == ["-", ""]


def test_the_table_of_goals_says_goal_measured_and_verdict() -> None:
    judged = list(judge([series("get-p100", Mode.UNPINNED, requests_per_second=[[40.0] * 3, [20.0] * 3])]))
    assert goal_table(judged)[1] == [
        "get-p100",
        "unpinned",
        "throughput",
        ">= 1.8 of nutcracker's",
        "2.00 [2.00-2.00]",
        "met",
    ]
