"""What a change of a pool moves: exact where every hash can be counted, else an estimate that says so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.moves import SAMPLE, Comparison, Moves, RingSpec, compare, owners, percent
from shoal.plane import ShardSpec

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def spec(
    names: str, hash_name: str = "fnv1a_64", distribution: str = "ketama", tag: str | None = None, weight: int = 1
) -> RingSpec:
    return RingSpec(hash_name, distribution, tag, tuple(ShardSpec(name, weight) for name in names))


def keys_of(comparison: Comparison) -> Moves:
    assert comparison.keys is not None
    return comparison.keys


# --------------------------------------------------------------------------------------------------------------- exact


@pytest.mark.parametrize("distribution", ["ketama", "modula"])
@pytest.mark.parametrize("hash_name", ["fnv1a_64", "crc32", "crc16"])
def test_the_same_ring_moves_exactly_nothing(distribution: str, hash_name: str) -> None:
    one = spec("abc", hash_name, distribution)
    comparison = compare(one, one)
    assert (comparison.nothing, comparison.why, keys_of(comparison).exact) == (True, None, True)
    assert keys_of(comparison).moved == 0


def test_what_takes_over_from_a_shard_of_the_same_weight_takes_all_of_its_keys_only_with_modula() -> None:
    moves = keys_of(compare(spec("ab", distribution="modula"), spec("ac", distribution="modula")))
    assert moves.flows == {("a", "a"): 0.5, ("b", "c"): 0.5}
    assert moves.moved == 0.5
    ketama = keys_of(compare(spec("ab"), spec("ac")))
    assert ("a", "c") in ketama.flows


def test_weights_that_are_all_doubled_move_nothing_on_ketama_and_much_on_modula() -> None:
    assert compare(spec("abc"), spec("abc", weight=2)).nothing
    assert not compare(spec("abc", distribution="modula"), spec("abc", distribution="modula", weight=2)).nothing


def test_by_shard_everything_adds_up() -> None:
    rows = {row.shard: row for row in keys_of(compare(spec("abc"), spec("bcd"))).by_shard()}
    assert list(rows) == ["a", "b", "c", "d"]
    assert (rows["a"].after, rows["d"].before) == (None, None)
    assert sum(row.before or 0 for row in rows.values()) == sum(row.after or 0 for row in rows.values()) == 1
    assert sum(row.lost for row in rows.values()) == sum(row.gained for row in rows.values())
    for row in rows.values():
        assert (row.before or 0) - row.lost == row.stays == (row.after or 0) - row.gained


def test_one_shard_has_every_key_whatever_its_hash_and_tag() -> None:
    alone = spec("a", "md5", "random", "<>")
    assert compare(alone, spec("a", "crc16")).nothing
    assert keys_of(compare(alone, spec("b", "crc16"))).everything
    assert keys_of(compare(alone, spec("ab"))).exact


# ----------------------------------------------------------------------------------------------------------- estimated


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (spec("ab"), spec("ab", "md5"), "the hash changes from fnv1a_64 to md5"),
        (spec("ab", "crc16"), spec("abc", "crc16"), "crc16 does not give all hashes equally often"),
    ],
)
def test_an_estimate_says_why_and_of_how_many_keys(old: RingSpec, new: RingSpec, why: str) -> None:
    comparison = compare(old, new)
    moves = keys_of(comparison)
    assert (comparison.why, moves.sample, moves.exact, comparison.tagged) == (why, SAMPLE, False, None)
    assert not comparison.nothing
    assert moves == keys_of(compare(old, new)), "the sample is the same each time"
    assert sum(moves.flows.values()) == pytest.approx(1)


def test_an_estimate_is_near_the_exact_share(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = keys_of(compare(spec("abcd"), spec("abcde")))
    monkeypatch.setattr("shoal.plane.Ring.moves", lambda *_: None)
    estimated = keys_of(compare(spec("abcd"), spec("abcde")))
    assert not estimated.exact
    assert estimated.moved == pytest.approx(exact.moved, abs=0.003)


def test_rings_without_a_shard_in_common_move_everything_however_they_hash() -> None:
    moves = keys_of(compare(spec("ab"), spec("cd", "md5")))
    assert moves.everything
    assert not moves.exact
    assert compare(spec("ab"), spec("cd", tag="{}")).tagged is None


def test_another_tag_is_about_keys_that_have_one() -> None:
    comparison = compare(spec("abc"), spec("abc", tag="{}"))
    assert keys_of(comparison).nothing, "keys without a tag are hashed as before"
    assert comparison.tagged is not None
    assert 0.6 < comparison.tagged.moved < 0.7, "the others have nothing to do with where they were"
    assert comparison.why == "the hash tag changes from none to {}"
    assert not comparison.nothing


def test_another_tag_and_another_shard_are_told_apart() -> None:
    comparison = compare(spec("abc", tag="<>"), spec("abcd", tag="{}"))
    assert keys_of(comparison).exact
    assert keys_of(comparison) == keys_of(compare(spec("abc"), spec("abcd")))
    assert comparison.tagged is not None
    assert not comparison.tagged.exact


def test_another_hash_and_another_tag_are_both_named() -> None:
    comparison = compare(spec("abc", tag="<>"), spec("abc", "md5", tag="{}"))
    assert comparison.why == "the hash changes from fnv1a_64 to md5, and the hash tag changes from <> to {}"
    assert not keys_of(comparison).exact


def test_of_random_nobody_can_say() -> None:
    comparison = compare(spec("ab"), spec("ab", distribution="random"))
    assert comparison == Comparison(None, why="the distribution is random, so any shard may have any key")
    assert not comparison.nothing


# ------------------------------------------------------------------------------------------------------- any two rings


def specs() -> SearchStrategy[RingSpec]:
    shards = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), min_size=1, max_size=6)
    return st.builds(
        RingSpec,
        st.sampled_from(["fnv1a_64", "murmur", "crc32"]),
        st.sampled_from(["ketama", "modula"]),
        st.sampled_from([None, "{}", "<>"]),
        shards.map(lambda weights: tuple(ShardSpec(*pair) for pair in sorted(weights.items()))),
    )


@given(old=specs(), new=specs(), keys=st.lists(st.binary(max_size=20), max_size=30))
def test_real_keys_go_where_an_exact_answer_lets_them(old: RingSpec, new: RingSpec, keys: list[bytes]) -> None:
    new = replace(new, hash=old.hash, hash_tag=old.hash_tag)
    moves = keys_of(compare(old, new))
    assert moves.exact
    assert sum(moves.flows.values()) == 1
    assert set(owners(old, new, keys)) <= moves.flows.keys() | {
        (old.ring().locate(b"").shard, new.ring().locate(b"").shard)
    }


# ------------------------------------------------------------------------------------------------------------- as text


@pytest.mark.parametrize(
    ("share", "exact", "text"),
    [
        (0, True, "0"),
        (0, False, "<0.01 %"),
        (2**-32, True, "<0.01 %"),
        (0.0001, True, "0.01 %"),
        (0.0042, True, "0.42 %"),
        (0.01, True, "1.0 %"),
        (0.3321, True, "33.2 %"),
        (0.9896, False, "99.0 %"),
        (0.9996, True, "99.96 %"),
        (0.99989, True, "99.99 %"),
        (1 - 2**-32, True, ">99.99 %"),
        (1, False, ">99.99 %"),
        (1, True, "100 %"),
    ],
)
def test_a_share_is_never_rounded_to_nothing_or_all(share: float, exact: bool, text: str) -> None:
    assert percent(share, exact=exact) == text
