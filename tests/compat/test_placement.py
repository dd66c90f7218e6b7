"""Random configurations, each served by the real nutcracker and then by Shoal: no key may lie on another server.

Both read the very same file. Its servers are NumberedServers on loopback addresses that nobody else has, so a GET is
answered with the place of its key; the parts of MGET, MSET, DEL, UNLINK and TOUCH must land where the single keys do.
In some pools a server is dead and `auto_eject_hosts` is on: compared is the ring that is left.

A failure names its seed: `pytest --randomly-seed=SEED` draws the same configurations.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.compat.numbered import NumberedServers, Place, pool_text, server_line
from tests.compat.record_ring import DISTRIBUTIONS, HASHES
from tests.compat.rivals import NUTCRACKER, SHOAL, Rival, started
from tests.harness import free_ports, release_port
from tests.integration.wire import command, connected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCHES = 8
POOLS = 30  # in a batch, and so in one process
KEYS = 500
SPLIT_KEYS = 120
MOST_ROUNDS = 8
RINGS = [(name, kind) for kind in DISTRIBUTIONS for name in HASHES]
SIZES = (1, 25, *(2, 3, 5, 6, 7, 9) * 4, *(4, 8) * 2)
TAGS = ("{}", "$$", "<>", "ab", "é", "}{")
ALIAS_SIGNS = "abzAZ019-_.é€ß:/@#"
MEMCACHED_PORT = 11211
UNIX_SERVERS = 6


@dataclass(frozen=True)
class Addresses:
    """Where the servers of a batch are, by their number, and where nobody listens."""

    live: dict[int, Place]
    dead: tuple[Place, ...]


@dataclass
class RandomPool:
    """One configuration, and the keys that are looked for."""

    name: str
    text: str
    listen: Place
    keys: list[bytes]
    settings: dict[str, Any]
    dead: int
    aliases: list[str | None]


@dataclass
class Placement:
    """Where one program sent the keys of a pool; None: it answered an error."""

    single: list[int | None]
    parts: dict[str, list[int | None]] = field(default_factory=dict)


# --------------------------------------------------------------------------------------------------- what is compared


def addresses(chooser: random.Random, directory: Path) -> Addresses:
    """A loopback network and a port that follow from the seed; each host has the port, and nutcracker's default one."""
    network, port = f"127.{chooser.randint(1, 254)}.{chooser.randint(0, 255)}", chooser.randint(12000, 31999)
    tcp: list[Place] = [(f"{network}.{host}", each) for host in range(1, 26) for each in (port, MEMCACHED_PORT)]
    unix: list[Place] = [str(directory / f"server{number}") for number in range(UNIX_SERVERS)]
    dead: list[Place] = [(f"{network}.{host}", port) for host in range(200, 203)]
    return Addresses(dict(enumerate([*tcp, *unix])), (*dead, str(directory / "nobody")))


def random_alias(chooser: random.Random) -> str:
    signs = chooser.choices(ALIAS_SIGNS, k=chooser.choice((1, 1, 2, 3, 5, 8, 13, 40)))
    return chooser.choice("abcXYZ019é") + "".join(signs).rstrip(":")


def random_aliases(chooser: random.Random, count: int) -> list[str | None]:
    """For all servers, for some or for none."""
    share = chooser.choice((0, 0.5, 1, 1))
    names: dict[str, None] = {}
    while len(names) < count:
        names[random_alias(chooser)] = None
    return [name if chooser.random() < share else None for name in names]


def plain_key(chooser: random.Random) -> bytes:
    match chooser.randrange(5):
        case 0:
            return chooser.randbytes(chooser.randint(0, 24))
        case 1:
            return bytes(chooser.randint(128, 255) for _ in range(chooser.randint(1, 24)))
        case 2:
            return f"user:{chooser.randint(0, 10**9)}:{chooser.choice(('name', 'größe', '名前', 'ключ'))}".encode()
        case 3:
            return b"%020d" % chooser.randint(0, 10**12)
        case _:
            return chooser.randbytes(chooser.choice((63, 64, 65, 200)))


def random_key(chooser: random.Random, tag: str | None) -> bytes:
    key = plain_key(chooser)
    if tag is None or chooser.random() < 0.4:
        return key
    first, last = tag.encode()[:1], tag.encode()[1:2]
    inside = chooser.choice((b"", b"x", b"user:7", chooser.randbytes(3)))
    forms = (first + inside + last + key, key + first + inside + last, key + first + inside, first + first + key + last)
    return chooser.choice(forms)


