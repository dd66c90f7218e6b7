"""The one table of where each shard's requests go, as the data plane has it.

    followers, names ──► put (new endpoints: a snapshot, epoch + 1) ──┐
                     ──► renew (a lease, microseconds)  ──────────────┤
    reads            ──► read_from (who is read from, epoch + 1) ─────┼──► plane ──► all workers ack within 1 s
                     ──► renew_reads (their leases) ──────────────────┤
    a reload         ──► replace (other pools, epoch + 1) ────────────┤
    an operator      ──► hold, hand_over, let_go (epoch + 1) ─────────┘

Rule: several sources write to it, each its own shards; a snapshot is always the whole table. `targets` is what they
say; what a hold takes away from that, and where a hand-over points meanwhile, is seen only when it is served, so that
its end needs nobody to say anything again. Called by `steer`, by `holds`, and by the daemon at a reload.
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


class HandOver(NamedTuple):
    """Where a master's requests go until the sentinels name it there, and until when writes may at the latest."""

    endpoint: Endpoint
    until_ns: int
    instead_of: Mapping[Key, Endpoint | UnixSocket | None]

    def serve(self, key: Key, target: Target) -> Target:
        """The target in its place: sentinels that have moved on since are right."""
        if target.endpoint == self.endpoint:
            return target._replace(lease_until_ns=max(target.lease_until_ns, self.until_ns))
        return Target(self.endpoint, self.until_ns) if target.endpoint == self.instead_of.get(key) else target


class Readers(NamedTuple):
    """Whom reads of a shard may go to besides this master."""

    master: Endpoint
    replicas: tuple[Endpoint, ...]


class Routes:
    """Every shard of every pool with its target; a shard that nobody has spoken of yet has none, and is held.

    `masters` is Sentinel's name of the master behind each shard that is followed.
    """

    def __init__(self, plane: Plane, keys: Iterable[Key], log: Log, masters: Mapping[Key, str] | None = None) -> None:
        self.epoch = 0
        """Of the last snapshot; workers say by themselves which one they serve."""
        self.targets = dict.fromkeys(keys, Target(None))
        self._masters = masters or {}
        self._held: set[str] = set()
        self._handed: dict[str, HandOver] = {}
        self._plane = plane
        self._log = log
        self._applied = asyncio.Event()
        self._readers: dict[Key, Readers] = {}

    def put(self, targets: Mapping[Key, Target]) -> int:
        """Make these part of the table and serve it; gives its epoch."""
        self.targets |= targets
        self._forget_hand_overs()
        for key, readers in list(self._readers.items()):
            if self._served(key).endpoint != readers.master:
                del self._readers[key]  # the workers drop them with their master
        self.epoch += 1
        self._plane.apply(self.epoch, self._rows())
        self._applied.set()
        return self.epoch

    def renew(self, key: Key, lease_until_ns: int) -> None:
        """Extend a lease, or end it (0)."""
        self.targets[key] = self.targets[key]._replace(lease_until_ns=lease_until_ns)
        self._forget_hand_overs()
        if self.epoch:
            self._plane.renew(*key, self._served(key).lease_until_ns)

    def read_from(self, key: Key, master: Endpoint, replicas: Sequence[Endpoint]) -> bool:
        """Let reads of a shard go to these replicas of its master; False if that is not its master."""
        if self._served(key).endpoint != master:
            return False
        readers = Readers(master, tuple(replicas))
        if self._readers.get(key, Readers(master, ())) != readers:
            self._plane.read_from(self.epoch + 1, *key, replicas)
            self._readers[key] = readers
            self.epoch += 1
            self._applied.set()
        return True

    def renew_reads(self, key: Key, leases: Sequence[ReadLease], *, with_master: bool) -> None:
        """Set leases of replicas, and whether the master takes a share of the reads."""
        self._plane.renew_reads(*key, leases, with_master=with_master)

    def replace(self, pools: Sequence[PoolSpec], targets: Mapping[Key, Target], masters: Mapping[Key, str]) -> None:
        """Serve other pools with this table in place of the old one; if that raises, nothing has changed."""
        before = self.targets, self._masters
        self.targets, self._masters = dict(targets), masters
        try:
            self._plane.reload(pools, self.epoch + 1, self._rows())
        except BaseException:
            self.targets, self._masters = before
            raise
        self._readers.clear()  # whoever is read from is said anew
        self.epoch += 1
        self._applied.set()

    # ------------------------------------------------------------------------------------------------ holds

    def keys_of(self, name: str) -> list[Key]:
        """The shards that are behind this master of the sentinels."""
        return [key for key, master in self._masters.items() if master == name]

    def hold(self, name: str) -> int:
        """Give a master's shards no lease from now on; gives the epoch that workers ack when they know."""
        self._held.add(name)
        return self.put({})

    def let_go(self, name: str) -> None:
        """Give them the leases again that they have."""
        self._held.discard(name)
        self.put({})

    def hand_over(self, name: str, endpoint: Endpoint, until_ns: int) -> None:
        """Have a master's requests go there; from `until_ns` on, where the sentinels say."""
        instead_of = {key: self.targets[key].endpoint for key in self.keys_of(name)}
        self._handed[name] = HandOver(endpoint, until_ns, instead_of)
        self.put({})

    def end_hand_over(self, name: str, until_ns: int) -> None:
        """Have them go where the sentinels say, if this hand-over is the last one."""
        handed = self._handed.get(name)
        if handed is not None and handed.until_ns == until_ns:
            del self._handed[name]
            self.put({})

    def _forget_hand_overs(self) -> None:
        """Sentinels that vouch for the new master are listened to again, also when they cease to."""
        for name, handed in list(self._handed.items()):
            targets = (self.targets[key] for key in self.keys_of(name))
            if all(target.endpoint == handed.endpoint and target.lease_until_ns for target in targets):
                del self._handed[name]

    def _served(self, key: Key) -> Target:
        target, name = self.targets[key], self._masters.get(key, "")
        if (handed := self._handed.get(name)) is not None:
            target = handed.serve(key, target)
        return target._replace(lease_until_ns=0) if name in self._held else target

    def _rows(self) -> list[Route]:
        return [Route(pool, shard, *self._served((pool, shard))) for pool, shard in self.targets]

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
