"""The proxy process without servers: what it tells the data plane, what it writes to the log, when it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from shoal.config import parse
from shoal.daemon import _going_on as going_on
from shoal.errors import SentinelError
from shoal.follow import Follower, PoolRule
from shoal.log import EVENTS, Log, LogFormat
from shoal.plane import NO_LEASE_NEEDED, PoolSpec, ReadLease, Route
from shoal.routes import Routes, Target
from shoal.sentinel import FOREVER_NS, LeaseRule, Linked, Master, Observation, Tilted, View
from shoal.serving import Followed, of_layout
from shoal.steer import Following, Group, groups
from shoal.topology import Endpoint, Layout, lay_out, ports_to_choose
from shoal.watch import Watch, boot_ns
from tests.unit.sentinels import MS, NEW, OLD, S1, S2, SENTINELS, SHARD, event, poll, reducer, report, settled, view_of

if TYPE_CHECKING:
    from collections.abc import Sequence

POOL = "main"


class FakePlane:
    """Remembers what it was told."""

    def __init__(self, *, acks: bool = True) -> None:
        self.acks = acks
        self.snapshots: list[tuple[int, list[Route]]] = []
        self.renewed: list[tuple[str, str, int]] = []
        self.pools: list[PoolSpec] = []
        self.readers: list[tuple[int, Sequence[Endpoint]]] = []
        self.reads: list[Sequence[ReadLease]] = []

    def apply(self, epoch: int, routes: Sequence[Route]) -> None:
        self.snapshots.append((epoch, list(routes)))

    def reload(self, pools: Sequence[PoolSpec], epoch: int, routes: Sequence[Route]) -> None:
        self.pools = list(pools)
        self.snapshots.append((epoch, list(routes)))

    def acked_epoch(self) -> int:
        return self.snapshots[-1][0] if self.acks and self.snapshots else 0

    def renew(self, pool: str, shard: str, lease_until_ns: int) -> None:
        self.renewed.append((pool, shard, lease_until_ns))

    def read_from(self, epoch: int, pool: str, shard: str, replicas: Sequence[Endpoint]) -> None:
        assert (pool, shard) == (POOL, SHARD)
        self.readers.append((epoch, replicas))

    def renew_reads(self, pool: str, shard: str, leases: Sequence[ReadLease], *, with_master: bool) -> None:
        assert (pool, shard, with_master) == (POOL, SHARD, False)
        self.reads.append(leases)


class Lines:
    """A log, and the events in it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.log = Log(LogFormat.JSON, self.stream)

    def events(self, *names: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if not names or line["event"] in names]


def follower(plane: FakePlane, lines: Lines, *roles: str, lease: LeaseRule = LeaseRule.REQUIRE) -> Follower:
    """A follower whose servers say these roles in turn, the last one for ever."""
    said = list(roles or ("master",))

    async def role_of(_endpoint: Endpoint) -> str:
        return said.pop(0) if len(said) > 1 else said[0]

    routes = Routes(plane, [(POOL, SHARD)], lines.log)
    return Follower([PoolRule(POOL, {SHARD: SHARD}, lease)], role_of, lines.log, routes)


# --------------------------------------------------------------------------------------------------------- the plane


def test_nothing_is_applied_before_a_master_is_known() -> None:
    plane = FakePlane()
    follower(plane, Lines()).take(view_of(reducer(), 0))
    assert (plane.snapshots, plane.renewed) == ([], [])


def test_a_committed_master_is_applied_with_its_lease_and_a_new_epoch() -> None:
    plane, lines, one = FakePlane(), Lines(), settled()
    follow = follower(plane, lines)
    follow.take(view_of(one, 1))
    for sentinel in SENTINELS:
        one.observe(poll(sentinel, 5, report(endpoint=NEW, config_epoch=1)))
    one.confirm(SHARD, Master(NEW, 1))
    follow.take(view_of(one, 6))
    first, second = plane.snapshots
    assert first == (1, [Route(POOL, SHARD, OLD, 1150 * MS)])
    assert second == (2, [Route(POOL, SHARD, NEW, 1155 * MS)])
    committed = lines.events("master_committed")[-1]
    assert (committed["endpoint"], committed["instead_of"], committed["config_epoch"]) == (str(NEW), str(OLD), 1)


