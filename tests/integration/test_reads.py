"""Leases for reads, from servers that replicate: what holds a replica up takes its lease, and nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from shoal.reads import Roster, ShardReads, Subject
from shoal.sentinel import FOREVER_NS, LeaseRule, MasterView
from shoal.staleness import ReadRule, ReplicaView
from shoal.topology import Endpoint
from shoal.watch import boot_ns
from tests.harness import LOOPBACK, free_port, link_up, wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from shoal.plane import ReadLease
    from shoal.routes import Key
    from tests.harness import RedisServer, Servers

KEY = ("pool", "a")
MAX_LAG_MS = 500
RULE = ReadRule(MAX_LAG_MS)


class Relay:
    """What a replica connects to in place of its master: passes on, or holds up, what the master says."""

    def __init__(self, master: RedisServer) -> None:
        self.port = free_port()
        self.open = asyncio.Event()
        self.open.set()
        self._master = master

    async def run(self, started: asyncio.Event) -> None:
        async with await asyncio.start_server(self._connected, LOOPBACK, self.port):
            started.set()
            await asyncio.Event().wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_master, to_master = await asyncio.open_connection(*self._master.address)
        with contextlib.closing(writer), contextlib.closing(to_master), contextlib.suppress(OSError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(from_master, writer))
                back = group.create_task(self._pass_on(reader, to_master, gated=False))
                await back
                raise ConnectionResetError

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, gated: bool = True) -> None:
        while data := await reader.read(65536):
            if gated:
                await self.open.wait()
            writer.write(data)


class Trial:
    """A master, its replica behind a relay, and who keeps the replica's lease; what it writes is kept."""

    def __init__(self, servers: Servers, master: RedisServer, replica: RedisServer) -> None:
        self.servers = servers
        self.master, self.replica = master, replica
        self.at = Endpoint(LOOPBACK, replica.port)
        self.view = MasterView("a", Endpoint(LOOPBACK, master.port), 1, lease_until_ns=FOREVER_NS)
        self.leases: list[ReadLease] = []
        self.reads = ShardReads(Subject(KEY, RULE, LeaseRule.REQUIRE, lambda: self.view), None)
        self.reads.attach(self)
        self.relay = Relay(master)
        self.roster = Roster([], [], None)
        self.roster.replicas = {"a": (self.at,)}

    # what ShardReads writes to

    def read_from(self, key: Key, master: Endpoint, replicas: Sequence[Endpoint]) -> bool:
        assert (key, list(replicas)) == (KEY, [self.at])
        return master == self.view.endpoint

    def renew_reads(self, key: Key, leases: Sequence[ReadLease], *, with_master: bool) -> None:
        assert (key, with_master) == (KEY, False)
        self.leases += leases

    # what a test asks

    def leased(self) -> bool:
        return bool(self.leases) and self.leases[-1].until_ns > boot_ns()

    @property
    def seen(self) -> ReplicaView:
        return self.reads.reading.replicas[self.at]

    async def until(self, fact: Callable[[], Any], what: str, patience: float = 5) -> None:
        loop = asyncio.get_running_loop()
        limit = loop.time() + patience
        while not fact():
            assert loop.time() < limit, f"waited for {what}; {self.reads.reading}"
            await asyncio.sleep(0.005)

    async def writing(self) -> None:
        """A write every few milliseconds, so that who is held up falls behind."""
        with self.master.client() as client:
            while True:
                client.incr("count")
                await asyncio.sleep(0.005)

    def missed_ms(self) -> float:
        """The lease's own claim: how long ago the replica was known to have everything."""
        assert self.seen.current_ns is not None
        return (boot_ns() - self.seen.current_ns) / 1e6


def run(servers: Servers, test: Callable[[Trial], Awaitable[None]]) -> None:
    """Let a test happen to a master that is written to and a replica that has a lease."""

    async def main() -> None:
        master = servers.redis("master")
        replica = servers.redis("replica")
        trial = Trial(servers, master, replica)
        started = asyncio.Event()
        tasks = [asyncio.create_task(trial.relay.run(started))]
        await started.wait()
        with replica.client() as client:
            client.replicaof(LOOPBACK, trial.relay.port)
        await asyncio.to_thread(wait_until, lambda: link_up(replica), 10, "the replica's link")
        tasks += [asyncio.create_task(work) for work in (trial.reads.run(trial.roster), trial.writing())]
        try:
            await trial.until(trial.leased, "the first lease")
            await test(trial)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_a_replica_that_follows_keeps_its_lease(servers: Servers) -> None:
    async def test(trial: Trial) -> None:
        trial.leases.clear()
        await asyncio.sleep(2 * MAX_LAG_MS / 1000)  # time in which a lease that is not renewed would end
        assert len(trial.leases) >= 8
        assert all(lease.until_ns > lease.sampled_ns for lease in trial.leases)
        assert trial.leased()
        assert trial.missed_ms() < MAX_LAG_MS

    run(servers, test)


