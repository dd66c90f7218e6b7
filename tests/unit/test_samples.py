"""How many keys are read of each server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.samples import parts


def test_each_server_gives_its_part() -> None:
    assert parts([10, 30], 1000) == [10, 30]
    assert parts([1000, 3000], 100) == [25, 75]
    assert parts([0, 3000], 100) == [0, 100]
    assert parts([1, 1, 1], 2) == [0, 1, 1]
    assert parts([], 100) == []


@given(st.lists(st.integers(0, 10**9), max_size=20), st.integers(1, 10**6))
def test_it_is_what_was_asked_for_or_all_there_is(sizes: list[int], most: int) -> None:
    read = parts(sizes, most)
    assert len(read) == len(sizes)
    assert sum(read) == min(most, sum(sizes))
    assert all(part <= size for part, size in zip(read, sizes, strict=True))
