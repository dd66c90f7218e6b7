"""Record which server the real nutcracker sends a key to: the vectors of the ring's tests.

Owns `ring_vectors.json`, which `crates/dataplane/tests/recorded_rings.rs` replays. Rule: what is recorded is only
what nutcracker did, seen at the servers; nothing is computed here but the labels that it sorts servers by.

Every server of a ring is a socket on a loopback address of its own (127.0.71.1, .2, ...) that answers any request with
its number, so an owner is read off the reply to a GET. One nutcracker serves one ring with a pool for each hash and
distribution. All servers share one port, because a server without alias has its port in its label: with the same
`--port`, the same nutcracker records the same file. Port 11211 is left out of a label, so one ring uses that.

    python3 -m tests.compat.record_ring --port 21379     # needs nutcracker (Debian: apt install nutcracker)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.compat.numbered import NumberedServers, Place, label_of, pool_text, rank, server_line
from tests.compat.rivals import NUTCRACKER, program, started
from tests.harness import LOOPBACK, free_port, free_ports, release_port
from tests.integration.wire import command, connected

if TYPE_CHECKING:
    from collections.abc import Sequence

VECTORS = Path(__file__).with_name("ring_vectors.json")
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
HASHES = (
    "one_at_a_time",
    "md5",
    "crc16",
    "crc32",
    "crc32a",
    "fnv1_64",
    "fnv1a_64",
    "fnv1_32",
    "fnv1a_32",
    "hsieh",
    "murmur",
    "jenkins",
)
DISTRIBUTIONS = ("ketama", "modula")


@dataclass(frozen=True)
class RingCase:
    """A ring to record: a weight for each server, and an alias for each or for none."""

    name: str
    weights: tuple[int, ...]
    aliases: tuple[str, ...] | None = None
    hash_tag: str | None = None
    hashes: tuple[str, ...] = HASHES
    port: int | None = None  # None: the recording's port


class Server(NamedTuple):
    line: str  # as nutcracker.yml has it
    label: str
    weight: int
    number: int  # which of the sockets


def numbered(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i + 1}" for i in range(count))


RINGS = (
    RingCase("one server", (1,)),
    RingCase("two, aliases", (1, 1), ("redis-sharding1", "redis-sharding2")),
    RingCase("three, no aliases", (1, 1, 1)),
    RingCase("three on memcached's port", (1, 1, 1), port=11211, hashes=("fnv1a_64",)),
    RingCase("four, aliases", (1, 1, 1, 1), numbered("server", 4)),
    RingCase("five, weights", (1, 2, 3, 4, 5), numbered("shard", 5)),
    RingCase("six, weights, no aliases", (7, 1, 1, 3, 100, 2)),
    RingCase("seven, aliases that sort by length first", (1,) * 7, ("zz", "a", "bbb", "b", "aa", "cccc", "c")),
    RingCase("nine, aliases", (1,) * 9, numbered("n", 9)),
    RingCase("nine, two of them nearly without weight", (1000, 1, 999, 1000, 3, 500, 20, 1000, 777)),
    RingCase("three, names of 200 bytes", (1, 1, 1), ("x" * 200, "y" * 200, "z" * 200), hashes=("fnv1a_64",)),
    RingCase("three, tag {}", (1, 1, 1), numbered("tagged", 3), hash_tag="{}"),
    RingCase("five, tag with equal markers", (1,) * 5, numbered("tagged", 5), hash_tag="$$"),
    RingCase("twenty-five, 156 points each", (1,) * 25, numbered("many", 25), hashes=("fnv1a_64", "md5")),
    RingCase("forty-seven, 156 points each", (1,) * 47, numbered("many", 47), hashes=("murmur",)),
)


def keys() -> list[bytes]:
    """Keys of every length up to 20, of bytes with and without the high bit, and with markers of hash tags."""
    known = [b"a", b"foo", b"hello", b"user:1000", b"key:000000000001", b"\xc3\xa9t\xc3\xa9", b"\xff"]
    text = [b"abcdefghijklmnopqrst"[:length] for length in range(1, 21)]
    high = [bytes((200 + 7 * i) % 128 + 128 for i in range(length)) for length in range(1, 21)]
    mixed = [bytes((i * 37 + length * 101) % 256 for i in range(length)) for length in range(1, 40, 2)]
    counted = [f"session:{i * i * 7919}".encode() for i in range(200)]
    tagged = b"{user}:1 {user}:2 a{user}b {}x x{ x}{y} {a{b}c} {}{z} {\xff}1 {user".split()
    dollars = b"$user$1 $user$2 $$x a$b a$b$c$ $$q$r".split()
    awkward = [b"", b"placeholder", b" ", b"\x00", b"\r\n", b"a\x00b", b"k" * 200, b"\x80" * 65]
    unique = dict.fromkeys(known + text + high + mixed + counted + tagged + dollars + awkward)
    return list(unique)


# --------------------------------------------------------------------------------------------------------- recording


def place_of(number: int, port: int) -> Place:
    return f"127.0.71.{number + 1}", port


def servers_of(case: RingCase, port: int) -> list[Server]:
    """The servers in nutcracker's order."""
    servers = []
    for number, weight in enumerate(case.weights):
        alias = case.aliases[number] if case.aliases else None
        place = place_of(number, case.port or port)
        servers.append(Server(server_line(place, weight, alias), label_of(place, alias), weight, number))
    return sorted(servers, key=lambda server: rank(server.label))


