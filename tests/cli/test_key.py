"""`shoal key`: which shard holds a key, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Servers

    Shoal = Callable[..., str]

FILE = Path("shoal.yaml")
ONE_MACHINE = "shards: {a: {}, b: {}}\nproxy: {hash_tag: '{}'}\n"
TWO_POOLS = "shards: {a: {}, b: {}}\npools: {one: {shards: [a]}, two: {shards: [b]}}\n"
PLACED = """\
shards: {a: {master: "local:1"}, b: {master: "local:2"}}
sentinel: {nodes: ["local:3"]}
proxy: {nodes: {p: {port: 4, admin: 5, stats: 6}}}
"""


@pytest.mark.parametrize(
    ("arguments", "transcript"),
    [
        (
            ["a"],
            snapshot("""\
exit 0
--- stdout
"a" is on shard a
  pool      shoal
  endpoint  not known yet (its port is chosen at the first `shoal up`)
  hashed    "a" (the whole key)
  hash      0x8601ec8c (fnv1a_64)
  point     0x86aab870 (ketama: the first on the ring at or after the hash)
"""),
        ),
        (
            ["user:{42}:name"],
            snapshot("""\
exit 0
--- stdout
"user:{42}:name" is on shard b
  pool      shoal
  endpoint  not known yet (its port is chosen at the first `shoal up`)
  hashed    "42" (what its hash tag encloses)
  hash      0xb4b19223 (fnv1a_64)
  point     0xb547d749 (ketama: the first on the ring at or after the hash)
"""),
        ),
        (
            ["{}x"],
            snapshot("""\
exit 0
--- stdout
"{}x" is on shard b
  pool      shoal
  endpoint  not known yet (its port is chosen at the first `shoal up`)
  hashed    "{}x" (the whole key)
  hash      0x83dccc07 (fnv1a_64)
  point     0x84614e8b (ketama: the first on the ring at or after the hash)
"""),
        ),
        (
            ["--hex", "c3a974c3a9"],
            snapshot("""\
exit 0
--- stdout
"été" is on shard a
  pool      shoal
  endpoint  not known yet (its port is chosen at the first `shoal up`)
  hashed    "été" (the whole key)
  hash      0xea769c57 (fnv1a_64)
  point     0xeba28816 (ketama: the first on the ring at or after the hash)
"""),
        ),
        (
            ["--hex", "ff 00 22"],
            snapshot("""\
exit 0
--- stdout
"\\xff\\x00\\"" is on shard a
  pool      shoal
  endpoint  not known yet (its port is chosen at the first `shoal up`)
  hashed    "\\xff\\x00\\"" (the whole key)
  hash      0x8f0897d8 (fnv1a_64)
  point     0x8f23b4a8 (ketama: the first on the ring at or after the hash)
"""),
        ),
        (
            [""],
            snapshot("""\
exit 0
--- stdout
"" is on shard a
  pool      shoal
  endpoint  not known yet (its port is chosen at the first `shoal up`)
  hashed    "" (the whole key)
  hash      0x00000000 (fnv1a_64)
  point     0x00392f41 (ketama: the first on the ring at or after the hash)
"""),
        ),
    ],
)
def test_before_the_first_up(arguments: list[str], transcript: str, shoal: Shoal) -> None:
    FILE.write_text(ONE_MACHINE)
    assert shoal("key", *arguments) == transcript


def test_while_nothing_is_up_the_file_s_master_is_named(shoal: Shoal) -> None:
    FILE.write_text(PLACED)
    assert shoal("key", "a") == snapshot("""\
exit 0
--- stdout
"a" is on shard a
  pool      shoal
  endpoint  127.0.0.1:1 (the master at the first start; no majority of sentinels answers)
  hashed    "a" (the whole key)
  hash      0x8601ec8c (fnv1a_64)
  point     0x86aab870 (ketama: the first on the ring at or after the hash)
""")


def test_chosen_ports_come_from_the_state_directory(shoal: Shoal) -> None:
    FILE.write_text(PLACED.replace("local:1", "local"))
    Path("elsewhere").mkdir()
    Path("elsewhere/ports.json").write_text('{"a-1": 7}')
    assert "endpoint  not known yet" in shoal("key", "a")
    assert "endpoint  127.0.0.1:7 (" in shoal("key", "a", "--state", "elsewhere")


@pytest.mark.parametrize(
    ("settings", "transcript"),
    [
        (
            "{hash: md5, distribution: modula}",
            snapshot("""\
