"""What everybody said comes to: a health for each part, and a sentence for each thing that is not well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shoal.ask import ProxySays, RedisSays, ReplicaSeen, Silent
from shoal.config import parse
from shoal.events import EventKind, event
from shoal.health import Findings, Status, judge
from shoal.sentinel import Report
from shoal.state import UnitRecord
from shoal.topology import Endpoint, Layout, lay_out, ports_to_choose

TOPOLOGY = parse({"shards": {"a": {"replicas": 1}}, "proxy": {"nodes": 1}})
LAYOUT: Layout = lay_out(TOPOLOGY, {key: 7001 + n for n, key in enumerate(ports_to_choose(TOPOLOGY))})
A1, A2 = (node.endpoint for node in LAYOUT.redis)
REFUSES = Silent("refuses connections")

MASTER = RedisSays(
    role="master", loading=False, keys=5, offset=1000, priority=100, replicas=(ReplicaSeen(A2, 900, 1),), version="9"
)
REPLICA = RedisSays(role="replica", loading=False, keys=5, offset=900, priority=100, master=A1, link_up=True)


def report(endpoint: Endpoint = A1, **changes: Any) -> Report:
    said = Report(
        endpoint=endpoint,
        flags=frozenset({"master"}),
        role_reported="master",
        failover_state="",
        config_epoch=3,
        down_after_ms=1000,
        quorum=2,
        other_sentinels=2,
    )
    return replace(said, **changes)


def proxy(endpoint: Endpoint = A1, **changes: Any) -> ProxySays:
    shards = {"a": {"endpoint": str(endpoint), "config_epoch": 3}}
    said = ProxySays(healthy=True, ready=True, topology={"pools": {"shoal": {"clients": 2, "shards": shards}}})
    return replace(said, **changes)


def findings(**changes: Any) -> Findings:
    everybody = Findings(
        redis={"a-1": MASTER, "a-2": REPLICA},
        sentinels={name: {"a": report()} for name in ("sentinel1", "sentinel2", "sentinel3")},
        proxies={"proxy1": proxy()},
        units={"a-1": UnitRecord(kind="redis", endpoint=str(A1), epoch=3)},
        pids={"a-1": 11, "a-2": 12},
        supervisor=1,
    )
    return replace(everybody, **changes)


def judged(**changes: Any) -> Status:
    return judge(LAYOUT, findings(**changes))


def test_a_proxy_tells_at_how_many_replicas_it_reads() -> None:
    replicas = {"10.0.0.1:1": {"reads": True}, "10.0.0.1:2": {"reads": False}}
    shards = {"a": {"endpoint": str(A1), "config_epoch": 3, "replicas": replicas}}
    said = proxy(topology={"pools": {"shoal": {"clients": 2, "shards": shards}}})
    assert judged(proxies={"proxy1": said}).part("proxy1").detail == "2 clients, reads at 1 of 2 replicas"
    assert judged().part("proxy1").detail == "2 clients"


def test_all_is_well() -> None:
    status = judged()
    assert status.ok
    assert status.problems == ()
    assert status.master("a") == "a-1"
    assert (status.part("a-1").role, status.part("a-1").pid, status.part("a-1").config_epoch) == ("master", 11, 3)
    assert (status.part("a-2").lag_bytes, status.part("a-2").lag_seconds) == (100, 1)
    assert status.part("proxy1").detail == "2 clients"
    assert {part.health for part in status.parts} == {"ok"}


@pytest.mark.parametrize(
    ("redis", "health", "sentence"),
    [
        ({"a-1": MASTER, "a-2": REFUSES}, "silent", "a-2 runs (pid 12) but refuses connections"),
        ({"a-1": MASTER, "a-2": replace(REPLICA, loading=True)}, "loading", "a-2 is loading its data"),
        ({"a-1": MASTER, "a-2": replace(REPLICA, link_up=False)}, "syncing", "a-2 is not in sync with its master"),
        ({"a-1": MASTER, "a-2": replace(REPLICA, master=Endpoint("1.1.1.1", 1))}, "astray", "a-2 follows 1.1.1.1:1,"),
        ({"a-1": MASTER, "a-2": replace(MASTER, replicas=())}, "second master", "a-2 says it is a master too"),
        (
            {"a-1": replace(MASTER, replicas=(ReplicaSeen(A2, 900, 11),)), "a-2": REPLICA},
            "lagging",
            "a-2 lags 11 s behind its master",
        ),
    ],
)
def test_a_replica_that_is_not_well(redis: dict[str, Any], health: str, sentence: str) -> None:
    status = judged(redis=redis)
    assert status.part("a-2").health == health
    assert [problem for problem in status.problems if problem.startswith(sentence)]


def test_a_named_master_that_is_a_replica() -> None:
    status = judged(redis={"a-1": replace(REPLICA, master=A2), "a-2": replace(MASTER, replicas=())})
    assert status.part("a-1").health == "wrong role"
    assert status.part("a-2").health == "second master"


def test_a_part_that_is_down_says_why_it_is_held() -> None:
    told = {"a-1": event(EventKind.HELD_BACK, "Sentinel is to promote a-2", "a-1")}
    status = judged(redis={"a-1": REFUSES, "a-2": REPLICA}, pids={}, told=told)
    assert status.part("a-1").health == "held"
    assert "a-1 is held back: Sentinel is to promote a-2" in status.problems


def test_a_part_that_is_down_says_how_it_died() -> None:
    told = {"a-2": event(EventKind.DIED, "exited with 1 (pid 7) after 0.1 s", "a-2")}
    status = judged(redis={"a-1": MASTER, "a-2": REFUSES}, pids={}, told=told)
    assert "a-2 is down: it exited with 1 (pid 7) after 0.1 s" in status.problems


def test_a_guarded_replica_is_a_problem_until_it_has_caught_up() -> None:
    guarded = UnitRecord(kind="redis", endpoint=str(A2), guarded=True)
    assert judged(units={"a-2": guarded}).problems == ("a-2 may not be promoted before it has caught up",)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({}, 'sentinel2 does not watch shard "a"'),
        ({"a": report(A2)}, 'sentinel2 names 127.0.0.1:7002 as the master of shard "a", the others 127.0.0.1:7001'),
        (
            {"a": report(failover_state="x", flags=frozenset({"failover_in_progress"}))},
            'sentinel2 is failing shard "a"',
        ),
        ({"a": report(flags=frozenset({"s_down"}))}, 'sentinel2 holds the master of shard "a" to be down'),
        ({"a": report(other_sentinels=1)}, 'sentinel2 knows 1 of 2 other sentinels of shard "a"'),
        ({"a": report(other_sentinels=3)}, 'sentinel2 counts 4 sentinels of shard "a", the topology 3'),
        ({"a": report(quorum=1)}, 'sentinel2 has quorum 1 for shard "a", the topology 2'),
        (REFUSES, "sentinel2 is down"),
    ],
)
def test_a_sentinel_that_is_not_well(said: Any, sentence: str) -> None:
    sentinels = {"sentinel1": {"a": report()}, "sentinel2": said, "sentinel3": {"a": report()}}
    status = judged(sentinels=sentinels)
    assert status.master("a") == "a-1"
    assert [problem for problem in status.problems if problem.startswith(sentence)]


def test_without_a_majority_of_sentinels_nobody_is_master() -> None:
    status = judged(sentinels={"sentinel1": {"a": report()}, "sentinel2": REFUSES, "sentinel3": REFUSES})
    assert status.master("a") is None
    assert 'no majority of the sentinels names a master of shard "a"' in status.problems


@pytest.mark.parametrize(
    ("said", "health", "sentence"),
    [
        (proxy(healthy=False, why_not=("worker 1 is stuck",)), "unhealthy", "proxy1 is unhealthy: worker 1 is stuck"),
        (proxy(ready=False, why_not=("no master",)), "holding", "proxy1 holds requests: no master"),
        (proxy(A2), "stale", 'proxy1 sends shard "a" to 127.0.0.1:7002, not to 127.0.0.1:7001'),
        (REFUSES, "down", "proxy1 is down"),
    ],
)
def test_a_proxy_that_is_not_well(said: Any, health: str, sentence: str) -> None:
    status = judged(proxies={"proxy1": said})
    assert status.part("proxy1").health == health
    assert sentence in status.problems


def test_a_cluster_that_is_down_is_one_sentence() -> None:
    nothing = {"a-1": REFUSES, "a-2": REFUSES}
    silent = dict.fromkeys(("sentinel1", "sentinel2", "sentinel3"), REFUSES)
    status = judged(redis=nothing, sentinels=silent, proxies={"proxy1": REFUSES}, pids={}, supervisor=None)
    assert status.problems == ("the cluster is not up: start it with `shoal up`",)


def test_processes_without_a_supervisor_are_a_problem() -> None:
    assert judged(supervisor=None).problems == (
        "nobody supervises this cluster, of which 2 processes run: `shoal up` adopts them",
    )
