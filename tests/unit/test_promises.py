"""The judge of a failover: each promise is broken by exactly what should break it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoal.promises import Evidence, Stall, gap, judge, lost
from shoal.traffic import Attempt, Outcome

KILL = 100.0


def write(shard: str, key: str, at: float, took: float = 0.001, outcome: Outcome = Outcome.OK) -> Attempt:
    return Attempt(shard, key, True, at - took, at, outcome, "" if outcome is Outcome.OK else str(outcome))


def read(shard: str, key: str, at: float, outcome: Outcome = Outcome.OK) -> Attempt:
    return Attempt(shard, key, False, at - 0.001, at, outcome)


GOOD = Evidence(
    shard="a",
    killed_at=KILL,
    attempts={
        "a": [
            write("a", "a1", 99.1),
            write("a", "a2", 99.9),
            write("a", "a3", 102.2, took=2.1),
            read("a", "a1", 102.3),
        ],
        "b": [write("b", "b1", 99.9), write("b", "b2", 100.5), write("b", "b3", 102.0)],
    },
    homes={key: frozenset(key[0]) for key in ("a1", "a2", "a3", "b1", "b2", "b3")},
)

LATE = [write("a", "a1", 99.1), write("a", "a3", 103.6, took=3.5)]


def broken(evidence: Evidence) -> list[str]:
    return [promise.text.split()[0] for promise in judge(evidence) if not promise.kept]


def with_attempt(attempt: Attempt) -> Evidence:
    return replace(GOOD, attempts={**GOOD.attempts, attempt.shard: [*GOOD.attempts[attempt.shard], attempt]})


def test_a_good_failover_keeps_every_promise() -> None:
    assert broken(GOOD) == []
    assert gap(GOOD) == pytest.approx((99.9, 2.3))


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (replace(GOOD, homes={**GOOD.homes, "a2": frozenset()}), []),
        (replace(GOOD, homes={**GOOD.homes, "a1": frozenset()}), ["Every"]),
        (with_attempt(write("a", "old", 98.5)), ["Every"]),
        (with_attempt(write("b", "other", 99.99)), ["Every"]),
        (with_attempt(write("a", "later", 103.0)), ["Every"]),
        (replace(GOOD, homes={**GOOD.homes, "b2": frozenset("ab")}), ["The"]),
        (with_attempt(write("a", "a3", 104.0, outcome=Outcome.REFUSED)), ["Clients"]),
        (with_attempt(write("a", "a3", 100.0, outcome=Outcome.IN_DOUBT)), []),
        (with_attempt(write("b", "b3", 101.0, outcome=Outcome.IN_DOUBT)), ["Other"]),
        (with_attempt(write("b", "b3", 101.0, took=0.06)), ["Other"]),
        (with_attempt(read("b", "b3", 101.0, outcome=Outcome.WRONG)), ["Other", "No"]),
        (replace(GOOD, attempts={**GOOD.attempts, "a": [write("a", "a1", 99.0)]}), ["Shard"]),
        (replace(GOOD, attempts={**GOOD.attempts, "a": LATE}), ["Shard"]),
    ],
    ids=[
        "unreplicated tail", "lost before one that survived", "old write lost",
        "write of the other shard lost", "write after the failover lost",
        "key on two shards", "refused", "in doubt", "in doubt elsewhere", "slow elsewhere", "wrong value",
        "never resumes", "resumes late",
    ],
)  # fmt: skip
def test_each_promise_is_broken_by_its_own_fault(evidence: Evidence, expected: list[str]) -> None:
    assert broken(evidence) == expected


def test_a_stall_of_the_machine_is_not_held_against_the_proxy() -> None:
    slow = with_attempt(write("b", "b3", 101.0, took=0.06))
    assert broken(replace(slow, stalls=[Stall(100.95, 100.99, 0.02)])) == []
    assert broken(replace(slow, stalls=[Stall(99.0, 99.9, 0.9)])) == ["Other"]


def test_what_is_lost_is_listed() -> None:
    evidence = replace(GOOD, homes={**GOOD.homes, "a2": frozenset()})
    assert [one.key for one in lost(evidence, "a")] == ["a2"]
    detail = judge(evidence)[0].detail
    assert "5 of 6" in detail
    assert detail.endswith("(the last 100 ms): a2")
