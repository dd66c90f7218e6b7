"""What stands against a switchover, and what is planned: from what everybody said, one thing changed at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shoal.ask import ProxySays, RedisSays, ReplicaSeen, Silent
from shoal.standing import RAISED, ReplicaKnown, SentinelSays, Standing, choose, limitations, plan
from shoal.topology import Endpoint, ProxyNode, RedisNode, SentinelNode
from tests.unit.sentinels import report

A1, A2, A3 = (RedisNode(f"a-{n}", "a", "here", Endpoint("10.0.0.1", 7000 + n), n == 1) for n in (1, 2, 3))
S1, S2, S3 = (SentinelNode(f"sentinel{n}", "here", Endpoint("10.0.1.1", 26378 + n)) for n in (1, 2, 3))
PROXY = ProxyNode("proxy1", "here", "10.0.2.1", {}, Endpoint("127.0.0.1", 22180), Endpoint("127.0.0.1", 22222))
MASTER = RedisSays("master", loading=False, keys=1, offset=1000, priority=100)
REPLICA = RedisSays("replica", loading=False, keys=1, offset=990, priority=100, master=A1.endpoint, link_up=True)
ROUTE = {"master": "a", "endpoint": str(A1.endpoint), "writable": True}
TOPOLOGY = {"node": "proxy1", "holds": [], "pools": {"p": {"shards": {"a": ROUTE}}}}
KNOWN = {A2.endpoint: ReplicaKnown(up=True, priority=100), A3.endpoint: ReplicaKnown(up=True, priority=100)}
SENTINEL = SentinelSays(report(endpoint=A1.endpoint), KNOWN, None, coordinates=False)


def standing(**changes: Any) -> Standing:
    """A master and two replicas, three sentinels and a proxy, all well."""
    well = Standing(
        "a",
        {A1: MASTER, A2: REPLICA, A3: replace(REPLICA, offset=995)},
        {S1: SENTINEL, S2: SENTINEL, S3: SENTINEL},
        [(PROXY, ProxySays(healthy=True, ready=True, topology=TOPOLOGY))],
        {"p": 4000},
    )
    return replace(well, **changes)


def servers(**changes: Any) -> Standing:
    nodes = {"a1": A1, "a2": A2, "a3": A3}
    return standing(servers=dict(standing().servers) | {nodes[name]: said for name, said in changes.items()})


def sentinel(said: SentinelSays | Silent) -> Standing:
    return standing(sentinels={S1: SENTINEL, S2: SENTINEL, S3: said})


def proxy(**changes: Any) -> Standing:
    return standing(proxies=[(PROXY, ProxySays(healthy=True, ready=True, topology=TOPOLOGY | changes))])


def test_nothing_stands_against_a_shard_that_is_well() -> None:
    assert limitations(standing(), None) == []
    assert limitations(standing(), A2) == []


LIMITS = [
    (sentinel(Silent("refuses connections")), None, "sentinel3 refuses connections"),
    (sentinel(replace(SENTINEL, report=report(endpoint=A2.endpoint))), None, "the sentinels do not agree"),
    (sentinel(replace(SENTINEL, report=report("failover_in_progress", endpoint=A1.endpoint))), None, "in progress"),
    (sentinel(replace(SENTINEL, report=report("s_down", endpoint=A1.endpoint))), None, "holds the master to be down"),
    (sentinel(replace(SENTINEL, quorum="NOQUORUM 1 usable")), None, "sentinel3: NOQUORUM"),
    (sentinel(replace(SENTINEL, report=report(endpoint=A1.endpoint, other_sentinels=3))), None, "counts 4 sentinels"),
    (sentinel(replace(SENTINEL, report=report(endpoint=A1.endpoint, down_after_ms=400))), None, "down_after of 400 ms"),
    (servers(a1=Silent("refuses connections")), None, "the master a-1 refuses connections"),
    (servers(a1=replace(MASTER, role="replica", master=A2.endpoint)), None, "which says it is a replica"),
    (standing(), A1, "a-1 is the master already"),
    (servers(a2=Silent("refuses connections")), A2, "a-2 cannot be promoted: it refuses connections"),
    (servers(a2=replace(REPLICA, link_up=False)), A2, "is not in sync"),
    (servers(a2=replace(REPLICA, loading=True)), A2, "is not in sync"),
    (servers(a2=replace(REPLICA, priority=0)), A2, "replica-priority 0"),
    (servers(a2=replace(REPLICA, master=A3.endpoint)), A2, "is no replica of a-1"),
    (servers(a1=replace(MASTER, offset=1 << 30)), A2, "bytes behind"),
    (servers(a1=replace(MASTER, replicas=(ReplicaSeen(A2.endpoint, 990, 9),))), A2, "confirmed nothing for 9 s"),
    (sentinel(replace(SENTINEL, replicas={A3.endpoint: KNOWN[A3.endpoint]})), A2, "is not known to sentinel3"),
    (
        sentinel(replace(SENTINEL, replicas=KNOWN | {A2.endpoint: ReplicaKnown(up=False, priority=100)})),
        A2,
        "held to be down by sentinel3",
    ),
    (servers(a2=replace(REPLICA, priority=0), a3=replace(REPLICA, priority=0)), None, "a-2 cannot be promoted"),
    (servers(a3=Silent("did not answer within 1 s")), A2, "the sentinels might promote it"),
    (standing(hold_ms={"p": 999}), None, 'pool "p" holds requests for 999 ms only'),
    (standing(proxies=[(PROXY, Silent("refuses connections"))]), None, "proxy1 refuses connections"),
    (proxy(node="other"), None, "that is other"),
    (proxy(holds=[{"master": "a", "owner": "ann"}]), None, "holds the shard already, for ann"),
    (proxy(pools={"p": {"shards": {"a": ROUTE | {"endpoint": str(A2.endpoint)}}}}), None, "sends the shard to"),
    (proxy(pools={"p": {"shards": {"a": ROUTE | {"writable": False}}}}), None, "does not write to the shard now"),
]


@pytest.mark.parametrize(("stands", "to", "why"), LIMITS, ids=[why for _, _, why in LIMITS])
def test_one_thing_that_is_wrong_is_one_reason(stands: Standing, to: RedisNode | None, why: str) -> None:
    found = limitations(stands, to)
    assert any(why in error.what for error in found), found
    assert all(error.hint for error in found)


def test_a_coordinated_failover_wants_sentinels_that_know_it_and_a_longer_hold() -> None:
    found = limitations(standing(hold_ms={"p": 2000}), None, coordinated=True)
    assert len([error for error in found if "COORDINATED" in error.what]) == 3
    assert any("2000 ms only" in error.what for error in found)
    knows = replace(SENTINEL, coordinates=True, report=report(endpoint=A1.endpoint, down_after_ms=100))
    assert limitations(standing(sentinels=dict.fromkeys((S1, S2, S3), knows)), None, coordinated=True) == []


def test_the_best_replica_is_the_one_that_sentinel_would_take() -> None:
    assert choose(standing(), None) == A3, "has more"
    assert choose(servers(a2=replace(REPLICA, priority=10)), None) == A2, "a lower number comes first"
    assert choose(servers(a3=replace(REPLICA, link_up=False)), None) == A2


def test_others_are_passed_over_by_their_priority_only_where_that_is_needed() -> None:
    planned = plan(standing(), A2)
    assert planned.priorities == {A3: (100, 100 + RAISED)}
    assert planned.rivals == (A3,)
    assert plan(servers(a2=replace(REPLICA, priority=10)), A2).priorities == {}
    assert plan(servers(a3=replace(REPLICA, priority=0)), A2).priorities == {}


def test_a_plan_says_what_is_done() -> None:
    assert list(plan(standing(), A2).steps()) == [
        "have Sentinel pass over a-3: replica-priority 100 is 200 until the end",
        'hold the writes of shard "a" at proxy1, and wait until none is unanswered',
        "pause writes at a-1 for 800 ms at most (clients that use no proxy)",
        "wait until a-2 has everything that a-1 has",
        "sentinel1: SENTINEL FAILOVER a",
        "wait until a-2 is the master",
        "make a-1 its replica",
        "release the writes, to a-2",
        "wait until the sentinels name a-2, its replicas follow it and the proxies are settled",
    ]
