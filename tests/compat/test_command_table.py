"""The data plane's command table against what real servers say of their commands.

Owns the comparison of `shoal._native.command_table()` with `COMMAND` on each engine. Rule: the table knows every
command of every engine, and differs from a server only where this file names the command and says why.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from shoal import _native

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from tests.harness import Servers

# Redis 7.0 took exactly 3 arguments; the laxer arity of its successors stands in the table, the server judges.
LAXER_ARITY = {"zrank", "zrevrank"}
# No write flag, because what they run decides; the table takes the worst case.
MAY_WRITE = {"eval", "evalsha", "fcall", "xgroup"}
# No write flag, for they change no data; but what is told to a master that is no more reaches nobody, so they need a
# lease, wait for the next master, and are in doubt, as writes are. The channel of PUBLISH is no key to the server.
PUBLISHES = {"publish", "spublish"}
# Have a connection of the client's own.
SUBSCRIBE = {"subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe"}
# Administer servers, and are served where every shard can be asked: they read, or a pool must allow them.
ADMINISTER = {"acl", "commandlog", "config", "debug", "latency", "module", "role", "slowlog"}
# Subcommands whose arity changed between the engines: the laxer one stands in the table.
LAXER_SUBCOMMANDS = {"command|getkeys", "command|getkeysandflags", "script|debug"}
# Valkey flags them because they may not be nested.
NOT_INSIDE_A_TRANSACTION = {"multi", "watch"}
PLAIN: dict[str, Any] = {"decode_responses": True, "encoding_errors": "backslashreplace", "protocol": 2}
# For each write that may be repeated: what goes before it, and a request of it.
REPEATED_WRITES = {
    "hmset": ("SADD other x", "HMSET k f 1 g 2"),
    "lset": ("RPUSH k a b c", "LSET k -1 x"),
    "mset": ("SET k old", "MSET k 1 other 2"),
    "pfmerge": ("PFADD other a b", "PFMERGE k other"),
    "psetex": ("SET k old", "PSETEX k 100000 new"),
    "set": ("SET k old", "SET k new"),
    "setex": ("SET k old", "SETEX k 100 new"),
    "setrange": ("SET k hello", "SETRANGE k 7 there"),
    "sinterstore": ("SADD k a b", "SINTERSTORE k k k"),
    "sunionstore": ("SADD k a b", "SUNIONSTORE other k other"),
}


@dataclass(frozen=True)
class Row:
    """A row of the table, its enums as Rust prints them."""

    name: str
    arity: int
    keys: str
    access: str
    repeat: str
    route: str
    guarded: bool

    @property
    def refused(self) -> bool:
        return self.route.startswith("Unsupported")

    @property
    def key_range(self) -> tuple[int, ...] | None:
        """First, last, step, as `COMMAND` gives them; None for keys that the arguments decide."""
        if self.keys == "None":
            return (0, 0, 0)
        match = re.fullmatch(r"Range \{ first: (-?\d+), last: (-?\d+), step: (-?\d+) \}", self.keys)
        return tuple(int(number) for number in match.groups()) if match else None

    @property
    def subcommands_with_key(self) -> set[str]:
        assert self.keys.startswith("Subcommand(")
        return set(re.findall(r'"([^"]+)"', self.keys))


@dataclass(frozen=True)
class Told:
    """What a server says of a command."""

    arity: int
    flags: set[str]
    key_range: tuple[int, ...]
    subcommands: dict[str, tuple[int, ...]]


TABLE = {row[0]: Row(*row) for row in _native.command_table()}


@pytest.fixture
def client(servers: Servers) -> Iterator[redis.Redis]:
    with contextlib.closing(servers.redis().client(**PLAIN)) as connected:
        connected.response_callbacks.clear()
        yield connected


def told_by(client: redis.Redis) -> dict[str, Told]:
    replies: Any = client.execute_command("COMMAND")
    return {
        reply[0]: Told(reply[1], set(reply[2]), tuple(reply[3:6]), {sub[0]: tuple(sub[3:6]) for sub in reply[9]})
        for reply in replies
    }


def test_the_table_knows_every_command_of_every_engine(client: redis.Redis) -> None:
    assert told_by(client).keys() - TABLE.keys() == set()


def test_arities_are_the_servers(client: redis.Redis) -> None:
    different = {name for name, told in told_by(client).items() if TABLE[name].arity != told.arity}
    assert different <= LAXER_ARITY
    assert all(TABLE[name].arity == -3 for name in different)


def test_what_a_server_calls_a_write_is_one(client: redis.Redis) -> None:
    told = told_by(client)
    writes = {name for name in told if TABLE[name].access == "Write"}
    assert writes - {name for name in told if "write" in told[name].flags} == (MAY_WRITE | PUBLISHES) & told.keys()
    assert {name for name in told if "write" in told[name].flags} <= writes


def test_keys_are_where_the_server_has_them(client: redis.Redis) -> None:
    for name, told in told_by(client).items():
        row = TABLE[name]
        if row.keys.startswith("Subcommand"):
            with_key = {sub for sub, keys in told.subcommands.items() if keys == (2, 2, 1)}
            assert row.subcommands_with_key == with_key, name
        elif row.keys == "Channel":
            assert (name, told.key_range) == ("publish", (0, 0, 0))
        elif row.key_range is None:
            assert "movablekeys" in told.flags, name
        else:
            assert row.key_range == told.key_range, name
            assert row.refused or "movablekeys" not in told.flags, name


def test_subcommands_have_keys_only_where_the_table_looks_for_them(client: redis.Redis) -> None:
    for name, told in told_by(client).items():
        if not TABLE[name].keys.startswith("Subcommand"):
            with_key = {sub for sub, keys in told.subcommands.items() if keys != (0, 0, 0)}
            assert not with_key or TABLE[name].refused, (name, with_key)


def test_what_waits_has_a_connection_of_its_own(client: redis.Redis) -> None:
    for name, told in told_by(client).items():
        assert not TABLE[name].route.startswith("Blocking") or "blocking" in told.flags, name
        assert "blocking" not in told.flags or TABLE[name].route.startswith(("Blocking", "Wait")), name


def test_what_administers_a_server_is_refused(client: redis.Redis) -> None:
    for name, told in told_by(client).items():
        if told.flags & {"pubsub", "admin", "no_multi", "no-multi"}:
            served = ADMINISTER | NOT_INSIDE_A_TRANSACTION | PUBLISHES | SUBSCRIBE | {"pubsub"}
            assert TABLE[name].refused or name in served, (name, told.flags)


def test_a_family_has_a_row_for_each_subcommand_of_its_server(client: redis.Redis) -> None:
    replies: Any = client.execute_command("COMMAND")
    for sub in (sub for reply in replies if TABLE[reply[0]].route == "Family" for sub in reply[9]):
        name, arity, flags = sub[:3]
        assert TABLE[name].arity == arity or name in LAXER_SUBCOMMANDS, name
        assert TABLE[name].access == "Write" or "write" not in flags, name


def test_what_only_an_allowance_serves_is_what_administers(client: redis.Redis) -> None:
    told = told_by(client)
    guarded = {row.name.split("|")[0] for row in TABLE.values() if row.guarded}
    assert all("admin" in told[name].flags or told[name].subcommands for name in guarded)


def test_a_write_that_may_be_repeated_leaves_the_same_data_and_says_the_same(client: redis.Redis) -> None:
    repeated = {row.name for row in TABLE.values() if row.access == "Write" and row.repeat != "Unsafe"}
    assert repeated == REPEATED_WRITES.keys()
    for before, request in REPEATED_WRITES.values():
        client.execute_command("FLUSHALL")
        client.execute_command(*before.split())
        first = client.execute_command(*request.split()), contents(client)
        second = client.execute_command(*request.split()), contents(client)
        assert first == second, request


def contents(client: redis.Redis) -> dict[str, Any]:
    """Every key with its value, whatever its type."""
    readers = {"string": "GET {}", "hash": "HGETALL {}", "list": "LRANGE {} 0 -1", "set": "SORT {} ALPHA"}
    keys: Any = client.execute_command("KEYS", "*")
    kinds: dict[str, Any] = {key: client.execute_command("TYPE", key) for key in keys}
    return {key: client.execute_command(*readers[kind].format(key).split()) for key, kind in kinds.items()}
