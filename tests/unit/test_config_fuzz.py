"""Any text at all gives a Topology or a ConfigError, and a topology that is written out reads back the same."""

from __future__ import annotations

import contextlib
import io
import re
import string
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from shoal import config
from shoal.errors import ConfigError
from shoal.topology import Topology, lay_out, ports_to_choose, warnings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

WORDS = re.findall(
    r"\S+",
    """
    cluster hosts shards redis sentinel auth pools proxy vip engine insecure fence_direct_clients address ssh user port
    jump sudo master replicas weight nodes quorum down_after failover_timeout parallel_syncs password_file password
    listen hash distribution hash_tag timeout hold bytes lease failover durability client_connections host admin stats
    workers max_inflight interface router_id owner reads busy_poll a b local << tls save
    """,
)
VALUES = [
    *("local", "local:7000", "a:1", "127.0.0.1:6379", "[::1]:1", "[", ":", "::", "0.0.0.0:1", "x" * 70, "", " ", "\n"),
    *("1500ms", "4s", "9" * 30 + "s", "64mb", "fnv1a_64", "ketama", "{}", "require", "fast", "900 1", '"', "'\\'"),
    *(0, 1, 2, 3, -1, 65536, 10**30, 1.5, float("inf"), float("nan"), True, False, None),
]

scalars = st.sampled_from(VALUES) | st.text(max_size=8) | st.integers() | st.floats()
keys = st.sampled_from(WORDS) | st.text(string.printable, max_size=6)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5))
topologies = st.dictionaries(st.sampled_from(WORDS[:12]) | keys, values, max_size=6)


def outcome(path: Path, text: bytes) -> Topology | ConfigError:
    path.write_bytes(text)
    try:
        found: Topology | ConfigError = config.load(path)
    except ConfigError as error:
        found = error
    if isinstance(found, ConfigError):
        assert all(single.what and single.where for single in found.each()), found
    return found


def as_yaml(data: Any) -> bytes:
    stream = io.BytesIO()
    YAML(typ="safe", pure=True).dump(data, stream)
    return stream.getvalue()


@settings(max_examples=50, deadline=None)
@given(text=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_topology_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    outcome(tmp_path_factory.getbasetemp() / "any.yaml", text)


@settings(max_examples=50, deadline=None)
@given(
    text=st.lists(st.sampled_from([*WORDS, *"{}[]:,-?&*!|>'\"%@`#\n\t ", "\n  ", ": ", "- ", "&a ", "*a "])).map(
        "".join
    )
)
def test_yaml_s_own_words_in_any_order(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    outcome(tmp_path_factory.getbasetemp() / "words.yaml", text.encode())


@settings(max_examples=50, deadline=None)
@given(data=topologies | values)
def test_any_values_at_any_keys(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    outcome(tmp_path_factory.getbasetemp() / "values.yaml", as_yaml(data))
    with contextlib.suppress(ConfigError):
        config.parse(data)


names = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=8)
durations = st.integers(1000, 9999).map(lambda ms: f"{ms}ms") | st.integers(1, 9).map(lambda s: f"{s}s")
pools = st.fixed_dictionaries(
    {},
    optional={
        "hash": st.sampled_from(["fnv1a_64", "md5", "crc32", "murmur"]),
        "distribution": st.sampled_from(["ketama", "modula", "random"]),
        "hash_tag": st.sampled_from(["{}", "$$", "ab"]),
        "hold": st.fixed_dictionaries({"timeout": durations, "bytes": st.integers(0, 1 << 40)}),
        "lease": st.sampled_from(["require", "unsafe", "none"]),
        "timeout": durations,
    },
)
sound = st.fixed_dictionaries(
    {"shards": st.dictionaries(names, st.none() | st.fixed_dictionaries({"replicas": st.integers(0, 3)}), min_size=1)},
    optional={
        "cluster": names.filter(lambda name: name not in ("admin", "stats")),
        "redis": st.dictionaries(
            st.sampled_from(["maxmemory", "appendonly", "hz", "save"]),
            st.booleans() | st.integers() | st.sampled_from(["", "1gb", '"a b" c', ["900 1", "60 10000"]]),
        ),
        "sentinel": st.fixed_dictionaries({"nodes": st.integers(1, 7), "down_after": durations}),
        "proxy": st.tuples(pools, st.integers(1, 3)).map(lambda both: {**both[0], "nodes": both[1]}),
    },
)


@settings(max_examples=50, deadline=None)
@given(data=sound)
def test_a_topology_written_out_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    topology = config.parse(data)
    path = tmp_path_factory.getbasetemp() / "sound.yaml"
    assert outcome(path, as_yaml(topology.model_dump(mode="json"))) == topology
    assert outcome(path, as_yaml(data)) == topology
    keys = ports_to_choose(topology)
    layout = lay_out(topology, {key: 10000 + number for number, key in enumerate(keys)})
    assert len(keys) == len(set(keys))
    assert len({node.name for node in layout.nodes()}) == len(layout.nodes())
    assert all(isinstance(sentence, str) for sentence in warnings(topology))
