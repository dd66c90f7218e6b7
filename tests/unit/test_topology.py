"""What a topology means: its short forms, its values, and the layout that follows from it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from shoal import config
from shoal.errors import ConfigError
from shoal.topology import (
    Endpoint,
    Layout,
    ProxyNode,
    RedisNode,
    Topology,
    lay_out,
    majority,
    ports_to_choose,
    warnings,
)
from shoal.topology.values import closest, shown, split_listen, split_port

FOUR_HOSTS: dict[str, Any] = {
    "cluster": "redis-cluster",
    "hosts": {"node5": "10.0.0.5", "node6": "10.0.0.6", "node7": "10.0.0.7", "node8": "10.0.0.8"},
    "shards": {
        "one": {"master": "node6", "replicas": ["node5"]},
        "two": {"master": "node7", "replicas": ["node8"]},
    },
    "sentinel": {"nodes": ["node5", "node6", "node7"]},
    "proxy": {"nodes": {"p1": {"host": "node6"}, "p2": {"host": "node7"}}},
    "insecure": True,
}


def topology(**changes: Any) -> Topology:
    return config.parse({"shards": {"a": {"replicas": 1}}, **changes})


def four_hosts(**changes: Any) -> Topology:
    return config.parse({**FOUR_HOSTS, **changes})


def laid_out(spec: Topology) -> Layout:
    return lay_out(spec, {key: 7000 + number for number, key in enumerate(ports_to_choose(spec))})


# --------------------------------------------------------------------------------------------------------- short forms


def test_everything_but_shards_has_a_default() -> None:
    spec = config.parse({"shards": {"a": None}})
    assert spec.cluster == "shoal"
    assert len(spec.shards["a"].replicas) == 1
    assert (len(spec.sentinel.nodes), spec.sentinel.quorum) == (3, 2)
    assert (spec.sentinel.down_after, spec.sentinel.failover_timeout) == (1500, 10_000)
    assert list(spec.proxy.nodes) == ["proxy1", "proxy2"]
    pool = spec.pools["shoal"]
    assert (pool.hash, pool.distribution, pool.hash_tag, pool.lease) == ("fnv1a_64", "ketama", None, "require")
    assert (pool.hold.timeout, pool.hold.bytes) == (4000, 64 * 1024 * 1024)


def test_an_empty_value_is_the_same_as_none() -> None:
    assert topology(hosts=None, redis=None, sentinel=None, proxy={"hold": None, "nodes": None}, vip=None) == topology()


def test_short_and_long_forms_have_one_meaning() -> None:
    long = topology(
        shards={"a": {"master": "local", "replicas": ["local"], "weight": 1}},
        sentinel={"nodes": ["local"] * 3, "quorum": 2},
        pools={"shoal": {"hash": "fnv1a_64"}},
        proxy={"nodes": {"proxy1": None, "proxy2": {"host": "local"}}},
    )
    assert long == topology()


def test_pool_settings_under_proxy_are_those_of_a_pool_named_after_the_cluster() -> None:
    spec = topology(cluster="cache", proxy={"hash": "md5", "hold": {"timeout": "2s"}})
    assert list(spec.pools) == ["cache"]
    assert (spec.pools["cache"].hash, spec.pools["cache"].hold.timeout) == ("md5", 2000)
    assert spec == topology(cluster="cache", pools={"cache": {"hash": "md5", "hold": {"timeout": "2s"}}})


def test_the_order_of_the_file_does_not_change_the_ring() -> None:
    one = topology(shards={"b": None, "aa": None, "a": None})
    other = topology(shards={"aa": None, "a": None, "b": None})
    assert one.ring_order("shoal") == other.ring_order("shoal") == ("a", "b", "aa")


def test_a_pool_may_have_some_of_the_shards() -> None:
    spec = topology(shards={"a": None, "b": None}, pools={"x": {"shards": ["b"]}, "y": {}})
    assert spec.ring_order("x") == ("b",)
    assert spec.ring_order("y") == ("a", "b")


@pytest.mark.parametrize(("count", "most"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_majority_is_the_default_quorum(count: int, most: int) -> None:
    assert majority(count) == most
    assert topology(sentinel={"nodes": count}).sentinel.quorum == most


# -------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("1500ms", 1500), ("4s", 4000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)]
)
def test_durations_are_milliseconds(text: str, milliseconds: int) -> None:
    assert topology(sentinel={"down_after": text}).sentinel.down_after == milliseconds


@pytest.mark.parametrize(
    ("size", "count"),
    [("64mb", 64 << 20), ("1k", 1000), ("1kb", 1024), ("1g", 10**9), ("7", 7), (7, 7), ("1GB", 1 << 30)],
)
def test_sizes_are_bytes_as_redis_counts_them(size: str | int, count: int) -> None:
    assert topology(proxy={"hold": {"bytes": size}}).pools["shoal"].hold.bytes == count


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("1gb", ("1gb",)),
        (True, ("yes",)),
        (False, ("no",)),
        (10, ("10",)),
        ("", ("",)),
        (["900 1", "60 9"], ("900 1", "60 9")),
    ],
)
def test_a_directive_is_what_stands_behind_its_name(value: Any, lines: tuple[str, ...]) -> None:
    assert topology(redis={"save": value}).redis["save"] == lines


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("node6:6379", ("node6", 6379)),
        ("node6", ("node6", None)),
        ("[::1]:6379", ("::1", 6379)),
        ("::1", ("::1", None)),
        ("10.0.0.1", ("10.0.0.1", None)),
    ],
)
def test_places_split_at_the_port(text: str, parts: tuple[str, int | None]) -> None:
    assert split_port(text) == parts


@pytest.mark.parametrize(
    "text", ["", ":1", "a:", "a:b", "a:0", "a:65536", "a:1234567", "[::1:2", "[::1]2", "a:+1", "a:\uff11"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_port(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("0.0.0.0:1", ("0.0.0.0", 1)), ("1", (None, 1)), (":1", (None, 1)), ("10.0.0.1", ("10.0.0.1", None))],
)
def test_a_listen_is_an_address_a_port_or_both(text: str, parts: tuple[str | None, int | None]) -> None:
    assert split_listen(text) == parts


def test_an_endpoint_reads_back_what_it_writes() -> None:
    for endpoint in (Endpoint("127.0.0.1", 6379), Endpoint("::1", 6379)):
        assert Endpoint.parse(str(endpoint)) == endpoint
    assert str(Endpoint("::1", 1)) == "[::1]:1"
    with pytest.raises(ValueError, match="has no port"):
        Endpoint.parse("127.0.0.1")


def test_a_message_shows_no_long_value_and_no_inside_of_a_container() -> None:
    assert shown("x" * 100) == '"' + "x" * 55 + '..."'
    assert (shown({"a": "secret"}), shown(["secret"]), shown(None), shown(True)) == (
        "a map",
        "a list",
        "nothing",
        "true",
    )


def test_the_closest_word_is_found_or_none() -> None:
    assert closest("replica", ["replicas", "master"]) == "replicas"
    assert closest("zzz", ["replicas", "master"]) is None


# -------------------------------------------------------------------------------------------------------------- layout


def test_on_one_machine_every_port_is_chosen() -> None:
    spec = topology()
    assert ports_to_choose(spec) == (
        "a-1",
        "a-2",
        "sentinel1",
        "sentinel2",
        "sentinel3",
        "proxy1.shoal",
        "proxy1.admin",
        "proxy1.stats",
        "proxy2.shoal",
        "proxy2.admin",
        "proxy2.stats",
    )
    layout = laid_out(spec)
    assert layout.redis == (
        RedisNode("a-1", "a", "local", Endpoint("127.0.0.1", 7000), bootstrap_master=True),
        RedisNode("a-2", "a", "local", Endpoint("127.0.0.1", 7001), bootstrap_master=False),
    )
    assert [str(node.endpoint) for node in layout.sentinels] == ["127.0.0.1:7002", "127.0.0.1:7003", "127.0.0.1:7004"]
    assert layout.proxy("proxy1") == ProxyNode(
        name="proxy1",
        host="local",
        address="127.0.0.1",
        listens={"shoal": Endpoint("127.0.0.1", 7005)},
        admin=Endpoint("127.0.0.1", 7006),
        stats=Endpoint("127.0.0.1", 7007),
    )


def test_a_port_that_was_not_chosen_is_named() -> None:
    with pytest.raises(ConfigError, match='no port has been chosen for "a-2"'):
        lay_out(topology(), {"a-1": 7000})


def test_on_other_hosts_ports_are_the_well_known_ones() -> None:
    spec = four_hosts()
    assert ports_to_choose(spec) == ()
    layout = lay_out(spec, {})
    assert [str(node.endpoint) for node in layout.redis] == [
        "10.0.0.6:6379",
        "10.0.0.5:6379",
        "10.0.0.7:6379",
        "10.0.0.8:6379",
    ]
    assert [str(node.endpoint) for node in layout.sentinels] == [f"10.0.0.{n}:26379" for n in (5, 6, 7)]
    proxy = layout.proxy("p2")
    assert str(proxy.listens["redis-cluster"]) == "10.0.0.7:22121"
    assert (str(proxy.admin), str(proxy.stats)) == ("127.0.0.1:22180", "127.0.0.1:22222")


def test_parts_that_share_a_host_get_the_next_port() -> None:
    spec = four_hosts(
        shards={"one": {"master": "node6", "replicas": ["node5", "node6"]}, "two": {"master": "node6:6380"}},
        proxy={"nodes": {"p1": {"host": "node6"}, "p2": {"host": "node6"}}},
    )
    layout = lay_out(spec, {})
    assert [node.endpoint.port for node in layout.redis] == [6379, 6379, 6381, 6380]
    assert [node.listens["redis-cluster"].port for node in layout.proxies] == [22121, 22122]
    assert [node.admin.port for node in layout.proxies] == [22180, 22181]


def test_several_loopback_addresses_are_several_hosts_on_the_usual_port() -> None:
    hosts = {f"n{number}": f"127.0.0.{number}" for number in (1, 2)}
    spec = topology(hosts=hosts, shards={"a": {"master": "n1:6379", "replicas": ["n2:6379"]}})
    assert [str(node.endpoint) for node in laid_out(spec).redis] == ["127.0.0.1:6379", "127.0.0.2:6379"]


def test_a_literal_address_is_a_host() -> None:
    spec = topology(shards={"a": {"master": "127.0.0.1:7001", "replicas": ["127.0.0.1"]}})
    layout = laid_out(spec)
    assert [node.host for node in layout.redis] == ["127.0.0.1", "127.0.0.1"]
    assert ports_to_choose(spec)[0] == "a-2"


def test_a_pool_listens_where_it_says() -> None:
    spec = four_hosts(pools={"x": {"listen": "0.0.0.0:1000"}, "y": {"listen": 2000}})
    proxy = lay_out(spec, {}).proxy("p1")
    assert {pool: str(endpoint) for pool, endpoint in proxy.listens.items()} == {
        "x": "0.0.0.0:1000",
        "y": "10.0.0.6:2000",
    }
    assert str(proxy.reach("x")) == "10.0.0.6:1000"
    assert str(proxy.reach("y")) == "10.0.0.6:2000"


def test_with_a_vip_proxies_listen_on_all_addresses() -> None:
    spec = four_hosts(vip={"address": "10.0.0.10", "interface": "eth0"})
    assert str(lay_out(spec, {}).proxy("p1").listens["redis-cluster"]) == "0.0.0.0:22121"


def test_a_layout_answers_by_shard_host_and_name() -> None:
    layout = lay_out(four_hosts(), {})
    assert [node.name for node in layout.shard_nodes("two")] == ["two-1", "two-2"]
    assert [node.name for node in layout.on_host("node6")] == ["one-1", "sentinel2", "p1"]
    with pytest.raises(KeyError):
        layout.proxy("nobody")


def test_a_topology_never_shows_its_password() -> None:
    spec = topology(auth={"password": "hunter2"})
    assert spec.auth.enabled
    assert "hunter2" not in repr(spec)
    assert "hunter2" not in str(spec.model_dump(mode="json"))


def test_every_setting_says_what_it_is() -> None:
    models, seen = [Topology], set()
    while models:
        model = models.pop()
        seen.add(model)
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            models += [inner for inner in _models(field.annotation) if inner not in seen]
    assert len(seen) > 8


def _models(annotation: Any) -> list[Any]:
    from typing import get_args

    from shoal.topology.model import Section

    found = [annotation] if isinstance(annotation, type) and issubclass(annotation, Section) else []
    return found + [model for argument in get_args(annotation) for model in _models(argument)]


# ------------------------------------------------------------------------------------------------------------ warnings


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sentinel": {"nodes": 1}}, "1 sentinel: none may be lost"),
        ({"sentinel": {"nodes": 2}}, "2 sentinels: none may be lost"),
        ({"sentinel": {"nodes": 4}}, "4 sentinels: no more may be lost than with 3"),
        ({"sentinel": {"down_after": "500ms"}}, "down_after 0.5 s: a slow command"),
        ({"sentinel": {"down_after": "1s"}}, "down_after 1 s: a sentinel that `shoal up` does not run"),
        ({"shards": {"a": {"replicas": 0}}}, 'shard "a" has no replica'),
        ({"fence_direct_clients": True}, "losing the replica stops its writes"),
        ({"proxy": {"nodes": 1}}, "1 proxy: while it is down"),
        ({"proxy": {"hold": {"timeout": "5s"}}}, "redis-py gives up after 5 s"),
        ({"proxy": {"hold": {"timeout": "2s"}}}, "a failover takes about 3 s"),
        ({"proxy": {"lease": "none"}}, "lease: none"),
        ({"proxy": {"distribution": "random"}}, "distributed at random"),
        ({"proxy": {"max_lag": "2s"}}, "has a max_lag, but reads: master"),
        ({"shards": {"a": None, "b": None}, "proxy": {"hash": "crc32"}}, "15 bits"),
    ],
)
def test_what_will_disappoint_is_said(changes: dict[str, Any], sentence: str) -> None:
    found = warnings(topology(**changes))
    assert len(found) == 1
    assert sentence in found[0]


def test_reads_from_replicas_that_are_not_there_are_a_warning_of_their_own() -> None:
    alone = topology(shards={"a": {"replicas": 0}}, proxy={"reads": "replica"})
    assert any("no shard of it has a replica: its masters answer everything" in line for line in warnings(alone))
    assert warnings(topology(proxy={"reads": "nearest", "max_lag": "200ms"})) == []


def test_reads_are_the_masters_and_may_miss_a_second_elsewhere_by_default() -> None:
    pool = topology().pools["shoal"]
    assert (pool.reads, pool.max_lag) == ("master", 1000)


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ({"max_lag": "99ms"}, "is too little"),
        ({"max_lag": "2h"}, "is too much"),
        ({"max_lag": 5}, "5 is not a duration"),
        ({"reads": "slave"}, '"slave"'),
    ],
)
def test_reads_that_cannot_be_are_an_error(setting: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(what)):
        topology(proxy={"reads": "replica", **setting})


def test_what_is_usual_gets_no_warning() -> None:
    assert warnings(topology()) == []
    assert warnings(topology(sentinel={"nodes": 5}, proxy={"hash": "crc32"})) == []


def test_several_hosts_have_warnings_of_their_own() -> None:
    spec = four_hosts(
        shards={"one": {"master": "node6", "replicas": ["node6"]}},
        sentinel={"nodes": ["node6", "node6", "node7"]},
        vip={"address": "10.0.0.10", "interface": "eth0"},
    )
    assert warnings(spec) == [
        'losing host "node6" loses the majority of the sentinels, and no failover happens',
        'shard "one" is on host "node6" alone, and lost with it',
        "one-1 listens outside loopback without a password (insecure: true)",
        "vip is checked but not used yet in this release",
    ]
