"""Keeps the leases of replicas that reads go to: asks masters and replicas again and again how far they are.

    sentinels   SENTINEL REPLICAS, once a second ──► who they are ─┐
    master      INFO replication, several times a `max_lag` ───────┼──► Staleness ──► routes.read_from, renew_reads
    replicas    the same ──────────────────────────────────────────┘

Rule: what a lease is made of comes from the servers themselves and is judged by `staleness`; a sentinel only says whom
to ask, so that none has to be trusted. Who does not answer holds nobody else up. Called by `steer`; nothing is written
before it is attached.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shoal.plane import ReadLease, resolve
from shoal.resp import RespConnection, why
from shoal.staleness import Reading, ReadRule, Sample, Staleness, read_position
from shoal.topology import Endpoint
from shoal.topology.values import is_address
from shoal.watch import boot_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.routes import Key
    from shoal.sentinel import LeaseRule, MasterView

LOOKS_A_LAG = 5
"""Looks within a `max_lag`: a lease that two of them have missed still holds."""
FASTEST, SLOWEST = 0.02, 1.0
ANSWER_TIMEOUT = 0.5
ROSTER_PERIOD = 1.0


class Sink(Protocol):
    """What is needed of `shoal.routes.Routes`."""

    def read_from(self, key: Key, master: Endpoint, replicas: Sequence[Endpoint]) -> bool: ...
    def renew_reads(self, key: Key, leases: Sequence[ReadLease], *, with_master: bool) -> None: ...


class Roster:
    """The replicas of some masters, as one of the sentinels that answer says: `replicas` is the last word."""

    def __init__(self, sentinels: Sequence[Endpoint], masters: Sequence[str], password: str | None) -> None:
        self.replicas: dict[str, tuple[Endpoint, ...]] = {}
        self._sentinels = tuple(sentinels)
        self._masters = tuple(masters)
        self._password = password

    async def run(self) -> None:
        """Ask, for ever, one sentinel for as long as it answers, then the next."""
        while True:
            for sentinel in self._sentinels:
                try:
                    await self._ask(sentinel)
                except (OSError, ValueError):
                    continue  # the next one is asked; who is silent, the watch says
            await asyncio.sleep(ROSTER_PERIOD)

    async def _ask(self, sentinel: Endpoint) -> None:
        with await RespConnection.open(sentinel, password=self._password, timeout=ANSWER_TIMEOUT) as connection:
            while True:
                for name in self._masters:
                    (reply,) = await connection.ask([("SENTINEL", "REPLICAS", name)], ANSWER_TIMEOUT)
                    found = [await _addressed(endpoint) for endpoint in read_replicas(reply)]
                    self.replicas[name] = tuple(endpoint for endpoint in found if endpoint is not None)
                await asyncio.sleep(ROSTER_PERIOD)


async def _addressed(endpoint: Endpoint) -> Endpoint | None:
    """The endpoint by its address: sentinels may know servers by names."""
    return endpoint if is_address(endpoint.host) else await asyncio.to_thread(resolve, endpoint)


def read_replicas(reply: object) -> list[Endpoint]:
    """The replicas that a sentinel lists; ValueError if this is no such list."""
    if not isinstance(reply, list):
        raise ValueError(f"SENTINEL REPLICAS was answered with {reply!r:.80}")
    try:
        listed = [dict(zip(item[::2], item[1::2], strict=True)) for item in reply]
        return [Endpoint(one[b"ip"].decode(), int(one[b"port"])) for one in listed]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"SENTINEL REPLICAS was answered with something else: {error}") from None


class Subject(NamedTuple):
    """A shard of a pool: the pool's rules, and the view of the shard's master, as it is when it is asked for."""

    key: Key
    rule: ReadRule
    lease: LeaseRule
    master: Callable[[], MasterView]


class ShardReads:
    """One shard of one pool. `reading` is the last decision."""

    def __init__(self, subject: Subject, password: str | None) -> None:
        self.key, rule, self._lease, self._master = subject
        self.reading = Reading()
        self._period = min(max(rule.max_lag_ms / 1000 / LOOKS_A_LAG, FASTEST), SLOWEST)
        self._password = password
        self._staleness = Staleness(rule)
        self._sink: Sink | None = None

    def attach(self, sink: Sink) -> None:
        self._sink = sink

    def detach(self) -> None:
        """Write no more; what is written runs out."""
        self._sink = None

    async def run(self, roster: Roster) -> None:
        """Ask everybody, until cancelled: each server has a task of its own, as long as it belongs to the shard."""
        asking: dict[Endpoint, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._look(roster)
                wanted = {*self._staleness.replicas}
                if self._staleness.master is not None:
                    wanted.add(self._staleness.master)
                for gone in asking.keys() - wanted:
                    asking.pop(gone).cancel()
                for server in wanted - asking.keys():
                    asking[server] = group.create_task(self._ask(server), name=f"sample {server}")
                self._decide()
                await asyncio.sleep(self._period)

    def _look(self, roster: Roster) -> None:
        """Take over what the sentinels say."""
        master, now_ns = self._master(), boot_ns()
        self._staleness.follow(master.endpoint)
        if master.lease(self._lease) > now_ns:
            self._staleness.sole(now_ns)
        self._staleness.know(roster.replicas.get(master.name, ()))

    async def _ask(self, server: Endpoint) -> None:
        while True:
            try:
                with await RespConnection.open(server, password=self._password, timeout=ANSWER_TIMEOUT) as connection:
                    while True:
                        self._take(server, await self._sample(server, connection))
                        await asyncio.sleep(self._period)
            except OSError as error:
                self._staleness.miss(server, f"does not answer: {why(error)}")
            except ValueError as error:
                self._staleness.miss(server, f"gives no answer that can be used: {error}")
            await asyncio.sleep(self._period)

    async def _sample(self, server: Endpoint, connection: RespConnection) -> Sample:
        asked_ns = boot_ns()
        (info,) = await connection.ask([("INFO", "replication")], ANSWER_TIMEOUT)
        answered_ns = boot_ns()
        if not isinstance(info, bytes):
            raise ValueError(f"{info!r:.80}")
        of_master = server == self._staleness.master
        return Sample(asked_ns, answered_ns, read_position(info, of_master=of_master))

    def _take(self, server: Endpoint, sample: Sample) -> None:
        master, now_ns = self._master(), boot_ns()
        if master.endpoint == self._staleness.master and master.lease(self._lease) > now_ns:
            self._staleness.sole(now_ns)
        self._staleness.hear(server, sample)
        self._decide()

    def _decide(self) -> None:
        """Judge anew, and pass it on."""
        self.reading = self._staleness.decide(boot_ns())
        master = self._staleness.master
        if self._sink is None or master is None:
            return
        if not self._sink.read_from(self.key, master, self._staleness.replicas):
            return
        leases = [ReadLease(at, view.sampled_ns, view.until_ns) for at, view in self.reading.replicas.items()]
        self._sink.renew_reads(self.key, leases, with_master=self.reading.with_master)
