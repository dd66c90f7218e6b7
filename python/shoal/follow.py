"""Turns views into what the data plane serves: confirms new masters, applies snapshots, renews and breaks leases.

    View ──► lease changed ───────────────────────────► plane.renew            (every decision, microseconds)
         ──► a candidate ──► its ROLE says master ────► watch.confirm ──► View
         ──► a master was committed ──────────────────► plane.apply, epoch + 1 ──► all workers ack within 1 s

Rule: an endpoint goes to the data plane only after a majority of sentinels named it **and** its own ROLE said master
(`failover: strict`); a lease goes there exactly as the view has it. Called by the daemon.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shoal.journal import Journal
from shoal.plane import Route
from shoal.resp import RespConnection, why
from shoal.sentinel import LeaseRule, Master, View

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from shoal.log import Log
    from shoal.topology import Endpoint
    from shoal.watch import Watch

ROLE_TIMEOUT = 0.25
ROLE_RETRY = 0.03
ACK_LIMIT = 1.0
ACK_LOOK = 0.02


class Plane(Protocol):
    """What is needed of `shoal.plane.Plane`."""

    def apply(self, epoch: int, routes: Sequence[Route]) -> None: ...
    def acked_epoch(self) -> int: ...
    def renew(self, pool: str, shard: str, lease_until_ns: int) -> None: ...


@dataclass(frozen=True, slots=True)
class PoolRule:
    """A pool as far as routes and leases go."""

    name: str
    shards: tuple[str, ...]
    lease: LeaseRule


async def ask_role(endpoint: Endpoint, password: str | None) -> str:
    """The role that a server says it has ("master", "slave"), or why it does not say so."""
    try:
        with await RespConnection.open(endpoint, password=password, timeout=ROLE_TIMEOUT) as connection:
            (reply,) = await connection.ask([("ROLE",)], ROLE_TIMEOUT)
    except OSError as error:
        return why(error)
    return reply[0].decode() if isinstance(reply, list) and isinstance(reply[0], bytes) else "something else"


class Follower:
    """Keeps one plane in step with one watch. `take` is the watch's `on_change`."""

    def __init__(
        self, plane: Plane, pools: Sequence[PoolRule], role_of: Callable[[Endpoint], Awaitable[str]], log: Log
    ) -> None:
        self.epoch = 0
        """Of the last snapshot; workers say by themselves which one they serve."""
        self.view: View | None = None
        self._plane = plane
        self._pools = tuple(pools)
        self._role_of = role_of
        self._log = log
        self._journal = Journal(log)
        self._committed: dict[str, Master] = {}
        self._leases: dict[tuple[str, str], int] = {}
        self._named = {shard: asyncio.Event() for pool in pools for shard in pool.shards}
        self._applied = asyncio.Event()

    def take(self, view: View) -> None:
        """Bring the plane in step with a view."""
        self.view = view
        committed = {m.name: Master(m.endpoint, m.config_epoch) for m in view.masters.values() if m.endpoint}
        if committed != self._committed:
            self._apply(view, committed)
        else:
            self._renew(view)
        for master in view.masters.values():
            if master.candidate is not None:
                self._named[master.name].set()
        self._journal.take(view)

    async def run(self, watch: Watch) -> None:
        """Confirm candidates and watch acks until cancelled."""
        async with asyncio.TaskGroup() as group:
            for shard, named in self._named.items():
                group.create_task(self._confirm(watch, shard, named), name=f"confirm {shard}")
            group.create_task(self._watch_acks(), name="watch acks")

    # ------------------------------------------------------------------------------------------------ to the plane

    def _apply(self, view: View, committed: dict[str, Master]) -> None:
        self.epoch += 1
        routes = [
            Route(pool.name, shard, view.masters[shard].endpoint, view.masters[shard].lease(pool.lease))
            for pool in self._pools
            for shard in pool.shards
        ]
        self._plane.apply(self.epoch, routes)
        self._leases = {(route.pool, route.shard): route.lease_until_ns for route in routes}
        before, self._committed = self._committed, committed
        for shard, master in committed.items():
            if master != before.get(shard):
                old = before.get(shard)
                self._log.event(
                    "master_committed",
                    shard=shard,
                    endpoint=str(master.endpoint),
                    config_epoch=master.config_epoch,
                    epoch=self.epoch,
                    instead_of=None if old is None else str(old.endpoint),
                )
        self._applied.set()

    def _renew(self, view: View) -> None:
        if not self.epoch:
            return
        for pool in self._pools:
            for shard in pool.shards:
                lease = view.masters[shard].lease(pool.lease)
                if lease != self._leases[pool.name, shard]:
                    self._leases[pool.name, shard] = lease
                    self._plane.renew(pool.name, shard, lease)

    # ------------------------------------------------------------------------------------------------ tasks

    async def _confirm(self, watch: Watch, shard: str, named: asyncio.Event) -> None:
        """Ask a named master for its ROLE, again and again while it is named and says something else."""
        said: tuple[Master, str] | None = None
        while True:
            await named.wait()
            candidate = watch.view.masters[shard].candidate
            if candidate is None:
                named.clear()
                continue
            role = await self._role_of(candidate.endpoint)
            if candidate != watch.view.masters[shard].candidate:
                continue  # while we asked, the sentinels changed their mind
            if role == "master":
                watch.confirm(shard, candidate)
                continue
            if said != (candidate, role):
                said = (candidate, role)
                self._log.event("master_unconfirmed", shard=shard, endpoint=str(candidate.endpoint), role=role)
            await asyncio.sleep(ROLE_RETRY)

    async def _watch_acks(self) -> None:
        """Say so when a worker does not take a snapshot over."""
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
