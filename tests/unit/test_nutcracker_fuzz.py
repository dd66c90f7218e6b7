"""Any text at all gives a valid NutcrackerFile or a ConfigError, and any arguments give Flags or a ConfigError."""

from __future__ import annotations

import io
import re
import string
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from shoal.errors import ConfigError
from shoal.nutcracker import NutcrackerFile, Pool, parse
from shoal.nutcracker.flags import FLAGS, Flags, parse_flags
from shoal.nutcracker.keys import DISTRIBUTIONS, HASHES, KEYS
from shoal.nutcracker.model import rank

VALID = """\
main:
  listen: 127.0.0.1:22121
  hash: fnv1a_64
  hash_tag: "{}"
  distribution: ketama
  timeout: 400
  redis: true
  redis_auth: 'a b'
  server_connections: 1
  servers: # the shards
   - 10.0.0.5:6379:1 shard1
   - /run/redis.sock:2
  sentinels:
   - 10.0.0.5:26379
other:
  listen: /run/other.sock 0777
  redis: true
  servers:
  - "[::1]:11211:1"
"""
VALUES: list[Any] = [
    *("127.0.0.1:1", "/run/a", "/run/a 0777", "a:1:1", "a:1:1 b", "[::1]:1:1 c", "true", "false", "0", "1", "-1", "{}"),
    *("9" * 5000, "²", "٣", "\u2028", "\x85", "\ud800", "\x00", ":", "::", ": ", " :1:1", "/", "/:1", "[", "[]:1", "~"),
    *(None, True, 1, 10**30, 1.5, [], {}, ["a:1:1", "a:1:1"]),
]
PIECES = [*KEYS, *(str(value) for value in VALUES[:12]), *"{}[]:,-?&*!|>'\"%@`#\n\t ", "\n  ", "\n   - ", ": ", "&a "]

scalars = st.sampled_from(VALUES) | st.text(max_size=8) | st.integers()
keys = st.sampled_from([*KEYS]) | st.text(string.printable, max_size=6)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5))
pools = st.dictionaries(keys, values, max_size=8)


def outcome(text: str) -> NutcrackerFile | None:
    """The file, which is then valid; None after a ConfigError that can be printed."""
    try:
        found = parse(text)
    except ConfigError as error:
        for single in error.each():
            assert single.what
            assert single.where
        str(error).encode()
        return None
    assert list(found.pools) == sorted(found.pools, key=lambda pool: rank(pool.name))
    assert found.pools
    for pool in found.pools:
        check(pool)
    return found


def check(pool: Pool) -> None:
    labels = [server.label for server in pool.servers]
    assert labels == sorted(set(labels), key=rank)
    assert all(labels)
    assert all(server.weight >= 1 for server in pool.servers)
    assert pool.hash in HASHES
    assert pool.distribution in DISTRIBUTIONS
    assert pool.server_connections >= 1
    assert pool.hash_tag is None or len(pool.hash_tag.encode()) == 2
    repr(pool).encode()


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_is_a_file_or_a_config_error(text: str) -> None:
    outcome(text)


@settings(max_examples=100, deadline=None)
@given(data=st.dictionaries(keys, pools | values, max_size=4) | values)
def test_any_values_at_any_keys(data: Any) -> None:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(data, stream)
    outcome(stream.getvalue())


@settings(max_examples=200, deadline=None)
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(VALID)), st.integers(0, 12), st.sampled_from(PIECES) | st.text(max_size=3) | st.just("")
        ),
        max_size=4,
    )
)
def test_a_valid_file_after_some_slips_of_the_pen(edits: list[tuple[int, int, str]]) -> None:
    text = VALID
    for at, removed, put in edits:
        text = text[:at] + put + text[at + removed :]
    assert outcome(text) or edits


@settings(max_examples=100, deadline=None)
@given(
    values=st.fixed_dictionaries(
        {key: st.sampled_from(VALUES[:12]) | st.text(max_size=4) for key in KEYS if not KEYS[key].kind.listed}
    ),
    servers=st.lists(st.sampled_from(VALUES[:12]) | st.text("a:1 /[].", max_size=9), max_size=4),
)
def test_every_key_with_a_value_of_any_kind(values: dict[str, str], servers: list[str]) -> None:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump({"main": {**values, "servers": servers, "sentinels": servers}}, stream)
    outcome(stream.getvalue())


numbers = st.integers(0, 2**31 - 1).map(str)
databases = st.integers(0, 65535).map(str)
names = st.text(string.ascii_lowercase, min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(
    given_names=st.lists(names, min_size=1, max_size=5, unique=True),
    numbers=st.fixed_dictionaries({}, optional={"timeout": numbers, "redis_db": databases, "backlog": numbers}),
    weights=st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=5),
)
def test_a_sound_file_is_read_as_it_stands(given_names: list[str], numbers: dict[str, str], weights: list[int]) -> None:
    lines = []
    for port, name in enumerate(given_names, start=1):
        lines += [f"{name}:", f"  listen: 127.0.0.1:{port}", "  redis: true", "  servers:"]
        lines += [f"  - 10.0.0.{index}:6379:{weight}" for index, weight in enumerate(weights)]
        lines += [f"  {key}: {value}" for key, value in numbers.items()]
    found = outcome("\n".join(lines))
    assert found is not None
    assert {pool.name for pool in found.pools} == set(given_names)
    for pool in found.pools:
        assert {server.weight for server in pool.servers} == set(weights)
        assert pool.timeout_ms == int(numbers.get("timeout", "0"))


def flags_of(argv: list[str]) -> Flags | ConfigError:
    try:
        return parse_flags(argv)
    except ConfigError as error:
        return error


arguments = st.sampled_from([f"--{name}" for name in FLAGS]) | st.sampled_from(
    [f"-{flag.short}" for flag in FLAGS.values()]
)


@settings(max_examples=100, deadline=None)
@given(argv=st.lists(arguments | st.text(max_size=6) | st.text("-=hVtdDvocsaipm0123456789", max_size=6), max_size=5))
def test_any_arguments_are_flags_or_a_config_error(argv: list[str]) -> None:
    flags = flags_of(argv)
    if isinstance(flags, ConfigError):
        assert re.match(r"option -|invalid option -- '|mbuf chunk size", flags.what)
        return
    assert 1 <= flags.stats_port <= 65535
    assert 0 <= flags.verbose <= 11