def random_pool(chooser: random.Random, number: int, listen: Place, places: Addresses) -> RandomPool:
    hash_name, distribution = RINGS[number % len(RINGS)]
    size = SIZES[number % len(SIZES)]
    dead = chooser.choice((0, 0, 0, 1, 1, 2)) if 3 <= size <= 9 else 0
    if (hash_name, distribution) == ("crc32", "ketama"):  # where one server has nearly all keys
        dead = min(dead, 1)
    chosen: list[Place] = [places.live[at] for at in chooser.sample(sorted(places.live), size - dead)]
    chosen += chooser.sample(places.dead, dead)
    chooser.shuffle(chosen)
    aliases = random_aliases(chooser, size)
    weights = chooser.choice(([1], [1, 2, 3, 4, 5], [1, 100, 1000], [7]))
    tag = chooser.choice((None, None, *TAGS))
    settings = {
        "hash": hash_name,
        "distribution": distribution,
        "hash_tag": tag and f'"{tag}"',
        "auto_eject_hosts": "true" if dead else None,
        "server_failure_limit": chooser.choice((1, 2, 3)) if dead else None,
        "server_retry_timeout": 600_000 if dead else None,
    }
    lines = [
        # A dead server has so many keys that both programs come to know that it is.
        server_line(place, max(weights) if place in places.dead else chooser.choice(weights), alias)
        for place, alias in zip(chosen, aliases, strict=True)
    ]
    keys: dict[bytes, None] = dict.fromkeys((b"", b"placeholder"))
    while len(keys) < KEYS:
        keys[random_key(chooser, tag)] = None
    where = listen if isinstance(listen, str) else f"{listen[0]}:{listen[1]}"
    text = pool_text(f"pool{number}", where, lines, settings)
    return RandomPool(f"pool{number}", text, listen, list(keys), settings, dead, aliases)


# ------------------------------------------------------------------------------------------------------------ looking


def replies(rival: Rival, listen: Place, requests: Sequence[bytes]) -> Iterator[Any]:
    """The replies to pipelined requests: a number, a list of numbers, or None for an error."""
    with connected(listen, 20.0) as client, client.makefile("rb") as stream:
        client.sendall(b"".join(requests))

        def reply() -> Any:
            line = stream.readline()
            assert line.endswith(b"\r\n"), f"{rival.name} closed the connection:\n{rival.log_tail()}"
            match line[:1]:
                case b"$":
                    return int(stream.readline())
                case b"*":
                    return [reply() for _ in range(int(line[1:]))]
                case _:
                    return None

        for _ in requests:
            yield reply()


def place_keys(rival: Rival, pool: RandomPool, servers: NumberedServers) -> Placement:
    """Ask until the dead servers are ejected and no key is answered with an error, then for the parts."""
    for _ in range(MOST_ROUNDS):
        placement = Placement(list(replies(rival, pool.listen, [command(b"GET", key) for key in pool.keys])))
        if None not in placement.single:
            break
    chunks = list(chunks_of(pool.keys[:SPLIT_KEYS]))
    mget = [command(b"MGET", *chunk) for chunk in chunks]
    placement.parts["MGET"] = [number for part in replies(rival, pool.listen, mget) for number in part or [None]]
    for name in (b"MSET", b"DEL", b"UNLINK", b"TOUCH"):
        servers.landed.clear()
        values = (b"v",) if name == b"MSET" else ()
        asked = [command(name, *(word for key in chunk for word in (key, *values))) for chunk in chunks]
        list(replies(rival, pool.listen, asked))
        landed = [servers.landed.get((name, key), []) for chunk in chunks for key in chunk]
        placement.parts[name.decode()] = [at[0] if len(at) == 1 else None for at in landed]
    return placement


