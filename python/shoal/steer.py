"""Who says where the servers of a service are, running: a watch with its follower for each set of sentinels, and
the names of servers that a file fixes, looked up again and again.

    Followed pools  ──► one Watch and Follower for each (sentinels, password) ──┤
                        and a ShardReads for each shard read from replicas ─────┤
    pools at names  ──► Names ──────────────────────────────────────────────────┴──► Routes

Rule: a steering is made for one service and never changes; a reload makes another one, lets it come to know all
masters while the old one goes on steering, and only then swaps them. Called by the daemon.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from shoal.errors import SentinelError
from shoal.follow import Follower, PoolRule, role_or_why
from shoal.holds import Committed
from shoal.plane import NO_LEASE_NEEDED, resolve
from shoal.reads import Roster, ShardReads, Subject
from shoal.routes import Target
from shoal.sentinel import LeaseRule, Master, MasterView, View
from shoal.serving import AtAddresses, Followed, ServedPool, Service
from shoal.topology import Endpoint
from shoal.topology.values import is_address
from shoal.watch import Watch, boot_ns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from shoal.log import Log
    from shoal.routes import Key, Routes
    from shoal.serving import Address
    from shoal.staleness import Reading

VET_LOOK = 0.02
NAMES_PERIOD = 2.0
READY_PATIENCE = 3.0
"""How long a new steering may take to know every master, which it does within half a second where there is one."""


@dataclass(frozen=True)
class Group:
    """The pools that follow the same sentinels."""

    sentinels: tuple[Endpoint, ...]
    password: str | None = field(repr=False)
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
        rules = tuple(PoolRule(pool.name, _known(pool, source), source.lease, source.reads) for pool, source in group)
        yield Group(group[0][1].sentinels, group[0][1].password, rules)


def _known(pool: ServedPool, source: Followed) -> Mapping[str, str]:
    assert source.masters is not None, f"the servers of pool {pool.name} are tied before they are followed"  # noqa: S101
    return source.masters


class Following:
    """One group, followed."""

    def __init__(self, group: Group, log: Log) -> None:
        self.group = group
        self.follower = Follower(group.pools, lambda endpoint: role_or_why(endpoint, group.password), log)
        self.watch = Watch(
            group.sentinels,
            group.masters,
            password=group.password,
            on_change=self.follower.take,
            lease=group.rule,
        )
        self.reads = {subject.key: ShardReads(subject, group.password) for subject in self._read_subjects()}
        names = dict.fromkeys(pool.masters[shard] for pool in group.pools for shard in pool.masters if pool.reads)
        self._roster = Roster(group.sentinels, tuple(names), group.password)

    def _read_subjects(self) -> Iterator[Subject]:
        """Every shard whose replicas are read from."""
        for pool in self.group.pools:
            for shard, name in pool.masters.items():
                if pool.reads is not None:
                    master = partial(self._master, name)
                    yield Subject((pool.name, shard), pool.reads, pool.lease, master)

    def _master(self, name: str) -> MasterView:
        return self.watch.view.masters[name]

    def attach(self, sink: Routes) -> None:
        """Write to these routes from now on; they hold what is known already."""
        self.follower.attach(sink, {key: sink.targets[key] for key in self.follower.targets()})
        for reads in self.reads.values():
            reads.attach(sink)

    def detach(self) -> None:
        """Write no more."""
        self.follower.detach()
        for reads in self.reads.values():
            reads.detach()

    def trust(self, earlier: Following) -> None:
        """Know at least what an earlier watch of some of the same sentinels has committed."""
        if not set(earlier.group.sentinels) & set(self.group.sentinels):
            return
        for name, master in earlier.watch.view.masters.items():
            mine = self.watch.view.masters.get(name)
            if mine is not None and master.endpoint is not None and master.config_epoch > mine.config_epoch:
                self.watch.confirm(name, Master(master.endpoint, master.config_epoch))

    def has_heard(self, earlier: Following) -> bool:
        """Whether every sentinel that the earlier watch reaches has answered this one too: what it knows of a
        failover must not be forgotten."""
        mine = self.watch.view.sentinels
        reached = [at for at, sentinel in earlier.watch.view.sentinels.items() if sentinel.reachable and at in mine]
        return all(mine[at].last_seen_ns is not None for at in reached)

    def may_be_written(self) -> bool:
        """Whether every master is known and has a lease."""
        targets = self.follower.targets()
        return bool(targets) and all(target.endpoint and target.lease_until_ns for target in targets.values())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch.run(), name="watch")
            group.create_task(self.follower.run(self.watch), name="follow")
            if self.reads:
                group.create_task(self._roster.run(), name="roster")
            for reads in self.reads.values():
                group.create_task(reads.run(self._roster), name=f"reads {reads.key}")

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
        self._sink: Routes | None = None

    def trust(self, earlier: Names) -> None:
        """Begin with the addresses that an earlier look-up has found for the same names."""
        for key, address in self._addresses.items():
            if key not in self._found and earlier._addresses.get(key) == address:
                self._found[key] = earlier._found.get(key)

    def targets(self) -> dict[Key, Target]:
        return {key: Target(self._found.get(key), NO_LEASE_NEEDED) for key in self._addresses}

    async def look_up(self) -> bool:
        """Look every name up once; whether one has another address than before."""
        names = {key: address for key, address in self._addresses.items() if _named(address)}
        return any(await asyncio.gather(*(self._look_up(*name) for name in names.items())))

    async def _look_up(self, key: Key, address: Address) -> bool:
        """The last address is kept of a name that has none now."""
        new, before = key not in self._found, self._found.get(key)
        kept = before if isinstance(before, Endpoint) else None
        found = await asyncio.to_thread(resolve, address, kept) if isinstance(address, Endpoint) else address
        self._found[key] = found or before
        if found is None and new:
            self._log.event("name_unknown", pool=key[0], shard=key[1], server=str(address))
        if found is None or found == before:
            return False
        self._log.event("name_found", pool=key[0], shard=key[1], server=str(address), address=str(found))
        return True

    async def run(self, sink: Routes) -> None:
        """Look names up again and again, until cancelled or detached."""
        self._sink = sink
        while any(map(_named, self._addresses.values())):
            if await self.look_up() and self._sink is not None:
                self._sink.put(self.targets())
            await asyncio.sleep(NAMES_PERIOD)

    def detach(self) -> None:
        """Write no more: another look-up does."""
        self._sink = None


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

    def reading_of(self, pool: str, shard: str) -> Reading | None:
        """Who reads of a shard go to; None where they go to the master."""
        for following in self.followings:
            if (reads := following.reads.get((pool, shard))) is not None:
                return reads.reading
        return None

    def committed(self, master: str) -> Committed | None:
        """Where one of the sentinels' masters is committed to be; None if it is not, or two sets of sentinels have
        masters of that name."""
        having = [one for one in self.followings if master in one.group.masters]
        if len(having) != 1:
            return None
        endpoint = having[0].watch.view.masters[master].endpoint
        return endpoint and Committed(endpoint, having[0].group.password)

    def targets(self) -> dict[Key, Target]:
        """All that is known now."""
        known = self.names.targets()
        for following in self.followings:
            known |= following.follower.targets()
        return known

    def trust(self, before: Steering) -> None:
        """Know at least what an earlier steering knows."""
        self.names.trust(before.names)
        for following in self.followings:
            for earlier in before.followings:
                following.trust(earlier)

    def start(self, start: Callable[[Awaitable[None], str], asyncio.Task[None]]) -> None:
        """Begin to listen to the sentinels."""
        self._tasks += [start(following.run(), "steer") for following in self.followings]

    async def ready(self, before: Steering, served: Mapping[Key, Target]) -> None:
        """Wait until this knows all that the steering before it does, and every master may be written to.

        A shard that cannot be written to now, by `served`, need not be so yet; anything else is a SentinelError.
        """
        try:
            async with asyncio.timeout(READY_PATIENCE):
                await self.names.look_up()
                for following in self.followings:
                    await following.vet()
                while not self._knows_enough(before):  # noqa: ASYNC110  a view is no event
                    await asyncio.sleep(VET_LOOK)
        except TimeoutError:
            self._refuse_to_lose(before, served)

    def _knows_enough(self, before: Steering) -> bool:
        heard = all(mine.has_heard(earlier) for mine in self.followings for earlier in before.followings)
        return heard and all(following.may_be_written() for following in self.followings)

    def _refuse_to_lose(self, before: Steering, served: Mapping[Key, Target]) -> None:
        """Say what would be worse than before; nothing, if some master is just not there."""
        now_ns = boot_ns()
        for following in self.followings:
            watch = following.watch
            silent = [str(at) for at, sentinel in watch.view.sentinels.items() if sentinel.last_seen_ns is None]
            if 2 * len(silent) >= len(watch.sentinels):
                what = f"no majority of the sentinels answers: {', '.join(silent)} do not"
                raise SentinelError(what, hint="see that their addresses are right and that they are up")
            if not all(following.has_heard(earlier) for earlier in before.followings):
                raise SentinelError(f"{', '.join(silent)} did not answer in time", hint="try again in a moment")
            for pool in following.group.pools:
                for shard, name in pool.masters.items():
                    was = served.get((pool.name, shard))
                    if watch.view.masters[name].lease(pool.lease) > now_ns or (was and was.lease_until_ns <= now_ns):
                        continue
                    what = f'pool "{pool.name}" shard "{shard}": {watch.view.masters[name].hold_reason}'
                    raise SentinelError(what, hint="the sentinels must watch it, and vouch for its master")

    def attach(self, sink: Routes, start: Callable[[Awaitable[None], str], asyncio.Task[None]]) -> None:
        """Write to these routes from now on; they hold what is known already."""
        for following in self.followings:
            following.attach(sink)
        self._tasks.append(start(self.names.run(sink), "names"))

    def detach(self) -> None:
        """Write no more."""
        for following in self.followings:
            following.detach()
        self.names.detach()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
