"""Which kind of configuration a file is, and the rings of its pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shoal import pools
from shoal.errors import ConfigError
from shoal.moves import RingSpec
from shoal.plane import ShardSpec

if TYPE_CHECKING:
    from pathlib import Path

POOL = {"listen": "127.0.0.1:1", "servers": ["127.0.0.1:2:1"]}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"shards": {"a": ""}}, "shoal.yaml"),
        ({"sentinel": {"nodes": "3"}}, "shoal.yaml"),
        ({"shards": {"listen": "", "servers": ""}}, "shoal.yaml"),
        ({"pools": {"servers": {}}, "shards": {}}, "shoal.yaml"),
        ({"alpha": POOL}, "nutcracker.yml"),
        ({"redis": POOL, "proxy": POOL}, "nutcracker.yml"),
        ({"alpha": {"listen": "127.0.0.1:1"}}, "nutcracker.yml"),
        ({"alpha": {"redis": "true"}}, None),
        ({}, None),
        (["shards"], None),
        ("shards", None),
        (None, None),
    ],
)
def test_what_a_file_holds_says_what_it_is(data: Any, kind: str | None) -> None:
    assert pools.kind_of(data) == kind


def test_a_topology_has_its_shards_in_the_order_of_the_ring(tmp_path: Path) -> None:
    file = tmp_path / "any.name"
    file.write_text(
        "shards: {bb: {weight: 2}, c: {}, a: {}}\n"
        "pools: {one: {hash: md5, distribution: modula, hash_tag: '{}'}, two: {shards: [c]}}\n"
    )
    one, two = pools.load(file).values()
    assert one.spec == RingSpec("md5", "modula", "{}", (ShardSpec("a"), ShardSpec("c"), ShardSpec("bb", 2)))
    assert (two.name, two.spec.names(), two.database) == ("two", ("c",), 0)


def test_a_pool_of_nutcracker_has_its_labels_and_its_database(tmp_path: Path) -> None:
    file = tmp_path / "any.name"
    file.write_text(
        "alpha:\n  listen: 127.0.0.1:1\n  redis: true\n  redis_db: 3\n  hash: murmur\n  hash_tag: '<>'\n"
        "  servers:\n   - 127.0.0.1:6379:2 long-name\n   - 127.0.0.1:6380:1\n   - 127.0.0.1:11211:5\n"
    )
    (pool,) = pools.load(file).values()
    assert (pool.name, pool.database) == ("alpha", 3)
    shards = (ShardSpec("127.0.0.1", 5), ShardSpec("long-name", 2), ShardSpec("127.0.0.1:6380"))
    assert pool.spec == RingSpec("murmur", "ketama", "<>", shards)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("shards: {a: {replicsa: 1}}", 'unknown key "replicsa"'),
        ("alpha: {listen: '127.0.0.1:1', redis: true}", "pool 'alpha' has no servers"),
        ("- a list", "neither a shoal.yaml nor a nutcracker.yml"),
        ("", "neither a shoal.yaml nor a nutcracker.yml"),
        ("a: [", "not YAML"),
    ],
)
def test_a_broken_file_is_the_complaint_of_its_own_parser(text: str, error: str, tmp_path: Path) -> None:
    file = tmp_path / "any.name"
    file.write_text(text)
    with pytest.raises(ConfigError, match=error):
        pools.load(file)
    with pytest.raises(ConfigError, match="there is no configuration file"):
        pools.load(tmp_path / "nothing")
