"""The supervisor under fire: who comes back after a kill -9, and as what, on real servers of both engines."""

from __future__ import annotations

import itertools
import shutil
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest
import redis

from shoal import state
from shoal.cluster import Cluster
from shoal.events import EventKind
from shoal.process import is_running
from tests.harness import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shoal.topology import RedisNode
    from tests.harness import EngineProgram

pytestmark = pytest.mark.timeout(120)

DOWN_AFTER = 1.0
FAILOVER_TIMEOUT = 3.0


def one_shard(engine: EngineProgram, directory: Path) -> Cluster:
    """One shard with a replica: what concerns the supervisor shows on one."""
    return Cluster(
        ["a"],
        1,
        directory=directory,
        proxies=1,
        engine=str(engine.server),
        sentinel={"down_after": f"{DOWN_AFTER}s", "failover_timeout": f"{FAILOVER_TIMEOUT}s"},
    )


@pytest.fixture
def cluster(engine: EngineProgram, tmp_path: Path) -> Iterator[Cluster]:
    """For what depends on how Sentinel and the servers behave: on each engine."""
    with one_shard(engine, tmp_path / "cluster") as running:
        yield running


@pytest.fixture
def one_cluster(valkey: EngineProgram, tmp_path: Path) -> Iterator[Cluster]:
    """For what the supervisor does by itself."""
    with one_shard(valkey, tmp_path / "cluster") as running:
        yield running


def direct(node: RedisNode) -> redis.Redis:
    return redis.Redis(*node.endpoint, socket_timeout=2)


def role_at_start(cluster: Cluster, node: str) -> list[str]:
    """As what a node was started, each time."""
    return [told.text for told in cluster.events() if told.part == node and told.kind is EventKind.STARTED]


def fill(cluster: Cluster, count: int = 200) -> None:
    with redis.Redis(*cluster.address) as client:
        for number in range(count):
            client.set(f"key:{number}", number)
    master, replicas = cluster.master_of("a"), len(cluster.layout.shard_nodes("a")) - 1
    with direct(master) as client:
        assert client.wait(replicas, 2000) == replicas


def assert_filled(cluster: Cluster, count: int = 200) -> None:
    with redis.Redis(*cluster.address, socket_timeout=10) as client:
        assert [client.get(f"key:{number}") for number in range(count)] == [b"%d" % n for n in range(count)]


def node(cluster: Cluster, name: str) -> RedisNode:
    return next(one for one in cluster.layout.redis if one.name == name)


def empty(cluster: Cluster, name: str) -> None:
    """Remove the data of a node that is down, as a lost disk does."""
    home = state.node_directory(cluster.state_directory, name, "redis")
    for entry in home.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.suffix != ".conf" and entry.name != "log":
            entry.unlink()


def wait_for_restart(cluster: Cluster, name: str, pid: int | None) -> None:
    wait_until(lambda: cluster.pid(name) not in (None, pid), 10, f"{name} to run again")


def test_a_killed_master_comes_back_as_a_replica_and_only_once_another_is_named(cluster: Cluster) -> None:
    fill(cluster)
    killed_at = time.monotonic()
    cluster.kill("a-1")
    cluster.wait_until(lambda now: now.part("a-1").role == "replica", 20, "a-1 to be a replica")
    assert time.monotonic() - killed_at >= DOWN_AFTER
    told = [(event.kind, event.part) for event in cluster.events() if event.kind is not EventKind.NOTICE]
    died = told.index((EventKind.DIED, "a-1"))
    named = died + told[died:].index((EventKind.MASTER, "a"))
    assert named < died + told[died:].index((EventKind.STARTED, "a-1"))
    assert role_at_start(cluster, "a-1")[-1].startswith("as a replica of a-2, not to be promoted before")
    cluster.wait_until_well()
    assert cluster.master_of("a").name == "a-2"
    assert_filled(cluster)


def test_a_failover_then_down_and_up_changes_neither_master_nor_data(cluster: Cluster) -> None:
    fill(cluster)
    cluster.kill("a-1")
    cluster.wait_until(lambda now: now.master("a") == "a-2" and now.ok, 30, "a-2 to be master and all well")
    before = cluster.status().shards
    cluster.stop()
    cluster.start()
    after = cluster.wait_until_well()
    assert after.shards == before
    assert role_at_start(cluster, "a-2")[-1].startswith("as the master")
    assert role_at_start(cluster, "a-1")[-1].startswith("as a replica of a-2 (")  # current: not guarded
    assert_filled(cluster)