def chunks_of(keys: list[bytes]) -> Iterator[list[bytes]]:
    """Pieces of 2, 3, 4, ... keys."""
    at, length = 0, 2
    while at + length <= len(keys):
        yield keys[at : at + length]
        at, length = at + length, length + 1


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose sockets have paths that fit."""
    path = Path(tempfile.mkdtemp(prefix="shoal-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    """The one that pytest-randomly prints."""
    given = pytestconfig.getoption("randomly_seed", default=None)
    return given if isinstance(given, int) else random.getrandbits(32)


def listens_of(count: int, directory: Path) -> list[Place]:
    """Every third one a unix socket."""
    ports: list[Place] = [("127.0.0.1", port) for port in free_ports(count - count // 3)]
    return [*ports, *(str(directory / f"pool{number}") for number in range(count // 3))]


def drawn(seed: int, batch: int, directory: Path, listens: Sequence[Place]) -> tuple[Addresses, list[RandomPool]]:
    chooser = random.Random(f"{seed} {batch}")
    places = addresses(chooser, directory)
    first = batch * len(listens)
    return places, [random_pool(chooser, first + at, listen, places) for at, listen in enumerate(listens)]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_key_lies_elsewhere(seed: int, batch: int, tmp_path: Path, short: Path) -> None:
    listens = listens_of(POOLS, short)
    places, pools = drawn(seed, batch, short, listens)
    config = "".join(pool.text for pool in pools)
    found: dict[str, list[Placement]] = {}
    with NumberedServers(places.live) as servers:
        for name in (NUTCRACKER, SHOAL):
            with started(name, config, tuple(listens), tmp_path) as rival:
                found[name] = [place_keys(rival, pool, servers) for pool in pools]
    for listen in listens:
        if isinstance(listen, tuple):
            release_port(listen[1])
    for pool, theirs, ours in zip(pools, found[NUTCRACKER], found[SHOAL], strict=True):
        where = f"seed {seed}, batch {batch}, in this pool:\n{pool.text}"
        assert None not in theirs.single, f"nutcracker answered errors: {where}"
        moved = [key for key, a, b in zip(pool.keys, theirs.single, ours.single, strict=True) if a != b]
        assert moved == [], f"{len(moved)} of {KEYS} keys lie elsewhere: {where}"
        for name, numbers in ours.parts.items():
            assert numbers == ours.single[: len(numbers)], f"{name} went elsewhere than GET: {where}"
            assert theirs.parts[name] == numbers, f"{name} went elsewhere than nutcracker's: {where}"


def test_the_configurations_are_of_every_kind(seed: int, short: Path) -> None:
    """Else the test above would not say what it seems to say."""
    listens: list[Place] = [str(short / f"pool{number}") for number in range(POOLS)]
    pools = [pool for batch in range(BATCHES) for pool in drawn(seed, batch, short, listens)[1]]
    assert len(pools) >= 200
    assert {len(pool.keys) for pool in pools} == {KEYS}
    assert {(pool.settings["hash"], pool.settings["distribution"]) for pool in pools} == set(RINGS)
    assert {len(pool.aliases) for pool in pools} == set(SIZES)
    named = [sum(alias is not None for alias in pool.aliases) / len(pool.aliases) for pool in pools]
    assert {0, 1} < set(named), "aliases for none, for all and for some"
    assert sum(pool.dead > 0 for pool in pools) >= 20
    assert sum(pool.settings["hash_tag"] is not None for pool in pools) >= 50
    assert all(any(sign in pool.text for pool in pools) for sign in (":11211:", "- /", ":1000", "é"))


def test_random_reaches_every_server_that_is_not_ejected(tmp_path: Path, short: Path, seed: int) -> None:
    chooser = random.Random(seed)
    places = addresses(chooser, short)
    settings = {"distribution": "random", "auto_eject_hosts": "true", "server_failure_limit": 1}
    lines = [server_line(places.live[number], weight) for number, weight in ((0, 1), (1, 100), (2, 1), (3, 1))]
    listens: list[Place] = [str(short / "pool")]
    config = pool_text("pool", str(listens[0]), [*lines, server_line(places.dead[0])], settings)
    keys = [b"key:%d" % number for number in range(KEYS)]
    with NumberedServers(places.live):
        for name in (NUTCRACKER, SHOAL):
            with started(name, config, tuple(listens), tmp_path) as rival:
                list(replies(rival, listens[0], [command(b"GET", key) for key in keys[:100]]))
                found = list(replies(rival, listens[0], [command(b"GET", key) for key in keys]))
            shares = {number: found.count(number) / KEYS for number in set(found)}
            assert shares.keys() == {0, 1, 2, 3}, f"{name}: {shares}"
            assert all(0.1 < share < 0.4 for share in shares.values()), f"{name} weighs its draws: {shares}"