def test_a_replica_whose_replication_is_held_up_loses_its_lease_in_time_although_its_link_is_up(
    servers: Servers,
) -> None:
    async def test(trial: Trial) -> None:
        trial.relay.open.clear()
        held_ns = boot_ns()
        await asyncio.sleep(0.02)
        with trial.master.client() as client:
            client.set("missed", "1")
        written_ns = boot_ns()
        await trial.until(lambda: not trial.leased(), "the lease to end")
        ended_ns = max(lease.until_ns for lease in trial.leases)
        assert held_ns < ended_ns <= written_ns + MAX_LAG_MS * 1_000_000
        assert link_up(trial.replica)
        await trial.until(lambda: trial.seen.why_not == "is too far behind", "the reason")
        trial.relay.open.set()
        await trial.until(trial.leased, "the lease to come back")
        with trial.replica.client() as client:
            assert client.get("missed") == b"1"

    run(servers, test)


def test_a_frozen_replica_loses_its_lease_and_gets_it_back(servers: Servers) -> None:
    async def test(trial: Trial) -> None:
        trial.replica.pause()
        await trial.until(lambda: not trial.leased(), "the lease to end", 1)
        trial.replica.resume()
        await trial.until(trial.leased, "the lease to come back")

    run(servers, test)


def test_a_master_that_nobody_vouches_for_lets_leases_run_out(servers: Servers) -> None:
    async def test(trial: Trial) -> None:
        asked_ns = boot_ns()
        trial.view = MasterView("a", trial.view.endpoint, 1, hold_reason="nobody vouches for it")
        await trial.until(lambda: not trial.leased(), "the lease to end", 1)
        assert max(lease.until_ns for lease in trial.leases) <= asked_ns + MAX_LAG_MS * 1_000_000
        await trial.until(lambda: "has no lease" in (trial.seen.why_not or ""), "the reason")

    run(servers, test)


def test_a_replica_that_loads_its_data_has_no_lease_until_it_has_caught_up(servers: Servers) -> None:
    async def test(trial: Trial) -> None:
        with trial.replica.client() as client:
            client.save()
        trial.replica.kill()
        trial.relay.open.clear()
        before_ns = boot_ns()
        await asyncio.to_thread(trial.replica.start)
        with trial.replica.client() as client:
            client.replicaof(LOOPBACK, trial.relay.port)
        await trial.until(lambda: trial.seen.why_not is not None, "it to be found without a master")
        assert not trial.leased()
        fresh = [lease for lease in trial.leases if lease.sampled_ns > before_ns]
        assert all(lease.until_ns == 0 for lease in fresh), "it has old data"
        trial.relay.open.set()
        await trial.until(trial.leased, "the lease to come back")

    run(servers, test)


def test_a_replica_of_another_master_has_no_lease(servers: Servers) -> None:
    async def test(trial: Trial) -> None:
        stranger = await asyncio.to_thread(trial.servers.redis, "stranger")
        with trial.replica.client() as client:
            client.replicaof(LOOPBACK, stranger.port)
        await trial.until(lambda: not trial.leased(), "the lease to end", MAX_LAG_MS / 1000)
        await asyncio.to_thread(wait_until, lambda: link_up(trial.replica), 10, "the replica's link")
        await trial.until(lambda: trial.seen.why_not == "does not follow this master", "the reason")
        assert not trial.leased()

    run(servers, test)


def test_a_replica_that_became_a_master_has_no_lease(servers: Servers) -> None:
    async def test(trial: Trial) -> None:
        with trial.replica.client() as client:
            client.replicaof("NO", "ONE")
        await trial.until(lambda: trial.seen.why_not == "says that it is a master", "the reason", 1)
        assert not trial.leased()

    run(servers, test)


def test_after_a_failover_the_old_master_is_the_replica(servers: Servers) -> None:
    async def test(trial: Trial) -> None:
        old, new = trial.master, trial.replica
        with new.client() as client:
            client.replicaof("NO", "ONE")
        trial.at, trial.view = trial.view.endpoint or trial.at, MasterView("a", trial.at, 2, lease_until_ns=FOREVER_NS)
        trial.roster.replicas = {"a": (trial.at,)}
        trial.master = new
        await trial.until(lambda: trial.at in trial.reads.reading.replicas, "the new replica to be known")
        await trial.until(lambda: trial.seen.why_not == "says that it is a master", "two masters to be told apart")
        with old.client() as client:
            client.replicaof(LOOPBACK, new.port)
        await trial.until(trial.leased, "its lease", 10)

    run(servers, test)


# ----------------------------------------------------------------------------------------------------------- the roster


@pytest.mark.timeout(60)
def test_the_roster_is_what_a_sentinel_that_answers_says(servers: Servers) -> None:
    stack = servers.stack(("a",), replicas=2)
    nobody = Endpoint(LOOPBACK, free_port())
    sentinels = [nobody, *(Endpoint(LOOPBACK, sentinel.port) for sentinel in stack.sentinels)]

    async def main() -> None:
        roster = Roster(sentinels, ["a"], None)
        task = asyncio.create_task(roster.run())
        async with asyncio.timeout(10):
            while not roster.replicas:  # noqa: ASYNC110  a roster is no event
                await asyncio.sleep(0.01)
        assert {at.port for at in roster.replicas["a"]} == {replica.port for replica in stack.replicas["a"]}
        stack.sentinels[0].kill()
        roster.replicas.clear()
        async with asyncio.timeout(10):
            while not roster.replicas:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())
