"""The one table of where each shard's requests go, as the data plane has it.

    followers, names ──► put (new endpoints: a snapshot, epoch + 1) ──┐
                     ──► renew (a lease, microseconds)  ──────────────┤
    reads            ──► read_from (who is read from, epoch + 1) ─────┼──► plane ──► all workers ack within 1 s
                     ──► renew_reads (their leases) ──────────────────┤
    a reload         ──► replace (other pools, epoch + 1) ────────────┘

Rule: several sources write to it, each its own shards; a snapshot is always the whole table. Called by `steer`, and
by the daemon at a reload.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shoal.plane import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shoal.log import Log
    from shoal.plane import PoolSpec, ReadLease
    from shoal.topology import Endpoint, UnixSocket

ACK_LIMIT = 1.0
ACK_LOOK = 0.02

Key = tuple[str, str]
"""A pool's name and a shard's in it."""


class Target(NamedTuple):
    """Where a shard's requests go, and until when writes may (CLOCK_BOOTTIME, ns; 0 is no lease)."""

    endpoint: Endpoint | UnixSocket | None
    lease_until_ns: int = 0


class Plane(Protocol):
    """What is needed of `shoal.plane.Plane`."""

    def apply(self, epoch: int, routes: Sequence[Route]) -> None: ...
    def reload(self, pools: Sequence[PoolSpec], epoch: int, routes: Sequence[Route]) -> None: ...
    def acked_epoch(self) -> int: ...
    def renew(self, pool: str, shard: str, lease_until_ns: int) -> None: ...
    def read_from(self, epoch: int, pool: str, shard: str, replicas: Sequence[Endpoint]) -> None: ...
    def renew_reads(self, pool: str, shard: str, leases: Sequence[ReadLease], *, with_master: bool) -> None: ...


class Routes:
    """Every shard of every pool with its target; a shard that nobody has spoken of yet has none, and is held."""

    def __init__(self, plane: Plane, keys: Iterable[Key], log: Log) -> None:
        self.epoch = 0
        """Of the last snapshot; workers say by themselves which one they serve."""
        self.targets = dict.fromkeys(keys, Target(None))
        self._plane = plane
        self._log = log
        self._applied = asyncio.Event()
        self._readers: dict[Key, tuple[Endpoint, ...]] = {}

    def put(self, targets: Mapping[Key, Target]) -> int:
        """Make these part of the table and serve it; gives its epoch."""
        for key, target in targets.items():
            if target.endpoint != self.targets[key].endpoint:
                self._readers.pop(key, None)
        self.targets |= targets
        self.epoch += 1
        self._plane.apply(self.epoch, self._rows())
        self._applied.set()
        return self.epoch

    def renew(self, key: Key, lease_until_ns: int) -> None:
        """Extend a lease, or end it (0)."""
        self.targets[key] = self.targets[key]._replace(lease_until_ns=lease_until_ns)
        if self.epoch:
            self._plane.renew(*key, lease_until_ns)

    def read_from(self, key: Key, master: Endpoint, replicas: Sequence[Endpoint]) -> bool:
        """Let reads of a shard go to these replicas of its master; False if that is not its master."""
        if self.targets[key].endpoint != master:
            return False
        if self._readers.get(key, ()) != tuple(replicas):
            self._plane.read_from(self.epoch + 1, *key, replicas)
            self._readers[key] = tuple(replicas)
            self.epoch += 1
            self._applied.set()
        return True

    def renew_reads(self, key: Key, leases: Sequence[ReadLease], *, with_master: bool) -> None:
        """Set leases of replicas, and whether the master takes a share of the reads."""
        self._plane.renew_reads(*key, leases, with_master=with_master)

    def replace(self, pools: Sequence[PoolSpec], targets: Mapping[Key, Target]) -> None:
        """Serve other pools with this table in place of the old one; if that raises, nothing has changed."""
        before, self.targets = self.targets, dict(targets)
        try:
            self._plane.reload(pools, self.epoch + 1, self._rows())
        except BaseException:
            self.targets = before
            raise
        self._readers.clear()  # whoever is read from is said anew
        self.epoch += 1
        self._applied.set()

    def _rows(self) -> list[Route]:
        return [Route(pool, shard, *target) for (pool, shard), target in self.targets.items()]

    async def watch_acks(self) -> None:
        """Say so, until cancelled, when a worker does not take a snapshot over."""
        loop = asyncio.get_running_loop()
        while True:
            await self._applied.wait()
            self._applied.clear()
            epoch, limit = self.epoch, loop.time() + ACK_LIMIT
            while self._plane.acked_epoch() < epoch and loop.time() < limit:  # noqa: ASYNC110  workers are threads
                await asyncio.sleep(ACK_LOOK)
            acked = self._plane.acked_epoch()
            if acked < epoch:
                self._log.event("epoch_not_acked", epoch=epoch, acked=acked)
            else:
                self._log.event("epoch_applied", epoch=epoch)