def test_a_lease_is_renewed_and_broken_as_the_view_has_it() -> None:
    plane, one = FakePlane(), settled()
    follow = follower(plane, Lines())
    follow.take(view_of(one, 1))
    follow.take(view_of(one, 2))
    assert plane.renewed == [], "an unchanged lease is not sent again"
    one.observe(poll(S1, 50))
    one.observe(poll(S2, 50))
    follow.take(view_of(one, 51))
    one.observe(event(S1, 60, "+try-failover"))
    follow.take(view_of(one, 61))
    assert plane.renewed == [(POOL, SHARD, 1200 * MS), (POOL, SHARD, 0)]
    assert len(plane.snapshots) == 1


def test_a_pool_without_leases_gets_one_that_never_ends() -> None:
    plane, one = FakePlane(), settled()
    follower(plane, Lines(), lease=LeaseRule.NONE).take(view_of(one, 99_999))
    assert plane.snapshots[0][1] == [Route(POOL, SHARD, OLD, FOREVER_NS)]


def test_who_is_read_from_is_said_once_and_anew_after_another_master_or_a_reload() -> None:
    plane, lines = FakePlane(), Lines()
    routes = Routes(plane, [(POOL, SHARD)], lines.log)
    key = (POOL, SHARD)
    assert not routes.read_from(key, OLD, [NEW]), "that is not its master yet"
    routes.put({key: Target(OLD, 5)})
    assert routes.read_from(key, OLD, [NEW])
    assert routes.read_from(key, OLD, [NEW])
    routes.put({key: Target(OLD, 6)})
    assert routes.read_from(key, OLD, [NEW])
    assert plane.readers == [(2, [NEW])]
    routes.put({key: Target(NEW, 7)})
    assert not routes.read_from(key, OLD, [NEW])
    assert routes.read_from(key, NEW, [OLD])
    routes.replace([], {key: Target(NEW, 8)}, {})
    assert routes.read_from(key, NEW, [OLD])
    assert plane.readers[1:] == [(5, [OLD]), (7, [OLD])]
    assert routes.epoch == 7


def test_a_shard_whose_master_is_not_known_yet_stays_where_it_was() -> None:
    plane, one, lines = FakePlane(), settled(), Lines()
    routes = Routes(plane, [(POOL, SHARD), (POOL, "other")], lines.log)
    routes.put({(POOL, "other"): Target(NEW, 5)})
    rule = PoolRule(POOL, {SHARD: SHARD}, LeaseRule.REQUIRE)

    async def role_of(_endpoint: Endpoint) -> str:
        return "master"

    Follower([rule], role_of, lines.log, routes).take(view_of(one, 1))
    assert routes.targets[POOL, "other"] == Target(NEW, 5)
    assert routes.targets[POOL, SHARD].endpoint == OLD


def test_a_follower_that_is_detached_writes_nothing() -> None:
    plane, one = FakePlane(), settled()
    follow = follower(plane, Lines())
    follow.take(view_of(one, 1))
    follow.detach()
    one.observe(event(S1, 60, "+try-failover"))
    follow.take(view_of(one, 61))
    assert (len(plane.snapshots), plane.renewed) == (1, [])


def test_what_a_shard_goes_on_with_after_a_reload() -> None:
    lost, fixed = Target(None), Target(None, NO_LEASE_NEEDED)
    assert going_on(Target(NEW, 9), Target(OLD, 5)) == Target(NEW, 9)
    assert going_on(Target(OLD, 9), Target(OLD, 0)) == Target(OLD, 0), "a lease that is broken stays broken"
    assert going_on(lost, Target(OLD, 5)) == Target(OLD, 0), "no master for the moment: where it was, without a lease"
    assert going_on(fixed, Target(OLD, NO_LEASE_NEEDED)) == fixed, "a name without an address is down, not held"
    assert going_on(None, None) == Target(None)


