"""A hold takes a shard's lease away, and gives it back: to whom the sentinels say, or to a new master at once."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from shoal import holds as module
from shoal.errors import HoldError
from shoal.holds import MOST_MS, Committed, Holds
from shoal.log import Log, LogFormat
from shoal.role import Role
from shoal.routes import Routes, Target
from tests.unit.sentinels import NEW, OLD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.plane import PoolSpec, ReadLease, Route
    from shoal.topology import Endpoint

A, B, FIXED = ("p", "a"), ("p", "b"), ("fixed", "a")
FAR = 10**18
THIRD = OLD._replace(port=7)


class FakePlane:
    """Serves the last snapshot, and has as many writes out as a test says."""

    def __init__(self) -> None:
        self.epoch = 0
        self.acks = True
        self.writing = 0
        self.routes: dict[tuple[str, str], Target] = {}
        self.readers: dict[tuple[str, str], tuple[Endpoint, ...]] = {}
        self.pools: Sequence[PoolSpec] = ()

    def apply(self, epoch: int, routes: Sequence[Route]) -> None:
        self.epoch = epoch
        self.routes = {(one.pool, one.shard): Target(one.endpoint, one.lease_until_ns) for one in routes}

    def reload(self, pools: Sequence[PoolSpec], epoch: int, routes: Sequence[Route]) -> None:
        self.pools = pools
        self.apply(epoch, routes)

    def renew(self, pool: str, shard: str, lease_until_ns: int) -> None:
        self.routes[pool, shard] = self.routes[pool, shard]._replace(lease_until_ns=lease_until_ns)

    def read_from(self, epoch: int, pool: str, shard: str, replicas: Sequence[Endpoint]) -> None:
        self.epoch = epoch
        self.readers[pool, shard] = tuple(replicas)

    def renew_reads(self, pool: str, shard: str, leases: Sequence[ReadLease], *, with_master: bool) -> None: ...

    def acked_epoch(self) -> int:
        return self.epoch if self.acks else 0

    def stats(self) -> dict[str, Any]:
        shards = {"a": {"writing": self.writing}, "b": {"writing": 1}}
        return {"pools": {"p": {"shards": shards}, "fixed": {"shards": shards}}}


class Stage:
    """Two shards with masters "one" and "two", and a fixed server whose label is "one" by chance."""

    def __init__(self) -> None:
        self.plane = FakePlane()
        self.stream = io.StringIO()
        log = Log(LogFormat.JSON, self.stream)
        self.routes = Routes(self.plane, [A, B, FIXED], log, {A: "one", B: "two"})
        self.routes.put(dict.fromkeys([A, B, FIXED], Target(OLD, FAR)))
        self.now_ns = 0
        self.holds = Holds(self.routes, self.plane, self.committed, lambda: self.now_ns, log)
        self.roles: dict[Endpoint, Role] = {NEW: Role("master"), OLD: Role("slave", NEW)}
        self.holds.role_of = self.role_of

    def committed(self, name: str) -> Committed | None:
        return Committed(OLD, None) if name in {"one", "two"} else None

    async def role_of(self, endpoint: Endpoint, _password: str | None) -> Role:
        if endpoint not in self.roles:
            raise ConnectionRefusedError(111, "Connection refused")
        return self.roles[endpoint]

    def ends(self) -> list[str]:
        lines = map(json.loads, self.stream.getvalue().splitlines())
        return [line["why"] for line in lines if line["event"] == "hold_ended"]


async def test_a_hold_takes_the_lease_of_its_master_only_and_a_release_gives_it_back() -> None:
    stage = Stage()
    await stage.holds.take("1", "one", "me", 1000)
    assert stage.plane.routes == {A: Target(OLD, 0), B: Target(OLD, FAR), FIXED: Target(OLD, FAR)}
    assert stage.holds.living()["one"].reason() == "held by me for a switchover"
    await stage.holds.release("1", None)
    assert stage.plane.routes[A] == Target(OLD, FAR)
    assert stage.ends() == ["released"]
    assert stage.holds.living() == {}


async def test_what_the_sentinels_say_meanwhile_counts_when_it_is_over() -> None:
    stage = Stage()
    await stage.holds.take("1", "one", "me", 1000)
    stage.routes.renew(A, FAR + 1)
    stage.routes.put({A: Target(NEW, FAR + 2)})
    assert stage.plane.routes[A] == Target(NEW, 0), "the new master is committed, and not written to"
    stage.routes.replace([], dict(stage.routes.targets), {A: "one"})
    assert stage.plane.routes[A] == Target(NEW, 0), "a reload keeps the hold"
    await stage.holds.release("1", None)
    assert stage.plane.routes[A] == Target(NEW, FAR + 2)


async def test_it_is_taken_when_no_write_is_out_any_more() -> None:
    stage = Stage()
    stage.plane.acks, stage.plane.writing = False, 1
    taken = asyncio.create_task(stage.holds.take("1", "one", "me", 1000))
    await asyncio.sleep(0.02)
    assert not taken.done()
    stage.plane.acks = True
    await asyncio.sleep(0.02)
    assert not taken.done()
    stage.plane.writing = 0
    await taken


async def test_a_write_that_is_never_answered_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_LIMIT", 0.02)
    stage = Stage()
    stage.plane.writing = 1
    with pytest.raises(HoldError, match="still unanswered"):
        await stage.holds.take("1", "one", "me", 1000)
    assert stage.plane.routes[A] == Target(OLD, FAR)
    assert stage.ends() == ["not settled"]


async def test_it_expires_unless_it_is_kept() -> None:
    stage = Stage()
    await stage.holds.take("1", "one", "me", 60)
    for _ in range(4):
        await asyncio.sleep(0.03)
        await stage.holds.take("1", "one", "me", 60)
    assert stage.plane.routes[A] == Target(OLD, 0)
    await asyncio.sleep(0.1)
    assert stage.plane.routes[A] == Target(OLD, FAR)
    assert stage.ends() == ["expired"]
    with pytest.raises(HoldError, match="may have expired"):
        await stage.holds.release("1", None)


async def test_one_that_has_ended_is_not_kept() -> None:
    stage = Stage()
    await stage.holds.take("1", "one", "me", 1000)
    await stage.holds.take("1", "one", "me", 1000, keep=True)
    await stage.holds.release("1", None)
    with pytest.raises(HoldError, match="no such hold any more"):
        await stage.holds.take("1", "one", "me", 1000, keep=True)
    assert stage.plane.routes[A] == Target(OLD, FAR)


async def test_who_comes_second_is_told_who_holds_it() -> None:
    stage = Stage()
    await stage.holds.take("1", "one", "ann@here", 1000)
    with pytest.raises(HoldError, match="by ann@here"):
        await stage.holds.take("2", "one", "bob@there", 1000)
    with pytest.raises(HoldError):
        await stage.holds.take("1", "two", "ann@here", 1000)
    assert set(stage.holds.living()) == {"one"}


@pytest.mark.parametrize(("name", "ttl_ms"), [("three", 1000), ("one", 0), ("one", MOST_MS + 1)])
async def test_what_cannot_be_held_is_refused(name: str, ttl_ms: int) -> None:
    stage = Stage()
    with pytest.raises(HoldError):
        await stage.holds.take("1", name, "me", ttl_ms)
    assert stage.plane.routes[A] == Target(OLD, FAR)


async def test_holds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HOLDS", 1)
    stage = Stage()
    await stage.holds.take("1", "one", "me", 1000)
    with pytest.raises(HoldError, match="too many"):
        await stage.holds.take("2", "two", "me", 1000)


# --------------------------------------------------------------------------------------------------------- hand-over


async def test_a_hand_over_sends_requests_to_the_new_master_until_the_sentinels_name_it() -> None:
    stage = Stage()
    await stage.holds.take("1", "one", "me", 1000)
    await stage.holds.release("1", NEW)
    until_ns = module.HANDED_OVER_MS * 1_000_000
    assert stage.plane.routes == {A: Target(NEW, until_ns), B: Target(OLD, FAR), FIXED: Target(OLD, FAR)}
    stage.routes.renew(A, 0)
    assert stage.plane.routes[A] == Target(NEW, until_ns), "what sentinels think of the old master does not matter"
    stage.routes.put({A: Target(NEW, 0)})
    assert stage.plane.routes[A] == Target(NEW, until_ns), "named, and not vouched for yet"
    stage.routes.renew(A, until_ns + 1)
    stage.routes.renew(A, 0)
    assert stage.plane.routes[A] == Target(NEW, 0), "they have vouched for it: from then on they decide"
    assert stage.ends() == ["handed over"]


async def test_the_old_masters_replicas_are_read_from_no_more_until_it_is_the_master_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HANDED_OVER_MS", 20)
    stage = Stage()
    assert stage.routes.read_from(A, OLD, [THIRD])
    await stage.holds.take("1", "one", "me", 1000)
    await stage.holds.release("1", NEW)
    stage.plane.readers.clear()
    assert not stage.routes.read_from(A, OLD, [THIRD])
    assert stage.plane.readers == {}
    await asyncio.sleep(0.06)
    assert stage.routes.read_from(A, OLD, [THIRD])
    assert stage.plane.readers == {A: (THIRD,)}


async def test_sentinels_that_name_a_third_one_are_right() -> None:
    stage = Stage()
    await stage.holds.take("1", "one", "me", 1000)
    await stage.holds.release("1", NEW)
    stage.routes.put({A: Target(THIRD, 5)})
    assert stage.plane.routes[A] == Target(THIRD, 5)


async def test_a_hand_over_that_the_sentinels_do_not_follow_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDED_OVER_MS", 20)
    stage = Stage()
    await stage.holds.take("1", "one", "me", 1000)
    await stage.holds.release("1", NEW)
    await asyncio.sleep(0.06)
    assert stage.plane.routes[A] == Target(OLD, FAR)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (Role("slave", OLD), Role("master")),
        (Role("master"), Role("master")),
        (Role("master"), Role("slave", THIRD)),
        (Role("master"), None),
    ],
    ids=["neither has changed", "two masters", "a replica of another", "the old one is silent"],
)
async def test_two_masters_are_never_handed_over(new: Role, old: Role | None) -> None:
    stage = Stage()
    stage.roles = {NEW: new} if old is None else {NEW: new, OLD: old}
    await stage.holds.take("1", "one", "me", 1000)
    with pytest.raises(HoldError):
        await stage.holds.release("1", NEW)
    assert stage.plane.routes[A] == Target(OLD, 0), "it goes on being held"


async def test_a_hold_that_expires_while_roles_are_asked_hands_nothing_over() -> None:
    stage = Stage()

    async def role_of(endpoint: Endpoint, _password: str | None) -> Role:
        await asyncio.sleep(0.05)
        return stage.roles[endpoint]

    stage.holds.role_of = role_of
    await stage.holds.take("1", "one", "me", 20)
    with pytest.raises(HoldError, match="expired meanwhile"):
        await stage.holds.release("1", NEW)
    assert stage.plane.routes[A] == Target(OLD, FAR)