exit 0
--- stdout
"a" is on shard a
  pool      shoal
  endpoint  not known yet (its port is chosen at the first `shoal up`)
  hashed    "a" (the whole key)
  hash      0xb975c10c (md5)
  slot      0 (modula: the hash modulo the sum of the weights)
"""),
        ),
        (
            "{hash: crc32a, distribution: random}",
            snapshot("""\
exit 0
--- stdout
"a" is on shard b
  pool      shoal
  endpoint  not known yet (its port is chosen at the first `shoal up`)
  hashed    "a" (the whole key)
  hash      0xe8b7be43 (crc32a)
  warning   the distribution is random: any shard may hold the key
"""),
        ),
    ],
)
def test_other_distributions(settings: str, transcript: str, shoal: Shoal) -> None:
    FILE.write_text(f"shards: {{a: {{}}, b: {{weight: 2}}}}\nproxy: {settings}\n")
    assert shoal("key", "a") == transcript


def test_json_has_every_pool(shoal: Shoal) -> None:
    FILE.write_text(TWO_POOLS)
    status, out = shoal("key", "--json", "hello").split("--- stdout\n")
    assert status == "exit 0\n"
    assert json.loads(out) == snapshot(
        {
            "key": "hello",
            "hex": "68656c6c6f",
            "pools": [
                {
                    "pool": "one",
                    "shard": "a",
                    "label": "a",
                    "endpoint": None,
                    "endpoint_from": "its port is chosen at the first `shoal up`",
                    "hashed": "hello",
                    "hash": "0x80aabd0b",
                    "hash_name": "fnv1a_64",
                    "distribution": "ketama",
                    "point": "0x8350659c",
                    "slot": None,
                },
                {
                    "pool": "two",
                    "shard": "b",
                    "label": "b",
                    "endpoint": None,
                    "endpoint_from": "its port is chosen at the first `shoal up`",
                    "hashed": "hello",
                    "hash": "0x80aabd0b",
                    "hash_name": "fnv1a_64",
                    "distribution": "ketama",
                    "point": "0x82d6240d",
                    "slot": None,
                },
            ],
        }
    )


def test_one_pool_may_be_picked(shoal: Shoal) -> None:
    FILE.write_text(TWO_POOLS)
    assert shoal("key", "--pool", "two", "hello").startswith('exit 0\n--- stdout\n"hello" is on shard b\n')


@pytest.mark.parametrize(
    ("arguments", "transcript"),
    [
        (
            ["--hex", "xyz"],
            snapshot("""\
exit 2
--- stderr
error: Invalid value for KEY: 'xyz' is not hexadecimal
  hint: see `shoal key --help`
"""),
        ),
        (
            ["--pool", "nobody", "x"],
            snapshot("""\
exit 2
--- stderr
error: Invalid value for --pool: there is no pool 'nobody', only shoal
  hint: see `shoal key --help`
"""),
        ),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], transcript: str, shoal: Shoal) -> None:
    FILE.write_text(ONE_MACHINE)
    assert shoal("key", *arguments) == transcript


def test_a_shard_is_called_by_its_name_whatever_the_ring_hashes(shoal: Shoal) -> None:
    FILE.write_text(PLACED.replace('{master: "local:1"}', '{master: "local:1", label: "server1"}'))
    assert shoal("key", "a") == snapshot("""\
exit 0
--- stdout
"a" is on shard a
  pool      shoal
  label     server1 (what the ring has for the shard)
  endpoint  127.0.0.1:1 (the master at the first start; no majority of sentinels answers)
  hashed    "a" (the whole key)
  hash      0x8601ec8c (fnv1a_64)
  point     0x898a2581 (ketama: the first on the ring at or after the hash)
""")


@pytest.mark.integration
def test_while_it_is_up_the_sentinels_name_the_master(servers: Servers, shoal: Shoal) -> None:
    stack = servers.stack(("a",), replicas=1)
    master, replica = stack.masters["a"], stack.replicas["a"][0]
    places = ", ".join(f'"local:{sentinel.port}"' for sentinel in stack.sentinels)
    FILE.write_text(  # the file still has the master of the first start, which is a replica now
        f'shards: {{a: {{master: "local:{replica.port}", replicas: ["local:{master.port}"]}}}}\n'
        f"sentinel: {{nodes: [{places}]}}\n"
        "proxy: {nodes: {p: {port: 1, admin: 2, stats: 3}}}\n"
    )
    assert f"endpoint  127.0.0.1:{master.port} (the master, say 3 of 3 sentinels)" in shoal("key", "a")
    for sentinel in stack.sentinels[:2]:
        sentinel.kill()
    assert f"endpoint  127.0.0.1:{replica.port} (the master at the first start;" in shoal("key", "a")
