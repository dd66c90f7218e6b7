"""A shard without a master, or without a lease: its requests wait and then go on; nobody else feels it."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import LOOPBACK, wait_until
from tests.integration.wire import Wire, WireError, command
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Process, Servers

HOLD_MS = 600


@pytest.fixture
def make_proxy(servers: Servers) -> Callable[..., PlaneHost]:
    """`make_proxy(hold_bytes=...)`: a proxy over shards a and b that has no routes yet."""

    def make(**settings: Any) -> PlaneHost:
        shards = {name: servers.redis(name) for name in ("a", "b")}
        options = {"hold_timeout_ms": HOLD_MS, **settings}
        host = PlaneHost("proxy", [], servers.directory / "proxy", servers=shards, settings=options)
        return servers.adopt(host).start(routed=False)

    return make


def keys_of(proxy: PlaneHost) -> dict[str, str]:
    """One key for each shard, found through the fully routed proxy; nothing is left behind."""
    proxy.route_all()
    found: dict[str, str] = {}
    with Wire(proxy.address) as wire:
        for number in range(100):
            key = f"key:{number}"
            wire.call("SET", key, "")
            for shard, server in proxy.servers.items():
                with server.client() as direct:
                    if direct.delete(key):
                        found.setdefault(shard, key)
            if len(found) == len(proxy.servers):
                return found
    raise AssertionError(found)


def held(proxy: PlaneHost, shard: str) -> int:
    return int(proxy.shard_stats(shard)["held_requests"])


def wait_held(proxy: PlaneHost, shard: str, count: int) -> None:
    wait_until(lambda: held(proxy, shard) == count, 2, f"{count} held requests of shard {shard}")


def test_requests_wait_for_the_first_route(make_proxy: Callable[..., PlaneHost]) -> None:
    proxy = make_proxy(hold_timeout_ms=5000)
    with Wire(proxy.address) as wire:
        wire.send(command("SET", "k", "1") + command("INCR", "k") + command("GET", "k"))
        time.sleep(0.1)  # not a wait for anything: time in which a wrong proxy would answer
        proxy.route_all()
        assert [wire.reply() for _ in range(3)] == ["OK", 2, b"2"]


def test_a_broken_lease_holds_writes_of_that_shard_only(make_proxy: Callable[..., PlaneHost]) -> None:
    proxy = make_proxy(hold_timeout_ms=5000)
    keys = keys_of(proxy)
    with Wire(proxy.address) as writer, Wire(proxy.address) as other:
        assert writer.call("SET", keys["a"], "old") == "OK"
        proxy.break_lease("a")
        writer.send(command("SET", keys["a"], "new"))
        wait_held(proxy, "a", 1)
        assert other.call("GET", keys["a"]) == b"old"  # reads go on while the endpoint answers
        assert other.call("SET", keys["b"], "1") == "OK"
        proxy.give_lease("a")
        assert writer.reply() == "OK"
        assert other.call("GET", keys["a"]) == b"new"


def test_a_read_never_overtakes_the_same_clients_held_write(make_proxy: Callable[..., PlaneHost]) -> None:
    proxy = make_proxy(hold_timeout_ms=5000)
    keys = keys_of(proxy)
    with Wire(proxy.address) as wire:
        assert wire.call("SET", keys["a"], "old") == "OK"
        proxy.break_lease("a")
        wire.send(command("SET", keys["a"], "new") + command("GET", keys["a"]) + command("GET", keys["b"]))
        wait_until(lambda: held(proxy, "a") >= 1, 2, "the write to be held")
        proxy.give_lease("a")
        assert [wire.reply() for _ in range(3)] == ["OK", b"new", None]


def test_what_is_held_too_long_is_refused_and_was_never_sent(make_proxy: Callable[..., PlaneHost]) -> None:
    proxy = make_proxy()
    keys = keys_of(proxy)
    proxy.break_lease("a")
    with Wire(proxy.address) as wire:
        started = time.monotonic()
        answer = wire.call("SET", keys["a"], "1")
        waited = time.monotonic() - started
        assert isinstance(answer, WireError)
        assert answer.startswith('MASTERDOWN shard "a" has no master: held')
        assert HOLD_MS / 1000 <= waited < HOLD_MS / 1000 + 0.5
        proxy.give_lease("a")
        assert wire.call("GET", keys["a"]) is None


def test_more_than_the_bound_is_refused_at_once(make_proxy: Callable[..., PlaneHost]) -> None:
    proxy = make_proxy(hold_bytes=10_000, hold_timeout_ms=5000)
    keys = keys_of(proxy)
    proxy.break_lease("a")
    with Wire(proxy.address) as first, Wire(proxy.address) as second:
        first.send(command("SET", keys["a"], b"x" * 8000))
        wait_held(proxy, "a", 1)
        answer = second.call("SET", keys["a"], b"y" * 8000)
        assert isinstance(answer, WireError)
        assert answer.code == "MASTERDOWN"
        proxy.give_lease("a")
        assert first.reply() == "OK"


def test_a_client_that_gave_up_has_nothing_sent_for_it(make_proxy: Callable[..., PlaneHost]) -> None:
    proxy = make_proxy(hold_timeout_ms=5000)
    keys = keys_of(proxy)
    proxy.break_lease("a")
    leaver = Wire(proxy.address)
    leaver.send(command("SET", keys["a"], "ghost"))
    wait_held(proxy, "a", 1)
    leaver.close()
    wait_held(proxy, "a", 0)
    proxy.give_lease("a")
    with Wire(proxy.address) as wire:
        assert wire.call("GET", keys["a"]) is None


def test_a_client_that_gave_up_while_the_proxy_stood_still_has_nothing_sent_for_it(
    make_proxy: Callable[..., PlaneHost],
) -> None:
    proxy = make_proxy(hold_timeout_ms=5000, backend_password="secret")
    with socket.create_server((LOOPBACK, 0)) as master:
        master.settimeout(0.2)
        port = master.getsockname()[1]
        proxy.route({"a": port, "b": port})
        connections = accept_all(master)
        leaver = Wire(proxy.address)
        leaver.send(command("SET", "k", "ghost"))
        wait_until(lambda: held(proxy, "a") + held(proxy, "b") == 1, 2, "the write to be held")
        proxy.pause()
        wait_until(lambda: stands_still(proxy), 2, "every thread of the proxy to be stopped")
        for connection in connections:
            assert connection.recv(100).endswith(b"secret\r\n")
            connection.sendall(b"+OK\r\n")  # from here on the write may be sent
        leaver.close()
        proxy.resume()
        for connection in connections:
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.close()


def stands_still(process: Process) -> bool:
    states = [
        stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{process.pid}/task").glob("*/stat")
    ]
    return set(states) == {"T"}


def accept_all(listener: socket.socket) -> list[socket.socket]:
    """Connections until none has come for the listener's timeout."""
    connections: list[socket.socket] = []
    while True:
        try:
            connections.append(listener.accept()[0])
        except TimeoutError:
            return connections


