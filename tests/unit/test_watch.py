"""The watch without sentinels: when it polls, and when it decides."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from shoal.sentinel import LeaseRule, Master, Polled, Published, Said, read_event
from shoal.topology import Endpoint
from shoal.watch import HURRY_SPACING, Pace, Watch, boot_ns
from tests.unit.sentinels import MS, OLD, SENTINELS, SHARD, report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shoal.sentinel import View

FAR_OFF = 1e9  # polls strike at multiples of the interval: of a minute, the next may be a moment away


async def test_polls_strike_together_at_every_interval() -> None:
    one, other = Pace(), Pace()
    one.sending(0.1)
    await asyncio.sleep(0.001)
    other.sending(0.1)
    assert one.due == pytest.approx(other.due, abs=0.1001)
    assert one.due % 0.1 == pytest.approx(0, abs=1e-6) or one.due % 0.1 == pytest.approx(0.1, abs=1e-6)


async def test_hurry_ends_the_wait_and_only_ever_brings_a_poll_forward() -> None:
    pace, loop = Pace(), asyncio.get_running_loop()
    pace.sending(FAR_OFF)
    due = pace.due
    pace.hurry(due + 10)
    assert pace.due == due
    loop.call_later(0.01, lambda: pace.hurry(loop.time()))
    async with asyncio.timeout(5):
        await pace.wait()


async def test_hurry_during_a_poll_makes_the_next_one_due_at_once() -> None:
    pace, loop = Pace(), asyncio.get_running_loop()
    pace.sending(FAR_OFF)
    pace.hurry(loop.time())
    async with asyncio.timeout(5):
        await pace.wait()


def watch(seen: list[View] | None = None, *, lease: LeaseRule | None = LeaseRule.REQUIRE) -> Watch:
    """A watch whose sentinels speak only through `say`."""
    return Watch(SENTINELS, [SHARD], on_change=(seen if seen is not None else []).append, lease=lease)


@contextlib.asynccontextmanager
async def deciding(one: Watch) -> AsyncIterator[None]:
    """The part of `run` that decides what was heard."""
    task = asyncio.create_task(one._decide_what_is_heard())
    yield
    task.cancel()


def say(one: Watch, *, age_ms: int = 0, before_ms: float = 0) -> None:
    """Every sentinel vouches for OLD, `before_ms` ago."""
    for sentinel in SENTINELS:
        one._report(Polled(sentinel, boot_ns() - int(before_ms * MS), {SHARD: Said(report(), age_ms)}))


async def test_answers_that_come_together_are_one_decision() -> None:
    seen: list[View] = []
    one = watch(seen)
    async with deciding(one):
        say(one)
        assert seen == []
        await asyncio.sleep(0.05)
        assert len(seen) == 1
    assert one.view.masters[SHARD].candidate == Master(OLD, 0)


async def test_an_event_is_decided_at_once_and_every_sentinel_is_asked() -> None:
    seen: list[View] = []
    one = watch(seen)
    say(one)
    one.confirm(SHARD, Master(OLD, 0))
    assert seen[-1].masters[SHARD].lease_until_ns > 0
    for source in one._sources.values():
        source.pace.sending(FAR_OFF)
    event = read_event(b"+try-failover", f"master {SHARD} 10.0.0.1 6379".encode())
    assert event is not None
    one._report(Published(SENTINELS[0], boot_ns(), event))
    assert seen[-1].masters[SHARD].lease_until_ns == 0
    now = asyncio.get_running_loop().time()
    assert all(source.pace.due <= now for source in one._sources.values())


async def test_a_lease_with_little_left_hurries_the_sentinels_it_hangs_on() -> None:
    one = watch()
    say(one)
    one.confirm(SHARD, Master(OLD, 0))
    for source in one._sources.values():
        source.pace.sending(FAR_OFF)
    fresh, *old = SENTINELS
    one._report(Polled(fresh, boot_ns(), {SHARD: Said(report(), 0)}))
    for sentinel in old:
        one._report(Polled(sentinel, boot_ns(), {SHARD: Said(report(), 1000)}))
    one._publish()
    paces = {sentinel: one._sources[sentinel].pace for sentinel in SENTINELS}
    for sentinel in old:
        assert paces[sentinel].due - paces[sentinel].sent == pytest.approx(HURRY_SPACING, abs=0.02)
    assert paces[fresh].due - paces[fresh].sent > 1, "its vote lasts, asking it again would change nothing"


async def test_who_only_looks_never_hurries() -> None:
    one = watch(lease=None)
    for source in one._sources.values():
        source.pace.sending(FAR_OFF)
    say(one, age_ms=1000)
    one._publish()
    assert one.view.masters[SHARD].endpoint == OLD
    assert all(source.pace.due - source.pace.sent > 1 for source in one._sources.values())


async def test_an_answer_that_was_read_late_counts_from_when_it_was_asked_for() -> None:
    one = watch()
    say(one)
    one.confirm(SHARD, Master(OLD, 0))
    asked_ms = boot_ns() / MS
    say(one, before_ms=-1)
    say(one, before_ms=-2)
    one.confirm(SHARD, Master(OLD, 0))
    assert one.view.masters[SHARD].lease_until_ns / MS <= asked_ms + 1160


async def test_an_error_of_whoever_takes_the_views_ends_the_watch() -> None:
    def refuse(_view: View) -> None:
        raise ValueError("no")

    one = Watch([Endpoint("127.0.0.1", 9)], [SHARD], on_change=refuse)
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(5):
            await one.run()


def test_the_password_is_not_shown() -> None:
    one = Watch(SENTINELS, [SHARD], password="p-4711")
    assert "p-4711" not in repr(one)
    assert "p-4711" not in repr(one._sources)
