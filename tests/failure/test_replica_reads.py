"""Reads on replicas of real shards through a real proxy: they arrive there, and are never older than `max_lag` says.

A trial writes a growing number and reads it from other connections, all the time; afterwards each read is held against
the writes that were acknowledged when it was sent. A read that fails is a failure of the trial, whatever was done.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest
import redis

from tests.harness import link_up, wait_until
from tests.proxies import ProxyServer, start_proxy
from tests.trials import ping_as_supervised

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import RedisServer, Servers, Stack

MAX_LAG = 0.5
READS = {"reads": "replica", "max_lag": "500ms"}
READERS = 4
KEY = "number"


@dataclass
class Freshness:
    """One client that writes, and some that read."""

    proxy: ProxyServer
    acknowledged: list[tuple[float, int]] = field(default_factory=list)
    reads: list[tuple[float, int]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._write)]
        self._threads += [threading.Thread(target=self._read) for _ in range(READERS)]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.reads) > 100, 10, "some reads")
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        number = 0
        with self.proxy.client() as client:
            while not self.over.is_set():
                number += 1
                try:
                    client.set(KEY, number)
                    self.acknowledged.append((time.monotonic(), number))
                except redis.ResponseError as error:
                    if not str(error).startswith("INDOUBT"):
                        self.failed.append(f"SET: {error}")
                time.sleep(0.001)

    def _read(self) -> None:
        with self.proxy.client() as client:
            while not self.over.is_set():
                sent = time.monotonic()
                try:
                    self.reads.append((sent, int(client.get(KEY) or 0)))
                except (OSError, redis.RedisError) as error:
                    self.failed.append(f"GET: {error}")
                time.sleep(0.001)

    def check(self) -> None:
        """No read failed, and none missed what was acknowledged `max_lag` before it was sent."""
        assert not self.failed, self.failed[:5]
        stale = []
        due = at = 0
        for sent, number in sorted(self.reads):
            while at < len(self.acknowledged) and self.acknowledged[at][0] < sent - MAX_LAG:
                due = self.acknowledged[at][1]
                at += 1
            if number < due:
                stale.append((sent, number, due))
        assert not stale, f"{len(stale)} of {len(self.reads)} reads were too old, the first {stale[0]}"
        assert due > 100, "there was something to miss"


def gets(server: RedisServer) -> int:
    with server.client() as direct:
        stats: Any = direct.info("commandstats")
        return int(stats.get("cmdstat_get", {}).get("calls", 0))


def reads_arrive(server: RedisServer) -> bool:
    """Whether a server answers reads now."""
    before = gets(server)
    time.sleep(0.1)
    return gets(server) > before + READERS


def told(proxy: ProxyServer, shard: str = "a") -> Any:
    return proxy.ask("/api/v1/topology")["pools"]["trial"]["shards"][shard]


def reading_proxy(servers: Servers, stack: Stack) -> ProxyServer:
    """A proxy that reads at the replicas by now."""
    proxy = start_proxy(servers, stack)
    reconfigure(proxy, **READS)
    wait_until(
        lambda: any(one["reads"] for one in told(proxy).get("replicas", {}).values()), 10, "a replica to be read"
    )
    return proxy


def reconfigure(proxy: ProxyServer, **settings: Any) -> None:
    """Give the pool these settings, and let the proxy read its file again."""
    file = proxy.directory / "shoal.yaml"
    topology = json.loads(file.read_text())
    topology["proxy"] |= settings
    file.write_text(json.dumps(topology))
    reloads = proxy.log.read_text().count("reloaded")
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: proxy.log.read_text().count("reloaded") > reloads, 10, "the reload")


def trial(servers: Servers, act: Callable[[Stack, ProxyServer], None], *, replicas: int = 1) -> None:
    stack = servers.stack(("a",), replicas=replicas)
    ping_as_supervised(stack)
    proxy = reading_proxy(servers, stack)
    with Freshness(proxy) as freshness:
        wait_until(lambda: any(map(reads_arrive, stack.replicas["a"])), 5, "reads at a replica")
        act(stack, proxy)
        time.sleep(2 * MAX_LAG)  # of reads that have something to miss
    freshness.check()


@pytest.mark.timeout(90)
def test_a_frozen_replica_is_left_out_and_comes_back(servers: Servers) -> None:
    def act(stack: Stack, proxy: ProxyServer) -> None:
        (replica,) = stack.replicas["a"]
        for _ in range(3):
            replica.pause()
            time.sleep(2 * MAX_LAG)
            replica.resume()
            wait_until(lambda: reads_arrive(replica), 10, "reads at the replica")
        assert told(proxy)["replica_losses"] > 0

    trial(servers, act)


@pytest.mark.timeout(90)
def test_a_killed_replica_costs_no_read_and_is_used_again(servers: Servers) -> None:
    def act(stack: Stack, proxy: ProxyServer) -> None:
        (replica,) = stack.replicas["a"]
        with replica.client() as direct:
            direct.config_set("save", "3600 1")
            direct.save()  # what it will come back with is old
            direct.config_rewrite()
        time.sleep(2 * MAX_LAG)
        for _ in range(2):
            replica.kill()
            time.sleep(MAX_LAG)
            replica.start()
            wait_until(lambda: reads_arrive(replica), 15, "reads at the replica")
        assert next(iter(told(proxy)["replicas"].values()))["reads"]

    trial(servers, act)


@pytest.mark.timeout(90)
def test_two_replicas_share_and_one_that_dies_leaves_all_to_the_other(servers: Servers) -> None:
    def act(stack: Stack, _proxy: ProxyServer) -> None:
        first, second = stack.replicas["a"]
        master = gets(stack.masters["a"])
        first.kill()
        wait_until(lambda: reads_arrive(second), 5, "all reads at the other replica")
        second.kill()
        wait_until(lambda: gets(stack.masters["a"]) > master + 100, 5, "all reads at the master")

    trial(servers, act, replicas=2)


@pytest.mark.timeout(120)
def test_after_a_failover_the_old_master_comes_back_as_a_replica_that_is_read(servers: Servers) -> None:
    def act(stack: Stack, proxy: ProxyServer) -> None:
        old, (new,) = stack.masters["a"], stack.replicas["a"]
        old.kill()
        wait_until(lambda: told(proxy)["endpoint"] == f"127.0.0.1:{new.port}", 20, "the new master")
        assert not any(one["reads"] for one in told(proxy)["replicas"].values())
        old.start()
        wait_until(lambda: old.role() == "slave" and link_up(old), 30, "the old master to follow")
        wait_until(lambda: reads_arrive(old), 10, "reads at the old master")

    trial(servers, act)


@pytest.mark.timeout(90)
def test_a_replica_that_is_made_to_follow_another_master_is_left_out(servers: Servers) -> None:
    stranger = servers.redis("stranger")

    def act(stack: Stack, proxy: ProxyServer) -> None:
        (replica,) = stack.replicas["a"]
        with stranger.client() as direct:
            direct.execute_command("CLIENT", "PAUSE", 3000, "ALL")  # its data comes when the proxy has looked
        with replica.client() as direct:
            direct.replicaof("127.0.0.1", stranger.port)
        wait_until(lambda: not next(iter(told(proxy)["replicas"].values()))["reads"], 2, "the replica to be left out")
        with contextlib.suppress(redis.RedisError), replica.client() as direct:
            direct.replicaof("127.0.0.1", stack.masters["a"].port)
        wait_until(lambda: reads_arrive(replica), 20, "reads at the replica")

    trial(servers, act)


@pytest.mark.timeout(90)
def test_a_reload_changes_who_is_read_from_and_loses_no_client(servers: Servers) -> None:
    def act(stack: Stack, proxy: ProxyServer) -> None:
        master, (replica,) = stack.masters["a"], stack.replicas["a"]
        reconfigure(proxy, reads="master")
        wait_until(lambda: not reads_arrive(replica), 5, "no more reads at the replica")
        assert "replicas" not in told(proxy)
        reconfigure(proxy, reads="replica")
        wait_until(lambda: reads_arrive(replica), 5, "reads at the replica")
        reconfigure(proxy, hold={"timeout": "3s"})
        assert reads_arrive(replica), "another setting changes nothing about it"
        reconfigure(proxy, reads="nearest")
        wait_until(lambda: reads_arrive(replica) or reads_arrive(master), 5, "reads somewhere")

    trial(servers, act)