def test_an_emptied_master_never_wipes_its_replica_under_watch(cluster: Cluster) -> None:
    fill(cluster)
    cluster.kill("a-1")
    wait_until(lambda: cluster.pid("a-1") is None, 5, "a-1 to be gone")
    empty(cluster, "a-1")
    cluster.wait_until(lambda now: now.master("a") == "a-2" and now.ok, 30, "a-2 to be master and all well")
    assert_filled(cluster)
    with direct(node(cluster, "a-1")) as client:
        assert client.dbsize() == 200


def test_an_emptied_master_never_wipes_its_replica_at_a_cold_start(cluster: Cluster) -> None:
    fill(cluster)
    cluster.stop()
    empty(cluster, "a-1")
    cluster.start()
    status = cluster.wait_until(lambda now: now.master("a") == "a-2" and now.ok, 30, "a-2 to be master, all well")
    assert status.part("a-1").role == "replica"
    assert any(
        told.kind is EventKind.HELD_BACK and "its data is gone while a-2 has some" in told.text
        for told in cluster.events()
    )
    assert_filled(cluster)


def test_an_emptied_replica_is_not_promoted_before_it_has_caught_up(cluster: Cluster) -> None:
    fill(cluster)
    cluster.stop()
    empty(cluster, "a-2")
    cluster.start()
    assert role_at_start(cluster, "a-2")[-1].startswith("as a replica of a-1, not to be promoted before")
    cluster.wait_until_well()
    with direct(node(cluster, "a-2")) as client:
        assert client.info("replication")["slave_priority"] == 100
        assert client.dbsize() == 200


def test_a_master_without_a_promotable_replica_is_master_again_after_twice_the_failover_timeout(
    cluster: Cluster,
) -> None:
    fill(cluster)
    cluster.kill("a-2", signal.SIGSTOP)
    cluster.wait_until(lambda now: now.part("a-2").health == "silent", 10, "a-2 to hang")
    time.sleep(3)  # so that its last answer is no longer fresh for the supervisor either
    died_at = time.monotonic()
    cluster.kill("a-1")
    cluster.wait_until(lambda now: now.part("a-1").role == "master", 30, "a-1 to be master again")
    assert time.monotonic() - died_at >= 2 * FAILOVER_TIMEOUT
    cluster.kill("a-2", signal.SIGCONT)
    cluster.wait_until_well()
    assert_filled(cluster)


def test_a_master_that_cannot_load_its_data_is_replaced_at_a_cold_start(cluster: Cluster) -> None:
    fill(cluster)
    cluster.stop()
    home = state.node_directory(cluster.state_directory, "a-1", "redis")
    for file in (home / "appendonlydir").glob("*.base.rdb"):
        file.write_bytes(b"REDIS0011 and then nonsense" * 10)
    cluster.start()
    cluster.wait_until(lambda now: now.master("a") == "a-2", 30, "a-2 to be master")
    assert_filled(cluster)
    problems = cluster.wait_until(lambda now: now.part("a-1").health == "down", 10, "a-1 to be down").problems
    assert any(problem.startswith("a-1 is down: it ") for problem in problems), problems


def test_all_servers_of_a_shard_killed_at_once_come_back_with_their_data(cluster: Cluster) -> None:
    fill(cluster)
    cluster.kill("a-1")
    cluster.kill("a-2")
    cluster.wait_until(lambda now: now.master("a") is not None and now.ok, 60, "all to be well")
    assert_filled(cluster)


def test_everything_killed_at_once_comes_back_as_it_was(one_cluster: Cluster) -> None:
    fill(one_cluster)
    one_cluster.kill_supervisor()
    for unit in state.load_units(one_cluster.state_directory):
        one_cluster.kill(unit)
    one_cluster.start()
    assert one_cluster.wait_until_well().master("a") == "a-1"
    assert_filled(one_cluster)


def test_a_cache_that_keeps_nothing_starts_empty_with_its_master(valkey: EngineProgram, tmp_path: Path) -> None:
    """What a synchronisation left on a replica's disk is old, and must not be served at the next start."""
    cache = {"appendonly": "no", "save": ""}
    directory = tmp_path / "cluster"
    with Cluster(["a"], 1, directory=directory, proxies=1, engine=str(valkey.server), redis=cache) as cluster:
        fill(cluster)
        cluster.stop()
        cluster.start()
        assert cluster.wait_until_well().master("a") == "a-1"
        with redis.Redis(*cluster.address) as client:
            assert client.get("key:1") is None


