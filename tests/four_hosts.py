"""The deployment that examples/from-twemproxy is about: four Redis, three sentinels, all with the files of the example.

    10.211.55.5   redis, replica of .6    sentinel
    10.211.55.6   redis, redis-sharding1  sentinel
    10.211.55.7   redis, redis-sharding2  sentinel
    10.211.55.8   redis, replica of .7

Rule: the example's files are what runs, at the addresses and ports that they name. Changed are only the host's own
address, where it keeps its files, how soon sentinels take a master for dead, and how soon a replica is sent its data.
It needs a `private_network`.
Used by: the failure test of the example.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness import RedisServer, SentinelServer, Stack, settled, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.harness import Servers

EXAMPLE = Path(__file__).parents[1] / "examples" / "from-twemproxy"
NUTCRACKER = EXAMPLE / "nutcracker.yml"
WITH_SENTINELS = EXAMPLE / "nutcracker-with-sentinels.yml"

VIP = "10.211.55.10"
FIRST, SECOND = "redis-sharding1", "redis-sharding2"
MASTERS: Mapping[str, str] = {FIRST: "10.211.55.6", SECOND: "10.211.55.7"}
REPLICAS: Mapping[str, str] = {FIRST: "10.211.55.5", SECOND: "10.211.55.8"}
SENTINELS = ("10.211.55.5", "10.211.55.6", "10.211.55.7")
ADDRESSES = ("10.211.55.5", "10.211.55.6", "10.211.55.7", "10.211.55.8", VIP)
REDIS_PORT, SENTINEL_PORT, PROXY_PORT, STATS_PORT = 6379, 26379, 22121, 22222
LABELS: Mapping[str, str] = {shard: f"{address}:{REDIS_PORT}" for shard, address in MASTERS.items()}
"""What the file calls each shard, and so what the ring hashes."""

WRITTEN_FOR = "10.211.55.5"  # the host that the example's files are of
DOWN_AFTER_MS = 1000


def start_masters(servers: Servers) -> dict[str, RedisServer]:
    """Start the masters alone."""
    return {shard: _redis(servers, address, None) for shard, address in MASTERS.items()}


def start_four_hosts(servers: Servers) -> Stack:
    """Start all of it, and wait until a failover could succeed."""
    masters = start_masters(servers)
    replicas = {shard: (_redis(servers, address, MASTERS[shard]),) for shard, address in REPLICAS.items()}
    sentinels = tuple(_sentinel(servers, address) for address in SENTINELS)
    stack = Stack(masters, replicas, sentinels)
    wait_until(lambda: settled(stack), 20, "the sentinels to know each other and every replica")
    return stack


def _redis(servers: Servers, address: str, master: str | None) -> RedisServer:
    directory = servers.directory / f"redis-{address}"
    lines = [line for line in _lines("redis.conf", address, directory) if not line.startswith("replicaof ")]
    if master is not None:
        lines.append(f"replicaof {master} {REDIS_PORT}")
    conf = _written(directory / "redis.conf", [*lines, "repl-diskless-sync-delay 0"])
    server = RedisServer(
        directory.name, [str(servers.engine.server), str(conf)], directory, port=REDIS_PORT, host=address
    )
    return servers.adopt(server).start()


def _sentinel(servers: Servers, address: str) -> SentinelServer:
    directory = servers.directory / f"sentinel-{address}"
    lines = [_sooner(line) for line in _lines("sentinel.conf", address, directory)]
    _written(directory / "sentinel.conf", lines)
    sentinel = SentinelServer(
        directory.name,
        servers.engine.sentinel,
        directory,
        port=SENTINEL_PORT,
        host=address,
        down_after_ms=DOWN_AFTER_MS,
    )
    return servers.adopt(sentinel).start()


def _lines(name: str, address: str, directory: Path) -> list[str]:
    """The example's file as another host has it."""
    lines = (EXAMPLE / name).read_text().splitlines()
    mine = [
        line.replace(WRITTEN_FOR, address) if line.startswith("bind") else line
        for line in lines
        if not line.startswith("dir ")
    ]
    return [*mine, f"dir {directory}"]


def _sooner(line: str) -> str:
    words = line.split()
    return " ".join([*words[:3], str(DOWN_AFTER_MS)]) if "down-after-milliseconds" in words[:2] else line


def _written(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")
    return path
