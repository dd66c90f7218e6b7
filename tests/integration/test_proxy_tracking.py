"""Client-side caching over two real shards and two workers: nothing that has changed is kept, whoever changed it."""

from __future__ import annotations

import contextlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.cache import CacheConfig

from tests.cachers import Cacher, Writers
from tests.harness import wait_until
from tests.integration.wire import Wire, command
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from tests.harness import Servers

KEYS = [f"{number}:key".encode() for number in range(40)]
CHANNEL = b"__redis__:invalidate"
ENOUGH_CLIENTS = 8


@pytest.fixture(scope="module")
def pair(module_servers: Servers) -> PlaneHost:
    """Two shards, two workers."""
    shards = {name: module_servers.redis(name) for name in ("a", "b")}
    host = PlaneHost("pair", [], module_servers.directory / "pair", servers=shards, workers=2)
    return module_servers.adopt(host).start()


@pytest.fixture
def over_two(pair: PlaneHost) -> PlaneHost:
    with pair.client() as client:
        client.flushall()
    return pair


@pytest.mark.parametrize(
    ("options", "before"),
    [("", ""), ("BCAST", ""), ("BCAST PREFIX 1 PREFIX 2", ""), ("OPTIN", "CLIENT CACHING YES"), ("OPTOUT", "")],
)
def test_no_value_that_has_changed_is_kept(over_two: PlaneHost, options: str, before: str) -> None:
    kept = [key for key in KEYS if "PREFIX" not in options or key[:1] in b"12"]
    with contextlib.ExitStack() as stack:
        cachers = [stack.enter_context(Cacher(over_two.address, options, before_reads=before)) for _ in range(4)]
        clients = [stack.enter_context(over_two.client()) for _ in range(2)]
        clients += [stack.enter_context(over_two.client()) for _ in range(2)]
        draw = random.Random(5)
        with Writers(clients, KEYS), ThreadPoolExecutor(len(cachers)) as threads:
            until = time.monotonic() + 2

            def follow(cacher: Cacher) -> None:
                while time.monotonic() < until:
                    cacher.read(draw.sample(kept, 20))
                    cacher.listen(0.0005)

            list(threads.map(follow, cachers))
        for cacher in cachers:
            assert cacher.reads > 2 * len(kept), "read again and again"
            cacher.becomes_true(clients[0].get)
            cacher.read(kept)
            assert cacher.is_true(clients[0].get)
            assert set(cacher.cache) == set(kept), "what does not change is kept"
        with over_two.client() as writer:
            writer.mset(dict.fromkeys(KEYS, b"last"))
        for cacher in cachers:
            cacher.becomes_true(clients[0].get)
            assert not cacher.cache


def test_changes_that_no_client_of_the_proxy_made(over_two: PlaneHost) -> None:
    with Cacher(over_two.address) as cacher, over_two.client() as client:
        client.mset(dict.fromkeys(KEYS, b"1"))
        cacher.read(KEYS)
        assert len(cacher.cache) == len(KEYS)
        for server in over_two.servers.values():
            with server.client() as direct:
                direct.set("untold", 1)
                for key in KEYS[:10]:
                    if direct.exists(key):
                        direct.pexpire(key, 1)
        wait_until(lambda: cacher.has_heard(*KEYS[:10]), 10, "the expired ones")
        assert set(cacher.cache) == set(KEYS[10:])
        client.flushall()
        wait_until(lambda: cacher.has_heard(None), 5, "everything")
        assert not cacher.cache