def fail_all_over(cluster: Cluster, shards: list[str]) -> None:
    masters = [cluster.master_of(shard).name for shard in shards]
    for name in masters:
        cluster.kill(name)
    cluster.wait_until(lambda now: {now.part(name).role for name in masters} == {"replica"}, 40, "replicas")
    cluster.wait_until_well()


def test_a_new_master_is_never_taken_for_dead(engine: EngineProgram, tmp_path: Path) -> None:
    """With a down_after of a second Sentinel would do so, were it not told to reconnect sooner."""
    fast = {"down_after": "1s"}
    cluster = Cluster(3, 1, directory=tmp_path / "cluster", proxies=1, engine=str(engine.server), sentinel=fast)
    rounds = 4
    with cluster:
        shards = list(cluster.layout.topology.shards)
        for _ in range(rounds):
            fail_all_over(cluster, shards)
            time.sleep(1.5)  # within this a sentinel would have held the new master to be down
        logs = [cluster.log_of(node.name) for node in cluster.layout.sentinels]
    assert [log.count("+sdown master") for log in logs] == [rounds * len(shards)] * len(logs)


def test_replicas_sentinels_and_proxies_are_restarted_at_once(one_cluster: Cluster) -> None:
    before = {name: one_cluster.pid(name) for name in ("a-2", "sentinel1", "proxy1")}
    saved = (state.node_directory(one_cluster.state_directory, "sentinel1", "sentinel") / "sentinel.conf").read_text()
    for name in before:
        one_cluster.kill(name)
    for name, pid in before.items():
        wait_for_restart(one_cluster, name, pid)
    one_cluster.wait_until_well()
    conf = (state.node_directory(one_cluster.state_directory, "sentinel1", "sentinel") / "sentinel.conf").read_text()
    my_id = next(line for line in saved.splitlines() if line.startswith("sentinel myid"))
    assert my_id in conf
    assert one_cluster.master_of("a").name == "a-1"


def test_a_process_that_keeps_dying_is_started_less_and_less_often(one_cluster: Cluster) -> None:
    starts: list[float] = []
    for _ in range(5):
        starts.append(time.monotonic())
        pid = one_cluster.pid("sentinel2")
        one_cluster.kill("sentinel2")
        wait_for_restart(one_cluster, "sentinel2", pid)
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps[-1] > 0.7  # the third pause is 0.8 s
    assert gaps[-1] > gaps[0]


def test_what_a_killed_supervisor_leaves_is_adopted(one_cluster: Cluster) -> None:
    fill(one_cluster)
    pids = {name: one_cluster.pid(name) for name in ("a-1", "a-2", "sentinel1", "proxy1")}
    one_cluster.kill_supervisor()
    assert_filled(one_cluster)  # nothing of it went with the supervisor
    assert any("nobody supervises this cluster" in problem for problem in one_cluster.status().problems)
    one_cluster.start()
    assert {name: one_cluster.pid(name) for name in pids} == pids
    one_cluster.wait_until_well()
    one_cluster.kill("a-2")  # and it is watched like one's own child
    wait_for_restart(one_cluster, "a-2", pids["a-2"])
    one_cluster.wait_until_well()


def test_what_a_killed_supervisor_leaves_is_stopped_by_stop(one_cluster: Cluster) -> None:
    pids = one_cluster.pids()
    one_cluster.kill_supervisor()
    one_cluster.stop()
    assert not [pid for pid in pids if psutil.pid_exists(pid) and is_running(pid, psutil.Process(pid).create_time())]


def test_a_master_killed_while_the_supervisor_is_away_is_left_to_sentinel(one_cluster: Cluster) -> None:
    fill(one_cluster)
    one_cluster.kill_supervisor()
    one_cluster.kill("a-1")
    one_cluster.start()
    one_cluster.wait_until(lambda now: now.master("a") == "a-2" and now.ok, 30, "a-2 to be master and all well")
    assert role_at_start(one_cluster, "a-1")[-1].startswith("as a replica of a-2")
    assert_filled(one_cluster)
