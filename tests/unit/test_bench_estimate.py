"""The arithmetic of verdicts: intervals on known data, and goals judged by intervals that are made up."""

from __future__ import annotations

import random

import pytest

from shoal.bench.estimate import Interval, Verdict, interval, ratio, standing, verdict


def test_an_interval_of_equal_values_has_no_width() -> None:
    assert interval([3.0] * 9) == Interval(3.0, 3.0, 3.0)


def test_the_interval_lies_around_the_median_and_within_the_values() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 100.0]
    found = interval(values)
    assert found.middle == 5.0
    assert 1.0 <= found.low < 5.0 < found.high < 100.0  # one outlier does not stretch it


def test_the_same_values_always_have_the_same_interval() -> None:
    values = [random.Random(7).gauss(1, 0.2) for _ in range(15)]
    assert interval(values) == interval(values)


def test_nineteen_of_twenty_intervals_contain_the_true_median() -> None:
    chooser = random.Random(11)
    found = [interval([chooser.gauss(10, 2) for _ in range(15)]) for _ in range(200)]
    share = sum(one.low <= 10 <= one.high for one in found) / len(found)
    assert 0.89 <= share <= 0.99


def test_more_rounds_make_it_narrower() -> None:
    chooser = random.Random(3)
    few, many = ([chooser.gauss(1, 0.2) for _ in range(count)] for count in (9, 300))
    assert interval(many).high - interval(many).low < interval(few).high - interval(few).low


def test_a_ratio_divides_round_by_round() -> None:
    """A machine that becomes ten times slower half way meets both, and the ratio stays."""
    theirs = [1.0] * 5 + [10.0] * 5
    assert ratio([value / 2 for value in theirs], theirs) == Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("measured", "at_most", "at_least"),
    [
        (Interval(0.8, 0.7, 0.89), Verdict.MET, Verdict.MISSED),
        (Interval(0.8, 0.7, 0.9), Verdict.MET, Verdict.NOT_RESOLVED),
        (Interval(0.9, 0.8, 1.0), Verdict.NOT_RESOLVED, Verdict.NOT_RESOLVED),
        (Interval(1.0, 0.9, 1.1), Verdict.NOT_RESOLVED, Verdict.MET),
        (Interval(1.0, 0.91, 1.1), Verdict.MISSED, Verdict.MET),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(
    measured: Interval, at_most: Verdict, at_least: Verdict
) -> None:
    assert verdict(measured, 0.9, at_least=False) is at_most
    assert verdict(measured, 0.9, at_least=True) is at_least


@pytest.mark.parametrize(
    ("measured", "less_is_better", "more_is_better"),
    [
        (Interval(0.9, 0.8, 0.99), "win", "loss"),
        (Interval(0.9, 0.8, 1.0), "even", "even"),
        (Interval(1.2, 1.01, 1.3), "loss", "win"),
    ],
)
def test_a_win_needs_the_whole_interval_beyond_one(
    measured: Interval, less_is_better: str, more_is_better: str
) -> None:
    assert standing(measured, more_is_better=False) == less_is_better
    assert standing(measured, more_is_better=True) == more_is_better
