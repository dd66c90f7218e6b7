"""A data plane in a process of its own, steered over a pipe: what the proxy tests put between client and server.

Owns: `PlaneHost`, the handle of one such process; its program is plane_child.py.
Rule: a crash of the data plane ends the child, never the test run.
Used by: tests/integration/conftest.py, and tests that need other settings than its `proxy`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis

from tests.harness import LOOPBACK, Process, RedisServer, free_port, release_port
from tests.plane_child import NO_LEASE_NEEDED, POOL

if TYPE_CHECKING:
    from collections.abc import Mapping

CHILD = Path(__file__).with_name("plane_child.py")


@dataclass
class PlaneHost(Process):
    """One pool over `servers` (shard -> server), served by a child process; routes are given at once."""

    servers: Mapping[str, RedisServer] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 1
    port: int = field(default_factory=free_port)
    epoch: int = 0

    @property
    def address(self) -> tuple[str, int]:
        return (LOOPBACK, self.port)

    def start(self, *, routed: bool = True) -> Self:
        self.argv = [sys.executable, str(CHILD)]
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(list(self.argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        shards = [{"name": name, "weight": 1} for name in self.servers]
        pool = {"name": POOL, "listen": f"{LOOPBACK}:{self.port}", "shards": shards, **self.settings}
        self.ask(start={"pools": [pool], "workers": self.workers})
        if routed:
            self.route_all()
        return self

    def ask(self, **request: Any) -> Any:
        """One request to the child and its answer; an error there is one here."""
        assert self.child is not None
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps(request).encode() + b"\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        assert line, f"the data plane's process ended:\n{self.log_tail()}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def route_all(self) -> None:
        self.route({shard: server.port for shard, server in self.servers.items()})

    def route(self, ports: Mapping[str, int | None], *, leases: Mapping[str, int] | None = None) -> None:
        """Apply a snapshot (None: no endpoint) and wait until every worker has it."""
        self.epoch += 1
        routes = [
            {"shard": shard, "port": port, "lease": (leases or {}).get(shard, NO_LEASE_NEEDED)}
            for shard, port in ports.items()
        ]
        self.ask(apply={"epoch": self.epoch, "routes": routes})

    def break_lease(self, shard: str) -> None:
        self.ask(renew={"shard": shard, "lease": 0})

    def give_lease(self, shard: str) -> None:
        self.ask(renew={"shard": shard, "lease": NO_LEASE_NEEDED})

    def stats(self) -> Any:
        return self.ask(stats={})

    def shard_stats(self, shard: str) -> Any:
        return self.stats()["pools"][POOL]["shards"][shard]

    def client(self, **options: Any) -> redis.Redis:
        options.setdefault("socket_timeout", 10.0)
        return redis.Redis(host=LOOPBACK, port=self.port, **options)

    def kill(self) -> None:
        super().kill()
        if self.child is not None:
            for pipe in (self.child.stdin, self.child.stdout):
                if pipe is not None:
                    pipe.close()
        release_port(self.port)