def owners(listen: Place, servers: Sequence[Server], wanted: Sequence[bytes]) -> str:
    """For each key a digit: the index, in nutcracker's order, of the server that got its GET."""
    index_of = {server.number: index for index, server in enumerate(servers)}
    found = []
    with connected(listen) as client, client.makefile("rb") as replies:
        for key in wanted:
            client.sendall(command(b"GET", key))
            header, number = replies.readline(), replies.readline()
            if not header.startswith(b"$"):
                message = f"nutcracker answered GET {key!r} with {header!r}"
                raise RuntimeError(message)
            found.append(DIGITS[index_of[int(number)]])
    return "".join(found)


def record(case: RingCase, port: int, wanted: Sequence[bytes]) -> dict[str, object]:
    servers = servers_of(case, port)
    pools = [(name, kind) for name in case.hashes for kind in DISTRIBUTIONS]
    listens = {of: (LOOPBACK, number) for of, number in zip(pools, free_ports(len(pools)), strict=True)}
    lines = [server.line for server in servers]
    config = "".join(
        pool_text(f"{kind}_{name}", f"{LOOPBACK}:{at[1]}", lines, settings(name, kind, case.hash_tag))
        for (name, kind), at in listens.items()
    )
    places = {server.number: place_of(server.number, case.port or port) for server in servers}
    everywhere = tuple(listens.values())
    with (
        tempfile.TemporaryDirectory() as directory,
        NumberedServers(places),
        started(NUTCRACKER, config, everywhere, Path(directory)),
    ):
        recorded = {
            kind: {name: owners(listens[name, kind], servers, wanted) for name in case.hashes} for kind in DISTRIBUTIONS
        }
    for _, number in everywhere:
        release_port(number)
    return {
        "name": case.name,
        "hash_tag": case.hash_tag,
        "servers": lines,
        "shards": [[server.label, server.weight] for server in servers],
        "owners": recorded,
    }


def settings(hash_name: str, distribution: str, hash_tag: str | None) -> dict[str, object]:
    return {"hash": hash_name, "distribution": distribution, "hash_tag": hash_tag and f'"{hash_tag}"'}


def main() -> int:
    parser = argparse.ArgumentParser(description="Record where the real nutcracker sends keys.")
    parser.add_argument("--port", type=int, default=0, help="port of the servers, part of their labels; 0: a free one")
    options = parser.parse_args()
    port = options.port or free_port()
    version = subprocess.run([*program(NUTCRACKER), "-V"], capture_output=True, text=True, check=False)
    wanted = keys()
    vectors = {
        "recorded_by": f"python3 -m tests.compat.record_ring --port {port}",
        "nutcracker": (version.stdout + version.stderr).strip(),
        "reading": "keys are in hexadecimal; owners has a digit for each key, in base 62, an index into shards",
        "keys": [key.hex() for key in wanted],
        "rings": [record(case, port, wanted) for case in RINGS],
    }
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n")
    sys.stdout.write(f"{VECTORS}: {len(RINGS)} rings, {len(wanted)} keys, {VECTORS.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
