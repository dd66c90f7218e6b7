"""The ring as Python sees it: many keys at once, and what another ring in its place moves."""

from __future__ import annotations

import random

import pytest

from shoal.plane import Ring, ShardSpec


def ring(names: str, hash_name: str = "fnv1a_64", distribution: str = "ketama", tag: str | None = None) -> Ring:
    return Ring([ShardSpec(name) for name in names], hash_name, distribution, tag)


def test_many_keys_have_the_owners_that_each_has_alone() -> None:
    chooser = random.Random(1)
    keys = [b"", b"{x}", b"{x}y", *(chooser.randbytes(chooser.randint(1, 30)) for _ in range(500))]
    for one in (ring("abc", tag="{}"), ring("abcd", "crc16", "modula"), ring("a", distribution="random")):
        assert one.owners(keys) == [one.locate(key).shard for key in keys]
    with pytest.raises(TypeError):
        ring("ab").owners(["text"])  # type: ignore[list-item]


@pytest.mark.parametrize(("hash_name", "space"), [("fnv1a_64", 1 << 32), ("crc32", 1 << 15)])
@pytest.mark.parametrize("old", ["ketama", "modula"])
@pytest.mark.parametrize("new", ["ketama", "modula"])
def test_every_hash_is_counted(old: str, new: str, hash_name: str, space: int) -> None:
    moves = ring("abc", hash_name, old).moves(ring("bcd", hash_name, new))
    assert moves is not None
    assert sum(moves.values()) == 1
    assert all(share > 0 and (share * space).is_integer() for share in moves.values())


def test_a_ring_in_its_own_place_moves_nothing_whatever_its_hash() -> None:
    for hash_name in ("md5", "crc16"):
        moves = ring("abc", hash_name).moves(ring("cab", hash_name))  # ketama: the order does not matter
        assert moves is not None
        assert set(moves) == {("a", "a"), ("b", "b"), ("c", "c")}


def test_what_cannot_be_counted() -> None:
    for old, new in [
        (ring("ab"), ring("ab", "md5")),
        (ring("ab"), ring("ab", tag="{}")),
        (ring("ab", "crc16"), ring("abc", "crc16")),
        (ring("ab"), ring("ab", distribution="random")),
        (ring("ab", distribution="random"), ring("ab", distribution="random")),
    ]:
        assert old.moves(new) is None


def test_one_shard_looks_at_no_hash_so_the_other_ring_s_counts() -> None:
    alone = ring("a", "md5", "random", "<>")
    assert alone.moves(ring("a", "crc16")) == {("a", "a"): 1}
    assert alone.moves(ring("b", "crc16")) == {("a", "b"): 1}
    split = ring("ab").shares()
    assert alone.moves(ring("ab")) == {("a", "a"): split["a"], ("a", "b"): split["b"]}
    assert ring("ab").moves(alone) == {("a", "a"): split["a"], ("b", "a"): split["b"]}
