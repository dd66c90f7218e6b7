"""`shoal proxy` as a process: it starts, answers about itself, drains, and refuses what it must."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.harness import LOOPBACK, free_port, wait_until
from tests.proxies import PROXY, SHOAL, ProxyServer, start_proxy, topology_of

if TYPE_CHECKING:
    from tests.harness import Servers, Stack


@pytest.fixture
def stack(servers: Servers) -> Stack:
    return servers.stack(("a", "b"))


def ask(proxy: ProxyServer, path: str) -> tuple[int, Any]:
    """Status and body, also of a refusal."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{proxy.admin}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def refuse(servers: Servers, stack: Stack, *, port: int = 0, admin: int = 0, **sections: Any) -> tuple[int, str]:
    """Start a proxy that must not start; its exit status and what it said."""
    proxy = ProxyServer("refused", [], servers.directory, port=port or free_port(), admin=admin or free_port())
    file = servers.directory / "refused.yaml"
    file.write_text(json.dumps(topology_of(stack, proxy, **sections)))
    argv = [str(SHOAL), "proxy", "-f", str(file), "--node", PROXY]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    return ended.returncode, ended.stderr


def test_it_says_what_it_serves(servers: Servers, stack: Stack) -> None:
    proxy = start_proxy(servers, stack)
    assert ask(proxy, "/healthz") == (200, {"healthy": True, "reasons": []})
    assert ask(proxy, "/readyz") == (200, {"ready": True, "reasons": []})
    _, told = ask(proxy, "/api/v1/topology")
    assert told["node"] == PROXY
    assert told["pid"] == proxy.pid
    pool = told["pools"]["trial"]
    assert (pool["refused"], pool["protocol_errors"], pool["overflowed"]) == (0, 0, 0)
    shards = pool["shards"]
    assert {name: shard["endpoint"] for name, shard in shards.items()} == {
        name: f"{LOOPBACK}:{server.port}" for name, server in stack.masters.items()
    }
    assert all(shard["writable"] and 0 < shard["lease_ms"] <= 1150 for shard in shards.values())
    assert all(sentinel["reachable"] and sentinel["last_seen_ms"] < 500 for sentinel in told["sentinels"])


def test_it_counts_the_clients_that_make_no_sense(servers: Servers, stack: Stack) -> None:
    proxy = start_proxy(servers, stack)
    accepted = ask(proxy, "/api/v1/topology")[1]["pools"]["trial"]["accepted"]
    with socket.create_connection((LOOPBACK, proxy.port)) as client:
        client.sendall(b"*1\r\n:nonsense\r\n")
        client.settimeout(5)
        assert client.recv(100).startswith(b"-ERR Protocol error")

    def told() -> bool:
        pool = ask(proxy, "/api/v1/topology")[1]["pools"]["trial"]
        return (pool["protocol_errors"], pool["accepted"] > accepted) == (1, True)

    wait_until(told, 5, "the client to be counted")


def test_a_shard_without_a_master_is_not_ready_and_the_proxy_stays_healthy(servers: Servers, stack: Stack) -> None:
    proxy = start_proxy(servers, stack)
    for server in (stack.masters["a"], *stack.replicas["a"]):
        server.kill()
    wait_until(lambda: ask(proxy, "/readyz")[0] == 503, 4, "the shard to be missed")
    reasons = ask(proxy, "/readyz")[1]["reasons"]
    assert len(reasons) == 1
    assert reasons[0].startswith('pool "trial" shard "a": ')
    assert ask(proxy, "/healthz")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_it(servers: Servers, stack: Stack, number: int) -> None:
    proxy = start_proxy(servers, stack)
    answers: list[object] = []

    def write() -> None:
        with proxy.client(retry=None) as client:
            for n in range(10_000):
                try:
                    client.set("k", n)
                except redis.ConnectionError:
                    answers.append("closed")
                    return

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.2)
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: "reloaded" in proxy.log_tail(), 4, "SIGHUP to reload")
    assert proxy.running()
    begun = time.monotonic()
    proxy.signal(number)
    assert proxy.child is not None
    assert proxy.child.wait(5) == 0
    assert time.monotonic() - begun < 3
    writer.join(5)
    assert answers == ["closed"]
    assert "Traceback" not in proxy.log_tail(200)
    assert "proxy_draining" in proxy.log_tail()
    assert "proxy_stopped" in proxy.log_tail()


def test_a_lost_and_a_returned_sentinel_are_logged_and_felt_by_nobody(servers: Servers, stack: Stack) -> None:
    proxy = start_proxy(servers, stack)
    stack.sentinels[0].kill()
    wait_until(lambda: "sentinel_lost" in proxy.log_tail(), 3, "the loss to be logged")
    with proxy.client(socket_timeout=0.5) as client:
        for n in range(200):
            client.set(f"k{n}", n)
            time.sleep(0.005)
    stack.sentinels[0].start()
    wait_until(lambda: proxy.log_tail().count("sentinel_connected") == 4, 5, "the return to be logged")
    assert "lease_broken" not in proxy.log_tail(200)


def test_it_refuses_sentinels_that_the_topology_does_not_list(servers: Servers, stack: Stack) -> None:
    listed = topology_of(stack, ProxyServer("x", [], servers.directory))["sentinel"]
    unlisted = {**listed, "nodes": listed["nodes"][:2], "quorum": 2}
    status, said = refuse(servers, stack, sentinel=unlisted)
    assert status == 1
    assert '3 sentinels watch "a", and 2 of them are configured' in said
    assert "hint: list every sentinel" in said
    assert "Traceback" not in said


def test_a_port_in_use_is_one_error_and_nothing_keeps_running(servers: Servers, stack: Stack) -> None:
    proxy = start_proxy(servers, stack)
    for taken in ({"port": proxy.port}, {"admin": proxy.admin}):
        status, said = refuse(servers, stack, **taken)
        assert status == 2
        assert said.startswith("error: "), said
        assert "cannot listen" in said
    assert ask(proxy, "/healthz")[0] == 200


def test_without_any_sentinel_it_waits_and_says_so(servers: Servers, stack: Stack) -> None:
    for sentinel in stack.sentinels:
        sentinel.kill()
    directory = servers.directory / PROXY
    directory.mkdir()
    file = directory / "shoal.yaml"
    argv = [str(SHOAL), "proxy", "-f", str(file), "--node", PROXY, "--log-format", "json"]
    proxy = servers.adopt(ProxyServer(PROXY, argv, directory, port=free_port(), admin=free_port()))
    file.write_text(json.dumps(topology_of(stack, proxy)))
    proxy.launch()
    wait_until(lambda: ask(proxy, "/healthz")[0] == 200, 5, "the proxy to be healthy")
    status, told = ask(proxy, "/readyz")
    assert status == 503
    assert len(told["reasons"]) == 2
    assert all(reason.endswith("no majority of the sentinels names its master") for reason in told["reasons"])

    def events() -> list[str]:
        return sorted(json.loads(line)["event"] for line in proxy.log.read_text().splitlines())

    wait_until(lambda: events() == ["proxy_started", *["sentinel_lost"] * 3], 5, "each sentinel to be missed once")
    for sentinel in stack.sentinels:
        sentinel.start()
    wait_until(lambda: ask(proxy, "/readyz")[0] == 200, 10, "the proxy to be ready")
