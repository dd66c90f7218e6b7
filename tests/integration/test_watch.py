"""The watch on real sentinels: leases that hold, failovers that are followed, sentinels that are lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from shoal.follow import role_or_why
from shoal.sentinel import LeaseRule, View
from shoal.topology import Endpoint
from shoal.watch import Watch, boot_ns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.harness import RedisServer, SentinelServer, Servers, Stack

MS = 1_000_000
PASSWORD = "p-4711"


def endpoint(server: RedisServer) -> Endpoint:
    return Endpoint(*server.address)


@contextlib.asynccontextmanager
async def watching(
    sentinels: tuple[SentinelServer, ...], *masters: str, password: str | None = None
) -> AsyncIterator[tuple[Watch, list[View]]]:
    """A watch that confirms whatever is named, and every view it has made."""
    seen: list[View] = []

    def take(view: View) -> None:
        seen.append(view)
        for master in view.masters.values():
            if master.candidate is not None:
                watch.confirm(master.name, master.candidate)
                return

    places = [endpoint(sentinel) for sentinel in sentinels]
    watch = Watch(places, masters, password=password, on_change=take, lease=LeaseRule.REQUIRE)
    task = asyncio.create_task(watch.run())
    try:
        yield watch, seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(predicate: Callable[[], Any], timeout: float, what: str) -> None:  # noqa: ASYNC109
    try:
        async with asyncio.timeout(timeout):
            while not predicate():  # noqa: ASYNC110  it is about other processes
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"waited {timeout:g} s for {what}")


def leased(watch: Watch, shard: str) -> bool:
    return watch.view.masters[shard].lease_until_ns > boot_ns()


async def in_thread(action: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(action)


@pytest.fixture
def stack(servers: Servers) -> Stack:
    return servers.stack(("a", "b"))


async def test_a_healthy_cluster_has_leases_that_do_not_lapse(stack: Stack) -> None:
    async with watching(stack.sentinels, "a", "b") as (watch, seen):
        await until(lambda: leased(watch, "a") and leased(watch, "b"), 3, "both leases")
        assert watch.view.masters["a"].endpoint == endpoint(stack.masters["a"])
        assert watch.view.problems == ()
        del seen[:]
        await asyncio.sleep(4)  # each sentinel's pings go round four times
        lapses = [
            (now.at_ns - before.masters[shard].lease_until_ns) / MS
            for before, now in itertools.pairwise(seen)
            for shard in ("a", "b")
            if now.at_ns >= before.masters[shard].lease_until_ns
        ]
        assert lapses == []
        assert all(one.subscribed and not one.tilt for one in watch.view.sentinels.values())


async def test_a_killed_master_is_followed_and_the_other_shard_does_not_feel_it(stack: Stack) -> None:
    async with watching(stack.sentinels, "a", "b") as (watch, seen):
        await until(lambda: leased(watch, "a") and leased(watch, "b"), 3, "both leases")
        await asyncio.sleep(6.5)  # until sentinels are known to have held both masters to be up
        del seen[:]
        stack.masters["a"].kill()
        await until(lambda: not leased(watch, "a"), 2.5, "the lease to break")
        new = endpoint(stack.replicas["a"][0])
        await until(lambda: watch.view.masters["a"].endpoint == new and leased(watch, "a"), 3.5, "the new master")
        assert watch.view.masters["a"].config_epoch > 0
        assert await role_or_why(new, None) == "master"
        assert all(view.masters["b"].lease_until_ns for view in seen), "the other shard's writes were held"


async def test_a_planned_failover_breaks_the_lease_before_the_replica_is_master(stack: Stack) -> None:
    replica = stack.replicas["a"][0]
    async with watching(stack.sentinels, "a", "b") as (watch, seen):
        await until(lambda: leased(watch, "a"), 3, "the lease")
        became_master: list[int] = []

        def look() -> None:
            with contextlib.closing(replica.client()) as client:
                while not became_master:
                    if client.role()[0] == b"master":
                        became_master.append(boot_ns())

        looking = asyncio.create_task(in_thread(look))
        with contextlib.closing(stack.sentinels[0].client()) as client:
            await in_thread(lambda: client.execute_command("SENTINEL", "FAILOVER", "a"))
        await looking
        held_at = [view.at_ns for view in seen if view.masters["a"].lease_until_ns == 0 and view.masters["a"].endpoint]
        assert held_at
        assert min(held_at) < became_master[0]
        old = endpoint(stack.masters["a"])
        late = [v for v in seen if v.at_ns > became_master[0] and v.masters["a"].endpoint == old]
        assert all(view.masters["a"].lease_until_ns == 0 for view in late)
        await until(lambda: watch.view.masters["a"].endpoint == endpoint(replica), 5, "the new master")
        await until(lambda: leased(watch, "a"), 3, "its lease")


async def test_one_sentinel_may_die_a_majority_may_not(stack: Stack) -> None:
    async with watching(stack.sentinels, "a", "b") as (watch, _seen):
        await until(lambda: leased(watch, "a"), 3, "the lease")
        stack.sentinels[0].kill()
        lost = watch.view.sentinels[endpoint(stack.sentinels[0])].endpoint
        await until(lambda: not watch.view.sentinels[lost].reachable, 2, "the loss to be noticed")
        for _ in range(20):
            assert leased(watch, "a")
            await asyncio.sleep(0.1)
        stack.sentinels[1].pause()
        await until(lambda: not leased(watch, "a"), 3, "the lease to run out")
        await until(lambda: watch.view.masters["a"].hold_reason, 1, "the view to say so")
        assert "1 of 2 sentinels needed vouch for it" in str(watch.view.masters["a"].hold_reason)
        stack.sentinels[1].resume()
        stack.sentinels[0].start()
        await until(lambda: leased(watch, "a") and leased(watch, "b"), 5, "the lease to come back")


async def test_a_stalled_loop_lets_the_lease_run_out(stack: Stack) -> None:
    async with watching(stack.sentinels, "a", "b") as (watch, _seen):
        await until(lambda: leased(watch, "a"), 3, "the lease")
        before = watch.view.masters["a"].lease_until_ns
        while boot_ns() < before + 100 * MS:
            pass  # Python does nothing else meanwhile
        assert watch.view.masters["a"].lease_until_ns <= before
        assert not leased(watch, "a")
        await until(lambda: leased(watch, "a"), 3, "the lease to come back")


async def test_sentinels_with_a_password(servers: Servers) -> None:
    master = servers.redis("m", requirepass=PASSWORD, masterauth=PASSWORD)
    options: dict[str, Any] = {"master_password": PASSWORD, "directives": {"requirepass": PASSWORD}}
    sentinels = tuple(servers.sentinel({"a": master}, name=f"sentinel{n}", **options) for n in range(3))
    async with watching(sentinels, "a", password=PASSWORD) as (watch, _seen):
        await until(lambda: leased(watch, "a"), 5, "the lease")
        assert await role_or_why(endpoint(master), PASSWORD) == "master"
    async with watching(sentinels, "a", password="wrong") as (watch, _seen):
        await until(lambda: all(one.why_not for one in watch.view.sentinels.values()), 3, "the refusals")
        assert all("AUTH was refused" in str(one.why_not) for one in watch.view.sentinels.values())
        assert PASSWORD not in repr(watch.view)


async def test_role_of_what_is_no_master(stack: Stack) -> None:
    assert await role_or_why(endpoint(stack.replicas["a"][0]), None) == "slave"
    stack.masters["b"].kill()
    assert "refused" in (await role_or_why(endpoint(stack.masters["b"]), None)).lower()
    stack.masters["a"].pause()
    assert await role_or_why(endpoint(stack.masters["a"]), None) == "no answer in time"
    stack.masters["a"].resume()
