"""The program that `PlaneHost` runs: a `Plane`, and nothing else, steered by JSON lines on standard input.

Rule: one line in, one line out. No sentinel, and no lease unless the test asks for one.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from shoal.plane import ModuleCommand, Plane, PoolSpec, ReadLease, Route, ShardSpec
from shoal.topology import Endpoint

NO_LEASE_NEEDED = 2**63 - 1
POOL = "main"
DEFAULTS = {
    "hash": "fnv1a_64",
    "distribution": "ketama",
    "hash_tag": "{}",
    "password": None,
    "backend_password": None,
    "hold_timeout_ms": 4000,
    "hold_bytes": 64 << 20,
    "timeout_ms": 0,
    "client_connections": 0,
}


class _Child:
    """Carries out what the handle asks for."""

    def start(self, pools: list[dict[str, Any]], workers: int) -> None:
        specs = [
            PoolSpec(
                **{
                    **DEFAULTS,
                    **pool,
                    "shards": tuple(ShardSpec(**shard) for shard in pool["shards"]),
                    "modules": tuple(ModuleCommand(**module) for module in pool.get("modules", ())),
                }
            )
            for pool in pools
        ]
        self.plane = Plane(specs, workers)
        self.plane.start()

    def apply(self, epoch: int, routes: list[dict[str, Any]]) -> None:
        self.plane.apply(
            epoch,
            [
                Route(POOL, one["shard"], one["port"] and Endpoint("127.0.0.1", one["port"]), one["lease"])
                for one in routes
            ],
        )
        deadline = time.monotonic() + 5
        while self.plane.acked_epoch() < epoch:
            if time.monotonic() > deadline:
                message = f"the workers did not take epoch {epoch} within 5 s"
                raise TimeoutError(message)
            time.sleep(0.001)

    def renew(self, shard: str, lease: int) -> None:
        self.plane.renew(POOL, shard, lease)

    def read_from(self, epoch: int, shard: str, ports: list[int]) -> None:
        self.plane.read_from(epoch, POOL, shard, [Endpoint("127.0.0.1", port) for port in ports])

    def renew_reads(self, shard: str, leases: list[tuple[int, int, int]], with_master: bool) -> None:
        rows = [ReadLease(Endpoint("127.0.0.1", port), sampled, until) for port, sampled, until in leases]
        self.plane.renew_reads(POOL, shard, rows, with_master=with_master)

    def stats(self) -> Any:
        return self.plane.stats()

    def stop(self, drain_ms: int) -> None:
        self.plane.stop(drain_ms)


def _serve() -> None:
    child = _Child()
    for line in sys.stdin:
        ((name, arguments),) = json.loads(line).items()
        try:
            answer = {"result": getattr(child, name)(**arguments)}
        except Exception as error:  # noqa: BLE001 - the outermost guard of this process: the test shows it
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
