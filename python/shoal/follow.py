"""Turns views into routes: confirms new masters, and passes on where they are and what leases they have.

    View ──► lease changed ───────────────────────────► routes.renew           (every decision, microseconds)
         ──► a candidate ──► its ROLE says master ────► watch.confirm ──► View
         ──► a master was committed ──────────────────► routes.put

Rule: an endpoint becomes a route only after a majority of sentinels named it **and** its own ROLE said master
(`failover: strict`); a lease is passed on exactly as the view has it. Called by `steer`; a follower that has no routes
to write to yet only prepares what it would write.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shoal.journal import Journal
from shoal.resp import why
from shoal.role import ask_role
from shoal.routes import Target
from shoal.sentinel import LeaseRule, Master, View

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from shoal.log import Log
    from shoal.routes import Key
    from shoal.staleness import ReadRule
    from shoal.topology import Endpoint
    from shoal.watch import Watch

ROLE_RETRY = 0.03


class Sink(Protocol):
    """What is needed of `shoal.routes.Routes`."""

    def put(self, targets: Mapping[Key, Target]) -> int: ...
    def renew(self, key: Key, lease_until_ns: int) -> None: ...


@dataclass(frozen=True)
class PoolRule:
    """A pool as far as routes and leases go: Sentinel's name of each shard's master, by the shard's name.

    Without `reads`, reads go to the masters.
    """

    name: str
    masters: Mapping[str, str]
    lease: LeaseRule
    reads: ReadRule | None = None


async def role_or_why(endpoint: Endpoint, password: str | None) -> str:
    """The role that a server says it has ("master", "slave"), or why it does not say so."""
    try:
        return (await ask_role(endpoint, password)).name
    except OSError as error:
        return why(error)


class Follower:
    """Keeps routes in step with one watch. `take` is the watch's `on_change`."""

    def __init__(
        self,
        pools: Sequence[PoolRule],
        role_of: Callable[[Endpoint], Awaitable[str]],
        log: Log,
        sink: Sink | None = None,
    ) -> None:
        self.view: View | None = None
        self._pools = tuple(pools)
        self._role_of = role_of
        self._log = log
        self._sink = sink
        self._journal = Journal(log)
        self._committed: dict[str, Master] = {}
        self._written: dict[Key, int] = {}
        self._named = {master: asyncio.Event() for pool in pools for master in pool.masters.values()}

    def take(self, view: View) -> None:
        """Bring the routes in step with a view."""
        self.view = view
        if self._sink is not None:
            self._write(self._sink, view)
        for master in view.masters.values():
            if master.candidate is not None:
                self._named[master.name].set()
        self._journal.take(view)

    def targets(self) -> dict[Key, Target]:
        """What the routes of its shards are by the last view; nothing before the first."""
        if self.view is None:
            return {}
        return {
            (pool.name, shard): Target(self.view.masters[name].endpoint, self.view.masters[name].lease(pool.lease))
            for pool in self._pools
            for shard, name in pool.masters.items()
        }

    def detach(self) -> None:
        """Write no more: another follower does."""
        self._sink = None

    def attach(self, sink: Sink, written: Mapping[Key, Target]) -> None:
        """Write to these routes from now on. What they hold of its shards already is `written`."""
        self._sink = sink
        if self.view is not None:
            self._committed = _committed(self.view)
        self._written = {key: target.lease_until_ns for key, target in written.items()}

    async def run(self, watch: Watch) -> None:
        """Confirm candidates until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, named in self._named.items():
                group.create_task(self._confirm(watch, name, named), name=f"confirm {name}")

    # ------------------------------------------------------------------------------------------------ to the routes

    def _write(self, sink: Sink, view: View) -> None:
        committed = _committed(view)
        targets = self.targets()
        if committed == self._committed:
            for key, target in targets.items():
                if self._written and target.lease_until_ns != self._written[key]:
                    self._written[key] = target.lease_until_ns
                    sink.renew(key, target.lease_until_ns)
            return
        # a shard whose master is not known yet stays where it was
        epoch = sink.put({key: target for key, target in targets.items() if target.endpoint is not None})
        self._written = {key: target.lease_until_ns for key, target in targets.items()}
        before, self._committed = self._committed, committed
        for name, master in committed.items():
            old = before.get(name)
            if master != old:
                self._log.event(
                    "master_committed",
                    shard=name,
                    endpoint=str(master.endpoint),
                    config_epoch=master.config_epoch,
                    epoch=epoch,
                    instead_of=None if old is None else str(old.endpoint),
                )

    # ------------------------------------------------------------------------------------------------ tasks

    async def _confirm(self, watch: Watch, name: str, named: asyncio.Event) -> None:
        """Ask a named master for its ROLE, again and again while it is named and says something else."""
        said: tuple[Master, str] | None = None
        while True:
            await named.wait()
            candidate = watch.view.masters[name].candidate
            if candidate is None:
                named.clear()
                continue
            role = await self._role_of(candidate.endpoint)
            if candidate != watch.view.masters[name].candidate:
                continue  # while we asked, the sentinels changed their mind
            if role == "master":
                watch.confirm(name, candidate)
                continue
            if said != (candidate, role):
                said = (candidate, role)
                self._log.event("master_unconfirmed", shard=name, endpoint=str(candidate.endpoint), role=role)
            await asyncio.sleep(ROLE_RETRY)


def _committed(view: View) -> dict[str, Master]:
    return {m.name: Master(m.endpoint, m.config_epoch) for m in view.masters.values() if m.endpoint}