def test_a_split_write_waits_until_all_its_shards_serve(make_proxy: Callable[..., PlaneHost]) -> None:
    proxy = make_proxy(hold_timeout_ms=5000)
    keys = keys_of(proxy)
    proxy.break_lease("a")
    with Wire(proxy.address) as wire, proxy.servers["b"].client() as direct:
        wire.send(command("MSET", keys["a"], "1", keys["b"], "1"))
        time.sleep(0.2)  # time in which a wrong proxy would have written the half it can
        assert direct.get(keys["b"]) is None
        proxy.give_lease("a")
        assert wire.reply() == "OK"
        assert direct.get(keys["b"]) == b"1"


def test_a_write_sent_to_a_master_that_dies_is_in_doubt_and_a_read_is_sent_again(
    make_proxy: Callable[..., PlaneHost], servers: Servers
) -> None:
    proxy = make_proxy(hold_timeout_ms=5000)
    keys = keys_of(proxy)
    heir = servers.redis("heir")
    with Wire(proxy.address) as writer, Wire(proxy.address) as reader:
        assert writer.call("SET", keys["a"], "old") == "OK"
        before = proxy.shard_stats("a")["requests"]
        proxy.servers["a"].pause()
        writer.send(command("SET", keys["a"], "new"))
        reader.send(command("GET", keys["a"]))
        wait_until(lambda: proxy.shard_stats("a")["requests"] >= before + 2, 2, "both requests to be sent")
        proxy.servers["a"].kill()
        answer = writer.reply()
        assert isinstance(answer, WireError)
        assert answer.startswith('INDOUBT write to shard "a" was sent but not confirmed')
        writer.send(command("SET", keys["a"], "newer"))
        wait_until(lambda: held(proxy, "a") == 2, 2, "the read and the new write to be held")
        proxy.route({"a": heir.port, "b": proxy.servers["b"].port})
        assert reader.reply() in {None, b"newer"}
        assert writer.reply() == "OK"


def test_a_refusal_before_execution_is_never_shown(make_proxy: Callable[..., PlaneHost], servers: Servers) -> None:
    proxy = make_proxy(hold_timeout_ms=5000)
    keys = keys_of(proxy)
    replica = servers.redis("replica", replica_of=proxy.servers["a"])
    proxy.route({"a": replica.port, "b": proxy.servers["b"].port})
    with Wire(proxy.address) as wire:
        wire.send(command("SET", keys["a"], "1") + command("GET", keys["a"]))
        wait_until(lambda: held(proxy, "a") >= 1, 2, "the refused write to be held")
        proxy.route_all()
        assert [wire.reply(), wire.reply()] == ["OK", b"1"]


def test_a_dead_shard_leaves_the_other_untouched(make_proxy: Callable[..., PlaneHost]) -> None:
    proxy = make_proxy()
    keys = keys_of(proxy)
    with Wire(proxy.address) as stuck, Wire(proxy.address) as other:
        proxy.servers["a"].kill()
        stuck.send(command("SET", keys["a"], "1"))
        slowest = 0.0
        for turn in range(300):
            started = time.monotonic()
            assert other.call("SET", keys["b"], str(turn)) == "OK"
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 0.1
        answer = stuck.reply()
        assert isinstance(answer, WireError)
        assert answer.code == "MASTERDOWN"
