"""Real sentinels asked what they know, and the servers of a nutcracker.yml tied to their masters."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shoal.census import Settings, groups
from shoal.errors import ConfigError
from shoal.tie import Wanted, addresses_of, wait_for_ties
from shoal.topology import Endpoint
from tests.harness import LOOPBACK, free_port, wait_until

if TYPE_CHECKING:
    from tests.harness import RedisServer, Servers, Stack


def at(server: RedisServer, host: str = LOOPBACK) -> Endpoint:
    return Endpoint(host, server.port)


def sentinels_of(stack: Stack) -> list[Endpoint]:
    return [at(sentinel) for sentinel in stack.sentinels]


def no_report(why: str) -> None:
    pytest.fail(f"it waited: {why}")


async def test_all_sentinels_together_know_each_group(servers: Servers) -> None:
    stack = servers.stack(("a", "b"))
    sentinels = sentinels_of(stack)
    known = await groups(sentinels, None)
    assert known.why_not_enough() is None
    assert set(known.groups) == {"a", "b"}
    for name, group in known.groups.items():
        assert group.master == at(stack.masters[name])
        assert group.replicas == tuple(map(at, stack.replicas[name]))
        assert group.down == frozenset()
        assert group.settings == Settings(quorum=2, down_after=1000, failover_timeout=10000, parallel_syncs=1)
        assert group.sentinels == group.said_by == tuple(sentinels)
        assert group.disagreements == ()


async def test_one_sentinel_that_is_down_is_named_and_missed_by_nobody(servers: Servers) -> None:
    stack = servers.stack(("a",))
    stack.sentinels[0].kill()
    gone, *others = sentinels_of(stack)
    known = await groups([gone, *others], None)
    assert known.silent == {gone: "Connection refused"}
    assert known.why_not_enough() is None
    assert set(known.groups["a"].sentinels) == {gone, *others}


async def test_servers_are_tied_by_name_by_master_and_by_replica(servers: Servers) -> None:
    stack = servers.stack(("a", "b", "c"))
    wanted = Wanted(
        {
            "a": Endpoint(LOOPBACK, free_port()),
            "second": at(stack.masters["b"]),
            f"localhost:{stack.replicas['c'][0].port}": at(stack.replicas["c"][0], "localhost"),
        },
        sentinels_of(stack),
    )
    ties = await wait_for_ties(wanted, no_report, addresses_of)
    assert list(ties.values()) == ["a", "b", "c"]


async def test_after_a_failover_the_old_address_ties_as_before(servers: Servers) -> None:
    stack = servers.stack(("a",))
    before = at(stack.masters["a"])
    with stack.sentinels[0].client() as client:
        client.execute_command("SENTINEL", "FAILOVER", "a")
    promoted = stack.replicas["a"][0]
    wait_until(lambda: promoted.role() == "master", 20.0, "the replica to be promoted")
    sentinels = sentinels_of(stack)
    async with asyncio.timeout(20):
        while (await groups(sentinels, None)).groups["a"].master == before:  # noqa: ASYNC110 - they are other processes
            await asyncio.sleep(0.05)
    assert await wait_for_ties(Wanted({"x": before}, sentinels), no_report, addresses_of) == {"x": "a"}


async def test_it_waits_for_a_majority_and_says_why(servers: Servers) -> None:
    stack = servers.stack(("a",))
    for sentinel in stack.sentinels:
        sentinel.kill()
    said: list[str] = []
    told = asyncio.Event()

    def report(why: str) -> None:
        said.append(why)
        told.set()

    wanted = Wanted({"a": at(stack.masters["a"])}, sentinels_of(stack))
    waiting = asyncio.create_task(wait_for_ties(wanted, report, addresses_of))
    async with asyncio.timeout(10):
        await told.wait()
    assert said[0].startswith("0 of 3 sentinels answered, a majority is 2: ")
    assert said[0].count("Connection refused") == 3
    stack.sentinels[0].start()
    stack.sentinels[2].start()
    async with asyncio.timeout(10):
        assert await waiting == {"a": "a"}
    assert len(said) == 1, "it speaks again only after ten seconds"


async def test_a_server_that_no_sentinel_knows_ends_the_wait(servers: Servers) -> None:
    stack = servers.stack(("a",), replicas=0)
    stranger = Endpoint(LOOPBACK, free_port())
    with pytest.raises(ConfigError) as caught:
        await wait_for_ties(Wanted({str(stranger): stranger}, sentinels_of(stack)), no_report, addresses_of)
    assert caught.value.hint == f"the masters they know: a ({at(stack.masters['a'])})"


async def test_what_is_no_sentinel_or_does_not_answer_is_said(servers: Servers) -> None:
    plain, silent = servers.redis(), servers.redis()
    silent.pause()
    known = await groups([at(plain), at(silent), Endpoint("no-such-host.invalid", 26379)], None)
    assert not known.groups
    not_sentinel, too_slow, no_host = known.silent.values()
    assert "unknown command" in not_sentinel
    assert too_slow == "no answer in time"
    assert no_host
    assert known.why_not_enough() is not None


async def test_sentinels_with_a_password(servers: Servers) -> None:
    master = servers.redis("a")
    sentinel = at(servers.sentinel({"a": master}, quorum=1, directives={"requirepass": "hunter2"}))
    known = await groups([sentinel], "hunter2")
    assert known.groups["a"].master == at(master)
    wrong, none = [(await groups([sentinel], password)).silent[sentinel] for password in ("hunter3", None)]
    assert wrong.startswith("AUTH was refused: WRONGPASS")
    assert none.startswith("NOAUTH")
