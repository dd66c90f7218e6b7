"""A shard's label is what rings hash; everything else calls the shard by its name, which is Sentinel's."""

from __future__ import annotations

from typing import Any

import pytest

from shoal import config
from shoal.ask import ProxySays
from shoal.cli.ring import ring_of
from shoal.errors import StateError
from shoal.opening import require_fit, rings
from shoal.plane import Ring, ShardSpec
from shoal.render import sentinel_conf
from shoal.serving import Followed, of_layout
from shoal.state import Identity
from shoal.topology import Endpoint, Layout, lay_out, ports_to_choose

LABELLED: dict[str, Any] = {"one": {"label": "10.0.0.6:6379"}, "two": {"label": "10.0.0.17:6379"}, "three": {}}


def laid_out(shards: dict[str, Any]) -> Layout:
    topology = config.parse({"shards": shards, "proxy": {"nodes": 1, "distribution": "modula"}})
    return lay_out(topology, {key: 7000 + number for number, key in enumerate(ports_to_choose(topology))})


def test_a_ring_is_in_the_order_of_the_labels() -> None:
    topology = laid_out(LABELLED).topology
    assert topology.ring_order("shoal") == ("three", "one", "two")
    assert topology.labels("shoal") == {"three": "three", "10.0.0.6:6379": "one", "10.0.0.17:6379": "two"}


def test_the_ring_hashes_the_labels() -> None:
    labelled = ring_of(laid_out(LABELLED).topology, "shoal")
    plain = Ring([ShardSpec(one) for one in ("three", "10.0.0.6:6379", "10.0.0.17:6379")], "fnv1a_64", "modula", None)
    keys = [f"key:{number}".encode() for number in range(1000)]
    assert [labelled.locate(key) for key in keys] == [plain.locate(key) for key in keys]


def test_the_workers_get_labels_and_the_sentinels_are_asked_for_names() -> None:
    layout = laid_out(LABELLED)
    (pool,) = of_layout(layout, layout.proxies[0]).pools
    assert pool.labels == ("three", "10.0.0.6:6379", "10.0.0.17:6379")
    assert isinstance(pool.source, Followed)
    assert pool.source.masters == {"three": "three", "10.0.0.6:6379": "one", "10.0.0.17:6379": "two"}
    assert "sentinel monitor one 10.9.9.9 1 2" in sentinel_conf(
        layout.sentinels[0], layout, {"one": Endpoint("10.9.9.9", 1)}
    )


def test_a_shard_may_get_another_name_as_long_as_its_label_stays() -> None:
    kept = Identity(cluster="shoal", rings=rings(laid_out(LABELLED).topology))
    require_fit(kept, laid_out({"uno": LABELLED["one"], "two": LABELLED["two"], "drei": {"label": "three"}}))
    with pytest.raises(StateError, match='pool "shoal" had another ring'):
        require_fit(kept, laid_out(dict.fromkeys(LABELLED)))


def test_what_a_proxy_says_is_read_by_the_master_s_name() -> None:
    shards = {"10.0.0.6:6379": {"master": "one", "endpoint": "x"}, "two": {"endpoint": "y"}}
    says = ProxySays(healthy=True, ready=True, topology={"pools": {"p": {"shards": shards}}})
    assert [name for name, _ in says.routes()] == ["one", "two"]
