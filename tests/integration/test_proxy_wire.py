"""What goes over the wire: order, broken frames, big values, slow senders, passwords."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.harness import wait_until
from tests.integration.wire import Wire, WireError, command
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from tests.harness import Servers

MIB = 1 << 20


def test_a_thousand_pipelined_commands_keep_their_order(proxy: PlaneHost) -> None:
    requests: list[bytes] = []
    expected: list[Any] = []
    for number in range(250):
        key, value = f"key:{number}", f"value:{number}" * (number % 7)
        requests += [command("SET", key, value), command("GET", key), command("ECHO", key), command("NOSUCH", key)]
        expected += ["OK", value.encode(), key.encode(), WireError]
    with Wire(proxy.address) as wire:
        wire.send(b"".join(requests))
        replies = [wire.reply() for _ in requests]
    assert [WireError if isinstance(reply, WireError) else reply for reply in replies] == expected


def test_a_request_may_come_byte_by_byte(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        wire.socket.setsockopt(6, 1, 1)  # TCP_NODELAY, so that the bytes really come one by one
        for byte in command("SET", "slow", "value") + command("MGET", "slow", "absent") + b"PING\r\n":
            wire.send(bytes([byte]))
        assert [wire.reply(), wire.reply(), wire.reply()] == ["OK", [b"value", None], "PONG"]


@pytest.mark.parametrize(
    "broken",
    [
        b"*1\r\n$-5\r\n",
        b"*1\r\n$abc\r\n",
        b"*99999999999\r\n",
        b"*abc\r\n",
        b"*1\r\n:5\r\n",
        b"*2\r\n$3\r\nGET\r\n$999999999999\r\n",
        b'SET "unbalanced\r\n',
    ],
)
def test_a_broken_frame_gets_an_error_and_closes_that_client_alone(proxy: PlaneHost, broken: bytes) -> None:
    with Wire(proxy.address) as bystander, Wire(proxy.address) as wire:
        assert bystander.call("SET", "k", "v") == "OK"
        wire.send(command("SET", "before", "1") + broken)
        assert wire.reply() == "OK"
        answer = wire.reply()
        assert isinstance(answer, WireError)
        assert answer.startswith("ERR Protocol error")
        assert wire.closed_by_peer()
        assert bystander.call("GET", "k") == b"v"


def test_a_browser_that_posts_cannot_carry_commands_in_the_body(proxy: PlaneHost) -> None:
    body = command("SET", "forged", "1")
    with Wire(proxy.address) as wire, Wire(proxy.address) as bystander:
        wire.send(b"POST / HTTP/1.1\r\nHost: shoal\r\n\r\n" + body)
        assert wire.closed_by_peer()
        assert bystander.call("GET", "forged") is None


@pytest.mark.parametrize(
    "request_",
    [
        ("MONITOR",),
        ("SHUTDOWN",),
        ("CONFIG", "SET", "x", "y"),
        ("FUNCTION", "KILL"),
        ("NOSUCH",),
    ],
    ids=lambda request: request[0],
)
def test_what_is_not_supported_is_refused_and_the_connection_stays(proxy: PlaneHost, request_: tuple[str, ...]) -> None:
    with Wire(proxy.address) as wire:
        answer = wire.call(*request_)
        assert isinstance(answer, WireError)
        assert wire.call("SET", "after", "1") == "OK"


@pytest.mark.parametrize("size", [16 * 1024 - 1, MIB, 64 * MIB], ids=["16KiB-1", "1MiB", "64MiB"])
def test_big_values_come_back_whole(proxy: PlaneHost, size: int) -> None:
    block = hashlib.sha256(str(size).encode()).digest()
    value = (block * (size // len(block) + 1))[:size]
    with Wire(proxy.address, timeout=50) as wire:
        assert wire.call("SET", "big", value) == "OK"
        assert wire.call("STRLEN", "big") == size
        wire.send(command("GET", "big") + command("GET", "absent") + command("MGET", "big", "absent"))
        assert wire.reply() == value
        assert wire.reply() is None
        assert wire.reply() == [value, None]


def test_a_half_sent_value_stops_nobody_else(proxy: PlaneHost) -> None:
    request = command("SET", "slow", b"x" * MIB)
    with Wire(proxy.address) as uploader, Wire(proxy.address) as other:
        uploader.send(request[: MIB // 2])
        for number in range(100):  # over all shards, so also the one that the upload is for
            assert other.call("SET", f"{number}:key", "v") == "OK"
        uploader.send(request[MIB // 2 :])
        assert uploader.reply() == "OK"


def test_a_client_that_reads_nothing_stops_nobody_else(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as greedy, Wire(proxy.address) as other:
        assert greedy.call("SET", "big", b"x" * MIB) == "OK"

        def ask_for_everything() -> None:
            with contextlib.suppress(OSError):  # the proxy may close a client that never reads; not what is tested here
                greedy.send(command("GET", "big") * 200)

        sender = threading.Thread(target=ask_for_everything)
        sender.start()
        for number in range(100):
            assert other.call("SET", f"{number}:key", "v") == "OK"
        greedy.socket.close()
        greedy.stream.close()
        sender.join(10)
        assert not sender.is_alive()


def test_a_client_that_leaves_in_mid_flight_leaves_the_others_their_own_replies(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as stayer:
        for turn in range(30):
            leaver = Wire(proxy.address)
            leaver.send(b"".join(command("SET", f"key:{number}", f"leaver:{turn}") for number in range(100)))
            stayer.send(b"".join(command("ECHO", f"{turn}:{n}") + command("GET", f"mine:{n}") for n in range(20)))
            leaver.close()
            replies = [stayer.reply() for _ in range(40)]
            assert replies[0::2] == [f"{turn}:{n}".encode() for n in range(20)]
            assert replies[1::2] == [None] * 20


@pytest.fixture(scope="module")
def guarded(module_servers: Servers) -> PlaneHost:
    """A pool with a password, over servers with another one."""
    shards = {name: module_servers.redis(f"guarded-{name}", requirepass="backend-secret") for name in ("a", "b")}
    settings = {"password": "client secret", "backend_password": "backend-secret"}
    host = PlaneHost("guarded", [], module_servers.directory / "guarded", servers=shards, settings=settings)
    return module_servers.adopt(host).start()


def test_nothing_but_a_login_is_served_before_the_password(guarded: PlaneHost) -> None:
    with Wire(guarded.address) as wire:
        for request in [("GET", "k"), ("MGET", "a", "b"), ("PING",)]:
            answer = wire.call(*request)
            assert isinstance(answer, WireError)
            assert answer.code == "NOAUTH"
        answer = wire.call("AUTH", "wrong")
        assert isinstance(answer, WireError)
        assert wire.call("AUTH", "client secret") == "OK"
        assert wire.call("SET", "k", "v") == "OK"


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_logs_in(guarded: PlaneHost, protocol: int) -> None:
    with guarded.client(password="client secret", protocol=protocol) as client:
        assert client.set("k", protocol)
        assert client.get("k") == str(protocol).encode()
    with guarded.client(username="default", password="client secret", protocol=protocol) as client:
        assert client.ping()
    with (
        guarded.client(password="wrong", protocol=protocol, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises((redis.AuthenticationError, redis.ResponseError)),
    ):
        client.ping()


def test_a_password_where_none_is_set_is_refused(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        answer = wire.call("AUTH", "anything")
        assert isinstance(answer, WireError)
        assert "no password is set" in answer or "without any password configured" in answer
        assert wire.call("PING") == "PONG"


def test_an_idle_client_costs_no_connection_to_a_shard(proxy: PlaneHost) -> None:
    def connections() -> int:
        with proxy.servers["a"].client() as direct:
            listed: Any = direct.client_list()
            return len(listed)

    before = connections()
    wires = [Wire(proxy.address) for _ in range(50)]
    try:
        for wire in wires:
            assert wire.call("GET", "k") is None
        wait_until(lambda: connections() <= before + 2, 2, "50 clients to share one connection a shard")
    finally:
        for wire in wires:
            wire.close()


def test_a_cluster_behind_it_is_told(servers: Servers) -> None:
    shards = {"a": servers.redis("a", cluster_enabled="yes")}
    host = PlaneHost("proxy", [], servers.directory / "proxy", servers=shards)
    with Wire(servers.adopt(host).start().address) as wire:
        told = 'ERR shard "a" is a node of a Redis Cluster, which Shoal does not serve; it said: CLUSTERDOWN'
        assert wire.call("SET", "k", "v").startswith(told)
        assert wire.call("PING") == "PONG"
