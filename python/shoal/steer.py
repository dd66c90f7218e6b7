"""Who says where the servers of a service are, running: a watch with its follower for each set of sentinels, and
the names of servers that a file fixes, looked up again and again.

    Followed pools  ──► one Watch and Follower for each (sentinels, password) ──┐
    pools at names  ──► Names ──────────────────────────────────────────────────┴──► Routes

Rule: a steering is made for one service and never changes; a reload makes another one, lets it come to know all
masters while the old one goes on steering, and only then swaps them. Called by the daemon.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from shoal.errors import SentinelError
from shoal.follow import Follower, PoolRule, ask_role
from shoal.plane import NO_LEASE_NEEDED, resolve
from shoal.routes import Target
from shoal.sentinel import LeaseRule, Master, View
from shoal.serving import AtAddresses, Followed, ServedPool, Service
from shoal.topology import Endpoint
from shoal.topology.values import is_address
from shoal.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from shoal.log import Log
    from shoal.routes import Key, Routes
    from shoal.serving import Address

VET_LOOK = 0.02
NAMES_PERIOD = 2.0
READY_PATIENCE = 3.0
"""How long a new steering may take to know every master, which it does within half a second where there is one."""


@dataclass(frozen=True)
class Group:
    """The pools that follow the same sentinels."""

    sentinels: tuple[Endpoint, ...]
    password: str | None
    pools: tuple[PoolRule, ...]

    @property
    def rule(self) -> LeaseRule:
        """The rule that sentinels are counted by when pools differ: the strictest."""
        order = list(LeaseRule)
        return min((pool.lease for pool in self.pools), key=order.index)

    @property
    def masters(self) -> list[str]:
        return list(dict.fromkeys(name for pool in self.pools for name in pool.masters.values()))


def groups(service: Service) -> Iterator[Group]:
    """The sets of sentinels that a service follows."""
    followed = [(pool, pool.source) for pool in service.pools if isinstance(pool.source, Followed)]

    def key(pair: tuple[ServedPool, Followed]) -> tuple[list[Endpoint], str]:
        return sorted(pair[1].sentinels), pair[1].password or ""

    for _, pairs in groupby(sorted(followed, key=key), key=key):
        group = list(pairs)
        rules = tuple(PoolRule(pool.name, _known(pool, source), source.lease) for pool, source in group)
        yield Group(group[0][1].sentinels, group[0][1].password, rules)


def _known(pool: ServedPool, source: Followed) -> Mapping[str, str]:
    assert source.masters is not None, f"the servers of pool {pool.name} are tied before they are followed"  # noqa: S101
    return source.masters


class Following:
    """One group, followed."""

    def __init__(self, group: Group, log: Log) -> None:
        self.group = group
        self.follower = Follower(group.pools, lambda endpoint: ask_role(endpoint, group.password), log)
        self.watch = Watch(
            group.sentinels,
            group.masters,
            password=group.password,
            on_change=self.follower.take,
            lease=group.rule,
        )

    def trust(self, before: View) -> None:
        """Begin with the masters that an earlier watch of the same sentinels had committed."""
        for name, master in before.masters.items():
            if name in self.watch.view.masters and master.endpoint is not None:
                self.watch.confirm(name, Master(master.endpoint, master.config_epoch))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch.run(), name="watch")
            group.create_task(self.follower.run(self.watch), name="follow")

    async def vet(self) -> None:
        """Refuse sentinels that are not as the file says, where the lease needs them to be."""
        watch = self.watch
        if watch.lease is not LeaseRule.REQUIRE:
            return
        while 2 * watch.view.heard <= len(watch.sentinels):  # noqa: ASYNC110  a view is no event
            await asyncio.sleep(VET_LOOK)
        problems = watch.view.problems
        if problems:
            hint = "list every sentinel and use a majority as quorum, or say `lease: unsafe`"
            raise SentinelError(f"the lease would not be safe: {'; '.join(problems)}", hint=hint)


class Names:
    """The servers of pools that are at fixed addresses; names are looked up in a thread, as that may wait."""

    def __init__(self, pools: Mapping[str, AtAddresses], log: Log) -> None:
        self._addresses: dict[Key, Address] = {
            (pool, shard): address for pool, source in pools.items() for shard, address in source.servers.items()
        }
        self._log = log
        self._found: dict[Key, Address | None] = {
            key: address for key, address in self._addresses.items() if not _named(address)
        }

    def targets(self) -> dict[Key, Target]:
        return {key: Target(self._found.get(key), NO_LEASE_NEEDED) for key in self._addresses}

    async def look_up(self) -> bool:
        """Look every name up once; whether one has another address than before."""
        names = {key: address for key, address in self._addresses.items() if _named(address)}
        return any(await asyncio.gather(*(self._look_up(*name) for name in names.items())))

    async def _look_up(self, key: Key, address: Address) -> bool:
        """The last address is kept of a name that has none now."""
        found = await asyncio.to_thread(resolve, address) if isinstance(address, Endpoint) else address
        new, before = key not in self._found, self._found.get(key)
        self._found[key] = found or before
        if found is None and new:
            self._log.event("name_unknown", pool=key[0], shard=key[1], server=str(address))
        if found is None or found == before:
            return False
        self._log.event("name_found", pool=key[0], shard=key[1], server=str(address), address=str(found))
        return True

    async def run(self, sink: Routes) -> None:
        """Look names up again and again until cancelled."""
        while any(map(_named, self._addresses.values())):
            if await self.look_up():
                sink.put(self.targets())
            await asyncio.sleep(NAMES_PERIOD)


def _named(address: Address) -> bool:
    return isinstance(address, Endpoint) and not is_address(address.host)


class Steering:
    """All sources of one service."""

    def __init__(self, service: Service, log: Log) -> None:
        self.followings = tuple(Following(group, log) for group in groups(service))
        fixed = {pool.name: pool.source for pool in service.pools if isinstance(pool.source, AtAddresses)}
        self.names = Names(fixed, log)
        self._tasks: list[asyncio.Task[None]] = []

    def view_of(self, pool: str) -> Callable[[], View] | None:
        """What the sentinels of a pool say, as it is whenever it is asked for; None where there are none."""
        for following in self.followings:
            if any(rule.name == pool for rule in following.group.pools):
                return lambda: following.watch.view
        return None

    def targets(self) -> dict[Key, Target]:
        """All that is known now."""
        known = self.names.targets()
        for following in self.followings:
            known |= following.follower.targets()
        return known

    def trust(self, before: Steering) -> None:
        """Begin with what an earlier steering knew from the same sentinels."""
        for following in self.followings:
            for earlier in before.followings:
                if set(earlier.group.sentinels) == set(following.group.sentinels):
                    following.trust(earlier.watch.view)

    def start(self, start: Callable[[Awaitable[None], str], asyncio.Task[None]]) -> None:
        """Begin to listen to the sentinels."""
        self._tasks += [start(following.run(), "steer") for following in self.followings]

    async def ready(self, known: Mapping[Key, Target]) -> None:
        """Wait until every master is known and may be written to, as far as it takes no longer than usual.

        A shard in `known` may be without a master for now; one that is new may not: SentinelError.
        """
        await self.names.look_up()
        try:
            async with asyncio.timeout(READY_PATIENCE):
                for following in self.followings:
                    await following.vet()
                while not self._all_may_be_written():  # noqa: ASYNC110  a view is no event
                    await asyncio.sleep(VET_LOOK)
        except TimeoutError:
            for (pool, shard), target in self._followed().items():
                if target.endpoint is None and known.get((pool, shard), Target(None)).endpoint is None:
                    what = f'pool "{pool}": no majority of its sentinels names a master for shard "{shard}"'
                    raise SentinelError(what, hint="`sentinel monitor` it at all of them first") from None

    def _all_may_be_written(self) -> bool:
        return all(target.endpoint and target.lease_until_ns for target in self._followed().values())

    def _followed(self) -> dict[Key, Target]:
        return {key: target for following in self.followings for key, target in following.follower.targets().items()}

    def attach(self, sink: Routes, start: Callable[[Awaitable[None], str], asyncio.Task[None]]) -> None:
        """Write to these routes from now on; they hold what is known already."""
        for following in self.followings:
            written = {key: sink.targets[key] for key in following.follower.targets()}
            following.follower.attach(sink, written)
        self._tasks.append(start(self.names.run(sink), "names"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
