"""WAIT through the proxy: true of this client's own writes, on both engines, with a replica that has stopped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import redis

from tests.harness import link_up, wait_until
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from tests.harness import RedisServer, Servers

LONG = 10_000  # ms
SHORT = 300


@pytest.fixture
def replicas(servers: Servers) -> dict[str, RedisServer]:
    masters = {name: servers.redis(name) for name in ("a", "b")}
    replicas = {name: servers.redis(f"{name}-2", replica_of=master) for name, master in masters.items()}
    wait_until(lambda: all(map(link_up, replicas.values())), 10, "the replicas to follow")
    return replicas


@pytest.fixture
def proxy(servers: Servers, replicas: dict[str, RedisServer]) -> PlaneHost:
    masters = {name: next(one for one in servers.processes if one.name == name) for name in replicas}
    host = PlaneHost("proxy", [], servers.directory / "proxy", servers=masters)  # type: ignore[arg-type]
    return servers.adopt(host).start()


def keys_by_shard(proxy: PlaneHost) -> dict[str, str]:
    """A key of each shard, found by where the proxy puts it."""
    found: dict[str, str] = {}
    with proxy.client() as client:
        for number in range(100):
            key = f"{number}:key"
            client.set(key, "x")
            for name, server in proxy.servers.items():
                with server.client() as direct:
                    if direct.exists(key):
                        found.setdefault(name, key)
    return found


@pytest.mark.parametrize("protocol", [2, 3])
def test_it_counts_what_this_client_wrote(proxy: PlaneHost, replicas: dict[str, RedisServer], protocol: int) -> None:
    keys = keys_by_shard(proxy)
    with proxy.client(protocol=protocol) as client, proxy.client() as other:
        client.set(keys["a"], "1")
        assert client.wait(1, LONG) == 1
        replicas["a"].pause()
        try:
            assert client.set(keys["a"], "2")
            started = time.monotonic()
            assert client.wait(1, SHORT) == 0
            assert time.monotonic() - started >= SHORT / 1000
            assert client.wait(1, SHORT) == 0  # also when nothing was written since
            client.set(keys["b"], "2")
            assert client.wait(1, SHORT) == 0  # what was not confirmed is asked for again
            other.set(keys["b"], "4")
            assert other.wait(1, LONG) == 1  # it wrote nothing to the shard whose replica stands still
        finally:
            replicas["a"].resume()
        assert client.wait(1, LONG) == 1
        replicas["a"].pause()
        try:
            client.set(keys["b"], "5")
            assert client.wait(1, LONG) == 1  # all that was before is confirmed, and this shard's replica runs
            client.mset({keys["a"]: "6", keys["b"]: "6"})
            assert client.wait(1, SHORT) == 0  # the least
        finally:
            replicas["a"].resume()
        assert client.wait(1, LONG) == 1
        assert client.wait(5, SHORT) == 1  # more than there are


def test_a_wait_ends_as_soon_as_the_replica_has_it(proxy: PlaneHost, replicas: dict[str, RedisServer]) -> None:
    key = keys_by_shard(proxy)["a"]
    with proxy.client() as client:
        client.set(key, "1")
        started = time.monotonic()
        assert client.wait(1, LONG) == 1
        assert time.monotonic() - started < LONG / 2000


def test_bad_arguments_are_the_servers_to_refuse(proxy: PlaneHost) -> None:
    with proxy.client() as client:
        for arguments in (("x", 1), (1, "x"), (1, -1)):
            with pytest.raises(redis.ResponseError, match=r"integer|negative|out of range"):
                client.execute_command("WAIT", *arguments)
        with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'wait'"):
            client.execute_command("WAIT", 1)


def test_waitaof_tells_both_where_the_server_has_it(servers: Servers, proxy: PlaneHost) -> None:
    with proxy.client() as client:
        client.set("key", "1")
        if servers.engine.name == "valkey":
            assert client.execute_command("WAITAOF", 0, 0, SHORT) == [0, 0]
        else:
            with pytest.raises(redis.ResponseError, match="unknown command 'WAITAOF'"):
                client.execute_command("WAITAOF", 0, 0, SHORT)
