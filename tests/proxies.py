"""The whole proxy as users run it: `shoal proxy` in a process of its own, following real sentinels.

Owns: the topology file that describes a harness stack, and the handle of a proxy over it or over a nutcracker.yml.
Rule: nothing of Shoal starts or restarts the servers here; what a test kills stays dead until the test says otherwise.
Used by: the failure tests and the benchmark.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from tests.harness import LOOPBACK, Process, free_port, release_port, wait_until

if TYPE_CHECKING:
    from tests.harness import Servers, Stack

SHOAL = Path(sys.executable).with_name("shoal")
PROXY = "proxy1"


@dataclass
class ProxyServer(Process):
    """One `shoal proxy`, with the port for clients and the one for its admin HTTP."""

    port: int = 0
    admin: int = 0
    host: str = LOOPBACK

    @property
    def address(self) -> tuple[str, int]:
        return (self.host, self.port)

    def client(self, **options: Any) -> redis.Redis:
        options.setdefault("socket_timeout", 10.0)
        return redis.Redis(host=self.host, port=self.port, **options)

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.admin}{path}", timeout=5) as answer:
            return json.load(answer)

    def serves(self) -> bool:
        """Whether a read reaches every shard: it has a route for all of them."""
        assert self.running(), f"{self.name} ended:\n{self.log_tail()}"
        with self.client(socket_timeout=1.0) as client:
            return all(client.get(f"{number}:probe") is None for number in range(20))

    def kill(self) -> None:
        super().kill()
        release_port(self.port)
        release_port(self.admin)


def topology_of(stack: Stack, proxy: ProxyServer, **sections: Any) -> dict[str, Any]:
    """shoal.yaml for servers that are there already; `sections` are added to or replace what it says."""
    some = stack.sentinels[0]
    return {
        "cluster": "trial",
        "hosts": {"here": LOOPBACK},
        "shards": {
            shard: {
                "master": f"here:{master.port}",
                "replicas": [f"here:{replica.port}" for replica in stack.replicas[shard]],
            }
            for shard, master in stack.masters.items()
        },
        "sentinel": {
            "nodes": [f"here:{sentinel.port}" for sentinel in stack.sentinels],
            "quorum": some.quorum,
            "down_after": f"{some.down_after_ms}ms",
        },
        "proxy": {
            "nodes": {PROXY: {"host": "here", "port": proxy.port, "admin": proxy.admin, "stats": free_port()}},
        },
        **sections,
    }


def start_proxy(servers: Servers, stack: Stack, **sections: Any) -> ProxyServer:
    """Start `shoal proxy` over `stack` and wait until it serves every shard."""
    directory = servers.directory / PROXY
    directory.mkdir()
    file = directory / "shoal.yaml"
    argv = [str(SHOAL), "proxy", "-f", str(file), "--node", PROXY]
    proxy = servers.adopt(ProxyServer(PROXY, argv, directory, port=free_port(), admin=free_port()))
    file.write_text(json.dumps(topology_of(stack, proxy, **sections), indent=1))  # JSON is YAML
    proxy.launch()
    wait_until(proxy.serves, 10, "the proxy to serve every shard")
    return proxy


def start_proxies(servers: Servers, stack: Stack, count: int = 2, **sections: Any) -> tuple[Path, list[ProxyServer]]:
    """Start several over one file, proxy1 and so on, and wait until each serves every shard; the file, and them."""
    directory = servers.directory / "proxies"
    directory.mkdir()
    file = directory / "shoal.yaml"
    proxies = []
    for number in range(1, count + 1):
        name = f"proxy{number}"
        argv = [str(SHOAL), "proxy", "-f", str(file), "--node", name]
        proxy = ProxyServer(name, argv, directory / name, port=free_port(), admin=free_port())
        proxies.append(servers.adopt(proxy))
    nodes = {
        proxy.name: {"host": "here", "port": proxy.port, "admin": proxy.admin, "stats": free_port()}
        for proxy in proxies
    }
    topology = topology_of(stack, proxies[0], **sections)
    topology["proxy"] = {**topology["proxy"], "nodes": nodes}
    file.write_text(json.dumps(topology, indent=1))
    for proxy in proxies:
        proxy.launch()
    for proxy in proxies:
        wait_until(proxy.serves, 10, f"{proxy.name} to serve every shard")
    return file, proxies


@dataclass
class NutcrackerProxy(ProxyServer):
    """One `shoal proxy -c nutcracker.yml`, whose file a test may write again."""

    stats: int = 0
    password: str | None = None

    @property
    def file(self) -> Path:
        return self.directory / "nutcracker.yml"

    def write(self, text: str) -> None:
        """The file's text; `{port}` stands for the port of the first pool."""
        self.file.write_text(text.format(port=self.port))

    def answers(self) -> bool:
        assert self.running(), f"{self.name} ended:\n{self.log_tail()}"
        with self.client(socket_timeout=1.0, password=self.password) as client:
            return bool(client.ping())

    def kill(self) -> None:
        super().kill()
        release_port(self.stats)


def nutcracker_proxy(servers: Servers, text: str, **options: Any) -> NutcrackerProxy:
    """A proxy over this nutcracker.yml, not started yet."""
    directory = servers.directory / "shoal"
    directory.mkdir()
    proxy = NutcrackerProxy("shoal", [], directory, port=free_port(), admin=free_port(), stats=free_port(), **options)
    proxy.argv = [str(SHOAL), "proxy", "-c", str(proxy.file)]
    proxy.argv += ["--admin", f"{LOOPBACK}:{proxy.admin}", "--stats", f"{LOOPBACK}:{proxy.stats}"]
    proxy.write(text)
    return servers.adopt(proxy)


def start_nutcracker_proxy(servers: Servers, text: str, **options: Any) -> NutcrackerProxy:
    """The same, serving."""
    proxy = nutcracker_proxy(servers, text, **options)
    proxy.launch()
    wait_until(proxy.answers, 10, "the proxy to answer")
    return proxy
