"""The whole move: real nutcracker wrote the keys, its file is imported, and a proxy of Shoal in its place reads them.

Without aliases, so that the ring has hashed addresses of which one is not the master's any more.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.harness import LOOPBACK, Process, Servers, free_port, have, wait_until
from tests.integration.wire import Wire, command
from tests.proxies import SHOAL, ProxyServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import EngineProgram, Stack

KEYS = [b"key:%d" % number for number in range(300)] + [b"\xc3\xa9\xff%d" % number for number in range(300)]


@pytest.fixture
def program() -> Path:
    return have("nutcracker") or pytest.skip("no nutcracker: `make test` installs it as root on Debian")


def file_of(stack: Stack, port: int) -> str:
    """The four-host file, on the ports of this machine."""
    lines = ["redis-cluster:", f"  listen: {LOOPBACK}:{port}", "  hash: fnv1a_64", "  distribution: ketama"]
    lines += ["  auto_eject_hosts: true", "  redis: true", "  server_retry_timeout: 2000", "  server_failure_limit: 1"]
    return (
        "\n".join([*lines, "  servers:", *(f"   - {LOOPBACK}:{one.port}:1" for one in stack.masters.values())]) + "\n"
    )


def answers(port: int) -> bool:
    with Wire((LOOPBACK, port)) as wire:
        return bool(wire.call("PING") == "PONG")


def fail_over(stack: Stack, shard: str) -> None:
    with stack.sentinels[0].client() as client:
        client.execute_command("SENTINEL", "FAILOVER", shard)
    replica = stack.replicas[shard][0]

    def all_name_it() -> bool:
        ports = set()
        for sentinel in stack.sentinels:
            with sentinel.client() as client:
                ports.add(client.sentinel_master(shard)["port"])
        return ports == {replica.port} and replica.role() == "master"

    wait_until(all_name_it, 20.0, f"every sentinel to name the new master of {shard}")


def test_what_nutcracker_wrote_is_where_it_was_after_a_failover_and_an_import(
    valkey: EngineProgram, tmp_path: Path, program: Path
) -> None:
    with Servers(valkey, tmp_path) as servers:
        stack = servers.stack(("redis-sharding1", "redis-sharding2"))
        port, stats, admin = free_port(), free_port(), free_port()
        file, topology = tmp_path / "nutcracker.yml", tmp_path / "shoal.yaml"
        file.write_text(file_of(stack, port))
        argv = [str(program), "-c", str(file), "-a", LOOPBACK, "-s", str(stats)]
        nutcracker = servers.adopt(Process("nutcracker", argv, tmp_path / "nutcracker"))
        nutcracker.launch()
        wait_until(lambda: answers(port), 5, "nutcracker to answer")
        with Wire((LOOPBACK, port)) as wire:
            wire.send(b"".join(command("SET", key, key) for key in KEYS))
            assert [wire.reply() for _ in KEYS] == ["OK"] * len(KEYS)
        nutcracker.stop()
        fail_over(stack, "redis-sharding2")

        sentinels = [word for one in stack.sentinels for word in ("--sentinel", f"{LOOPBACK}:{one.port}")]
        argv = [str(SHOAL), "import", str(file), "-o", str(topology), *sentinels]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        text = topology.read_text()
        topology.write_text(text.replace("admin: 22180", f"admin: {admin}").replace("stats: 22222", f"stats: {stats}"))
        argv = [str(SHOAL), "proxy", "-f", str(topology), "--node", "proxy1"]
        proxy = servers.adopt(ProxyServer("proxy1", argv, tmp_path / "proxy1", port=port, admin=admin))
        proxy.launch()
        wait_until(proxy.serves, 10, "the proxy to serve every shard")
        with Wire(proxy.address) as wire:
            wire.send(b"".join(command("GET", key) for key in KEYS))
            assert [wire.reply() for _ in KEYS] == KEYS