def test_redis_py_caches_through_the_proxy(over_two: PlaneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for Redis 7.4, for no reason that a server of 7.0 shows, and HELLO says 7.0."""
    monkeypatch.setattr("redis.connection.CacheProxyConnection.MIN_ALLOWED_VERSION", "7.0.0")

    def gets() -> int:
        found: list[Any] = []
        for server in over_two.servers.values():
            with server.client() as direct:
                found.append(direct.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"])
        return sum(found)

    caching = redis.Redis(host="127.0.0.1", port=over_two.port, protocol=3, cache_config=CacheConfig())
    with caching, over_two.client() as writer:
        writer.mset(dict.fromkeys(KEYS, b"1"))
        assert [caching.get(key) for key in KEYS] == [b"1"] * len(KEYS)
        before = gets()
        assert [caching.get(key) for key in KEYS * 5] == [b"1"] * len(KEYS) * 5
        assert gets() == before, "answered from the cache"
        for round_ in range(2, 6):
            writer.mset(dict.fromkeys(KEYS, str(round_)))
            wait_until(lambda: [caching.get(key) for key in KEYS] == writer.mget(KEYS), 5, "the new values")


def speak_resp3(wire: Wire) -> None:
    wire.send(command("HELLO", "3") + command("ECHO", "end"))
    while wire.stream.readline() != b"end\r\n":
        pass


@pytest.mark.parametrize("protocol", [2, 3])
def test_another_client_is_told_whichever_worker_has_it(over_two: PlaneHost, protocol: int) -> None:
    """There are enough for each worker to have some."""
    others: list[Wire] = []
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(over_two.client())
        for key in KEYS[:ENOUGH_CLIENTS]:
            reader, other = (stack.enter_context(Wire(over_two.address)) for _ in range(2))
            number = other.call("CLIENT", "ID")
            if protocol == 3:
                speak_resp3(other)
            else:
                assert other.call("SUBSCRIBE", CHANNEL) == [b"subscribe", CHANNEL, 1]
            assert reader.call("CLIENT", "TRACKING", "ON", "REDIRECT", str(number)) == "OK"
            assert reader.call("CLIENT", "GETREDIR") == number
            reader.call("GET", key)
            writer.set(key, 1)
            if protocol == 3:
                told = [other.stream.readline().strip() for _ in range(6)]
                assert told == [b">2", b"$10", b"invalidate", b"*1", b"$%d" % len(key), key]
            else:
                assert other.reply() == [b"message", CHANNEL, [key]]
            others.append(other)
        writer.flushall()
        for other in others:
            for _ in over_two.servers:
                if protocol == 3:
                    told = [other.stream.readline().strip() for _ in range(4)]
                    assert told == [b">2", b"$10", b"invalidate", b"_"]
                else:
                    assert other.reply() == [b"message", CHANNEL, None]


def test_whose_messages_nobody_takes_any_more_is_told(over_two: PlaneHost) -> None:
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(over_two.client())
        for key in KEYS[:ENOUGH_CLIENTS]:
            reader = stack.enter_context(Wire(over_two.address))
            with Wire(over_two.address) as other:
                number = other.call("CLIENT", "ID")
                speak_resp3(reader)
                reader.send(command("CLIENT", "TRACKING", "ON", "REDIRECT", str(number)) + command("GET", key))
                assert reader.stream.readline() == b"+OK\r\n"
                assert reader.stream.readline() == b"_\r\n"
            gone_from(writer, number)
            writer.set(key, 1)
            told = [reader.stream.readline().strip() for _ in range(4)]
            assert told == [b">2", b"$21", b"tracking-redir-broken", b":%d" % number]
            assert "flags=tR " in listed(writer, None, f"redir={number}")[0]


def gone_from(client: redis.Redis, number: int) -> None:
    wait_until(lambda: not listed(client, number), 5, "a client to be gone")


def listed(client: redis.Redis, number: int | None, having: str = "") -> list[str]:
    """The lines of CLIENT LIST, of this client or of all, that have these words."""
    asked = ["ID", str(number)] if number is not None else []
    client.response_callbacks.pop("CLIENT LIST", None)
    lines: Any = client.execute_command("CLIENT LIST", *asked)
    return [line for line in lines.decode().splitlines() if having in line]


def test_what_cannot_be_is_refused(over_two: PlaneHost) -> None:
    with Wire(over_two.address) as wire:
        assert wire.call("CLIENT", "TRACKING", "ON", "NOLOOP") == (
            "ERR NOLOOP is not supported by Shoal: a server cannot tell whose write it was that came on a connection "
            "that clients share"
        )
        assert wire.call("CLIENT", "TRACKINGINFO")[1] == [b"off"]
        assert wire.call("CLIENT", "TRACKING", "ON", "BCAST") == "OK"
        number = wire.call("CLIENT", "ID")
        with over_two.client() as other:
            assert "flags=tB " in listed(other, number)[0]
            assert wire.call("RESET") == "RESET"
            assert "flags=N " in listed(other, number)[0]


def test_a_client_that_speaks_resp2_again_is_told_nothing(over_two: PlaneHost) -> None:
    with Wire(over_two.address) as wire, over_two.client() as writer:
        speak_resp3(wire)
        wire.send(command("CLIENT", "TRACKING", "ON", "BCAST") + command("HELLO", "2") + command("ECHO", "end"))
        while wire.stream.readline() != b"end\r\n":
            pass
        writer.set("k", 1)
        assert wire.call("GET", "k") == b"1"
        assert wire.call("CLIENT", "TRACKINGINFO")[1] == [b"on", b"bcast"]


def test_a_client_that_waits_for_entries_is_told_of_them(over_two: PlaneHost) -> None:
    with Cacher(over_two.address) as cacher, over_two.client() as writer:
        writer.xadd("x", {"f": 1}, id="1-1")
        found = cacher.ask(command("XREAD", "BLOCK", "5000", "STREAMS", "x", "0"), 1)
        assert found
        writer.xadd("x", {"f": 2}, id="2-1")
        wait_until(lambda: cacher.has_heard(b"x"), 5, "the change")