async def running(follow: Follower, watch: Watch, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await follow.run(watch)


def named(follow: Follower) -> Watch:
    """A watch whose sentinels all name OLD."""
    watch = Watch(SENTINELS, [SHARD], on_change=follow.take, lease=LeaseRule.REQUIRE)
    for sentinel in SENTINELS:
        watch._reducer.observe(poll(sentinel, boot_ns() / MS))
    watch._publish()
    return watch


async def test_a_named_master_is_committed_once_it_says_master() -> None:
    plane, lines = FakePlane(), Lines()
    follow = follower(plane, lines, "slave", "no answer in time", "no answer in time", "master")
    await running(follow, named(follow), 0.4)
    assert [routes[0].endpoint for _, routes in plane.snapshots] == [OLD]
    assert [line["role"] for line in lines.events("master_unconfirmed")] == ["slave", "no answer in time"]


async def test_a_named_master_that_says_something_else_is_not_committed() -> None:
    plane = FakePlane()
    follow = follower(plane, Lines(), "slave")
    await running(follow, named(follow), 0.2)
    assert plane.snapshots == []


async def test_a_worker_that_does_not_ack_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.routes.ACK_LIMIT", 0.05)
    lines = Lines()
    routes = Routes(FakePlane(acks=False), [(POOL, SHARD)], lines.log)
    routes.put({(POOL, SHARD): Target(OLD)})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await routes.watch_acks()
    assert [(line["epoch"], line["acked"], line["level"]) for line in lines.events("epoch_not_acked")] == [
        (1, 0, "error")
    ]


# ----------------------------------------------------------------------------------------------------------- the log


def story(*views: View) -> list[dict[str, Any]]:
    lines = Lines()
    follow = follower(FakePlane(), lines)
    for view in views:
        follow.take(view)
    return lines.events()


def test_a_broken_lease_is_logged_once_with_why_and_its_return_with_how_long() -> None:
    one = settled()
    views = [view_of(one, 1)]
    one.observe(event(S1, 100, "+try-failover"))
    views += [view_of(one, 100), view_of(one, 150)]
    for sentinel in SENTINELS:
        one.observe(poll(sentinel, 340))
    views.append(view_of(one, 341))
    lines = [line for line in story(*views) if line["event"].startswith("lease_")]
    assert [line["event"] for line in lines] == ["lease_regained", "lease_broken", "lease_regained"]
    assert lines[1]["why"] == f"sentinel {S1} published +try-failover"
    assert lines[2]["after_ms"] == 241


def test_a_lease_that_ran_out_between_two_views_is_logged_with_how_long() -> None:
    one = settled()
    before = view_of(one, 1)
    for sentinel in SENTINELS:
        one.observe(poll(sentinel, 1190))
    lapsed = [line for line in story(before, view_of(one, 1191)) if line["event"] == "lease_lapsed"]
    assert [line["for_ms"] for line in lapsed] == [41]


def test_sentinels_that_come_and_go_are_logged_with_why_and_how_long() -> None:
    one = settled()
    views = [view_of(one, 0)]
    words: list[tuple[int, Observation]] = [
        (1, Linked(S1, up=True)),
        (2, Linked(S1, up=True, subscription=True)),
        (100, Linked(S1, up=False, why_not="Connection refused")),
        (150, Linked(S1, up=False, why_not="Connection refused")),
        (151, Linked(S1, up=False, subscription=True)),
        (400, Linked(S1, up=True)),
        (401, Tilted(S1, 401 * MS, tilt=True)),
    ]
    for at, word in words:
        one.observe(word)
        views.append(view_of(one, at))
    lines = [line for line in story(*views) if line["event"].startswith("sentinel_")]
    assert [line["event"] for line in lines] == [
        "sentinel_connected",
        "sentinel_subscribed",
        "sentinel_lost",
        "sentinel_unsubscribed",
        "sentinel_connected",
        "sentinel_tilt",
    ]
    assert lines[2]["why"] == "Connection refused"
    assert lines[4]["after_ms"] == 300


def test_unsound_sentinels_are_logged_once_each() -> None:
    one = settled()
    one.observe(poll(S1, 1, report(other_sentinels=4)))
    lines = [line for line in story(view_of(one, 2), view_of(one, 3)) if line["event"] == "sentinels_unsound"]
    assert len(lines) == 4


def test_every_line_has_a_time_to_the_millisecond_a_level_and_a_declared_event() -> None:
    for line in story(view_of(settled(), 1)):
        assert len(line["timestamp"]) == len("2026-01-01T00:00:00.000Z")
        assert line["level"] in ("info", "warning", "error")
        assert line["event"] in EVENTS


def test_an_event_that_is_not_declared_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Lines().log.event("somthing")


def test_lines_for_people_have_no_colour_outside_a_terminal() -> None:
    stream = io.StringIO()
    Log(LogFormat.CONSOLE, stream).event("lease_broken", shard="a", why="it is so")
    assert "lease_broken" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


# --------------------------------------------------------------------------------------------------------- the daemon


def layout(**sections: Any) -> Layout:
    topology = parse({"cluster": "main", "shards": {"a": None, "b": {"replicas": 1, "weight": 3}}, **sections})
    return lay_out(topology, {key: 20000 + n for n, key in enumerate(ports_to_choose(topology))})


def test_pools_are_given_to_the_workers_as_the_topology_has_them() -> None:
    laid = layout(proxy={"nodes": 1, "hash_tag": "{}", "hold": {"timeout": "2s", "bytes": "1mb"}, "max_inflight": 9})
    node = laid.proxies[0]
    (pool,) = of_layout(laid, node).pools
    spec = pool.spec
    assert spec.name == "main"
    assert spec.listen == str(node.listens["main"])
    assert [(shard.name, shard.weight) for shard in spec.shards] == [("a", 1), ("b", 3)]
    assert (spec.hash_tag, spec.hold_timeout_ms, spec.hold_bytes, spec.max_inflight) == ("{}", 2000, 1 << 20, 9)
    assert (spec.password, spec.backend_password, spec.fixed) == (None, None, None)
    assert isinstance(pool.source, Followed)
    assert (pool.source.masters, pool.source.lease) == ({"a": "a", "b": "b"}, LeaseRule.REQUIRE)


def group(*rules: LeaseRule) -> Group:
    pools = tuple(PoolRule(f"pool{number}", {SHARD: SHARD}, rule) for number, rule in enumerate(rules))
    return Group(tuple(SENTINELS), None, pools)


def test_the_strictest_rule_counts() -> None:
    assert group(LeaseRule.NONE, LeaseRule.REQUIRE, LeaseRule.UNSAFE).rule is LeaseRule.REQUIRE
    assert group(LeaseRule.NONE, LeaseRule.UNSAFE).rule is LeaseRule.UNSAFE


def test_pools_with_the_same_sentinels_are_one_group() -> None:
    listens = iter((20101, 20102))
    pools = {name: {"shards": [shard], "listen": next(listens)} for name, shard in (("one", "a"), ("two", "b"))}
    laid = layout(pools=pools, proxy={"nodes": 1})
    (both,) = groups(of_layout(laid, laid.proxies[0]))
    assert [pool.name for pool in both.pools] == ["one", "two"]
    assert both.masters == ["a", "b"]


@pytest.mark.parametrize("rule", list(LeaseRule))
async def test_with_lease_require_it_refuses_sentinels_that_are_not_as_configured(rule: LeaseRule) -> None:
    following = Following(group(rule), Lines().log)
    for sentinel in SENTINELS:
        following.watch._reducer.observe(poll(sentinel, boot_ns() / MS, report(other_sentinels=4, quorum=3)))
    following.watch._publish()
    async with asyncio.timeout(2):
        if rule is not LeaseRule.REQUIRE:
            await following.vet()
            return
        with pytest.raises(SentinelError) as caught:
            await following.vet()
    assert "5 sentinels watch" in caught.value.what
    assert caught.value.hint is not None
