"""Requests that wait, through the proxy: what a server says to the same bytes, and nothing popped for nobody."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.harness import LOOPBACK, wait_until
from tests.integration.wire import Wire, command, talk

if TYPE_CHECKING:
    from tests.harness import RedisServer
    from tests.plane_host import PlaneHost

# Conversations whose answers are the server's own, byte by byte; `{t}` keeps the keys on one shard.
SCRIPTS = {
    "something is there": "RPUSH {t}l a b c d|BLPOP {t}l 1|BRPOP {t}l 0|BLMOVE {t}l {t}m LEFT RIGHT 1"
    "|BRPOPLPUSH {t}l {t}m 1|LRANGE {t}m 0 -1|BLMPOP 0 2 {t}x {t}m LEFT COUNT 2",
    "sorted sets": "ZADD {t}z 1 a 2 b 3 c 4 d|BZPOPMIN {t}x {t}z 1|BZPOPMAX {t}z 0|BZMPOP 1 1 {t}z MIN COUNT 5",
    "nothing comes": "BLPOP {t}l {t}k 0.01|BRPOP {t}l 0.01|BLMOVE {t}l {t}m LEFT LEFT 0.01|BRPOPLPUSH {t}l {t}m 0.01"
    "|BLMPOP 0.01 1 {t}l LEFT|BZPOPMIN {t}z 0.01|BZPOPMAX {t}z 0.01|BZMPOP 0.01 1 {t}z MIN",
    "streams": "XADD {t}s 1-1 f v|XREAD BLOCK 10 STREAMS {t}s 0|XREAD COUNT 1 BLOCK 10 STREAMS {t}s {t}r $ 0"
    "|XGROUP CREATE {t}s g 0|XREADGROUP GROUP g c BLOCK 10 STREAMS {t}s >|XREADGROUP GROUP g c BLOCK 10 STREAMS {t}s >"
    "|XREADGROUP GROUP g c COUNT 5 BLOCK 0 NOACK STREAMS {t}s 0|XREADGROUP GROUP nosuch c BLOCK 10 STREAMS {t}s >",
    "no timeouts": "BLPOP {t}l x|BLPOP {t}l -1|BRPOP {t}l 1e300|BLPOP {t}l nan|BLMPOP x 1 {t}l LEFT|BZPOPMIN {t}z -0.5"
    "|XREAD BLOCK x STREAMS {t}s $|XREAD BLOCK -1 STREAMS {t}s $|XREAD BLOCK 1.5 STREAMS {t}s $|PING",
    "forms": "BLPOP {t}l|BLMPOP 1 0 {t}l LEFT|BLMPOP 1 x {t}l LEFT|BLMPOP 1 1 {t}l UP|BLMOVE {t}l {t}m UP DOWN 1"
    "|XREAD BLOCK 1|XREAD BLOCK|BZMPOP 1 1 {t}z MID",
    "wrong types": "SET {t}k v|BLPOP {t}k 0|BZPOPMIN {t}k 0|BLMOVE {t}k {t}l LEFT LEFT 0|XREAD BLOCK 0 STREAMS {t}k 0",
    "inside MULTI": "MULTI|BLPOP {t}l 0|XREAD BLOCK 0 STREAMS {t}s $|RPUSH {t}l a|BRPOP {t}l 0|EXEC|LLEN {t}l",
    "watched": "WATCH {t}k|BLPOP {t}l 0.01|MULTI|SET {t}k 1|EXEC|GET {t}k",
    "databases": "SELECT 3|RPUSH {t}l a|SELECT 0|BLPOP {t}l 0.01|SELECT 3|BLPOP {t}l 0.01",
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_answers_are_the_servers_own(proxy: PlaneHost, script: str, protocol: int) -> None:
    server = proxy.servers["a"]
    direct = talk((LOOPBACK, server.port), script, protocol=protocol)
    with server.client() as client:
        client.flushall()
    assert talk(proxy.address, script, protocol=protocol) == direct


def waits(proxy: PlaneHost, count: int = 1) -> None:
    """Until so many requests wait at the servers."""

    def blocked(server: RedisServer) -> int:
        with server.client(decode_responses=True) as direct:
            found: Any = direct.info("clients")
            return int(found["blocked_clients"])

    wait_until(lambda: sum(map(blocked, proxy.servers.values())) == count, 10, f"{count} requests to wait")


@pytest.mark.parametrize("end", ["DEL {t}s", "SET {t}s v", "XGROUP DESTROY {t}s g"])
def test_who_waits_for_a_stream_that_goes_is_told_as_by_the_server(proxy: PlaneHost, end: str) -> None:
    def told(address: tuple[str, int]) -> Any:
        with proxy.servers["a"].client() as direct:
            direct.flushall()
        with Wire(address) as waiter, Wire(address) as other:
            assert waiter.call("XGROUP", "CREATE", "{t}s", "g", "$", "MKSTREAM") == "OK"
            waiter.send(command("XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "{t}s", ">"))
            waits(proxy)
            other.call(*end.split())
            return waiter.reply()

    assert told(proxy.address) == told((LOOPBACK, proxy.servers["a"].port))


@pytest.mark.parametrize("protocol", [2, 3])
def test_who_waits_first_is_served_first_and_others_go_on(proxy: PlaneHost, protocol: int) -> None:
    order: list[tuple[int, bytes]] = []

    def pop(number: int) -> None:
        with proxy.client(protocol=protocol) as client:
            found: Any = client.blpop(["queue"], timeout=10)
            order.append((number, found[1]))

    with ThreadPoolExecutor(5) as threads, proxy.client(protocol=protocol) as client:
        poppers = []
        for number in range(5):
            poppers.append(threads.submit(pop, number))
            waits(proxy, number + 1)
        assert client.get("queue:other") is None
        for number in range(5):
            client.rpush("queue", str(number))
            wait_until(lambda: len(order) > number, 5, "an item to be popped")  # noqa: B023
        for popper in poppers:
            popper.result()
    assert order == [(number, str(number).encode()) for number in range(5)]


def test_nothing_is_popped_for_a_client_that_has_left(proxy: PlaneHost, client: redis.Redis) -> None:
    for more in (b"", command("GET", "k")):
        with Wire(proxy.address) as wire:
            wire.send(command("BLPOP", "queue", "0") + more)
            waits(proxy)
        waits(proxy, 0)
        client.rpush("queue", "item")
        assert client.lrange("queue", 0, -1) == [b"item"]
        client.delete("queue")


def test_hundreds_wait_and_leave_nothing_behind(proxy: PlaneHost, client: redis.Redis) -> None:
    wires = [Wire(proxy.address) for _ in range(300)]
    for number, wire in enumerate(wires):
        wire.send(command("BRPOP", f"queue:{number}", "0"))
    waits(proxy, len(wires))
    for number in range(0, len(wires), 2):
        client.rpush(f"queue:{number}", "x")
    for number, wire in enumerate(wires):
        if number % 2 == 0:
            assert wire.reply() == [f"queue:{number}".encode(), b"x"]
        wire.close()
    waits(proxy, 0)
    wait_until(lambda: connections(proxy) < 80, 10, "the connections of those who left to be closed")


def connections(proxy: PlaneHost) -> int:
    found = 0
    for server in proxy.servers.values():
        with server.client(decode_responses=True) as direct:
            clients: Any = direct.info("clients")
            found += int(clients["connected_clients"])
    return found


def test_a_time_out_is_in_time(client: redis.Redis) -> None:
    started = time.monotonic()
    assert client.blpop(["queue"], timeout=0.3) is None
    assert time.monotonic() - started >= 0.3


def test_keys_on_two_shards_are_refused(client: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError, match="keys of 'blpop' are on different shards"):
        client.blpop([f"{number}:queue" for number in range(30)], timeout=1)


def test_a_consumer_group_is_read_by_many(proxy: PlaneHost, client: redis.Redis) -> None:
    client.xgroup_create("stream", "group", mkstream=True)
    seen: list[bytes] = []
    over = threading.Event()

    def consume(name: str) -> None:
        with proxy.client() as own:
            while not over.is_set():
                found: Any = own.xreadgroup("group", name, {"stream": ">"}, count=3, block=50)
                for _, entries in found or ():
                    for entry, _fields in entries:
                        seen.append(entry)
                        own.xack("stream", "group", entry)

    with ThreadPoolExecutor(4) as threads:
        consumers = [threads.submit(consume, f"consumer-{number}") for number in range(4)]
        try:
            added = [client.xadd("stream", {"n": number}) for number in range(200)]
            wait_until(lambda: len(seen) >= len(added), 10, "all entries to be read")
        finally:
            over.set()
        for consumer in consumers:
            consumer.result()
    assert sorted(seen) == sorted(added)
    pending: Any = client.xpending("stream", "group")
    assert pending["pending"] == 0
