"""What the supervisor makes of what it sees (lookout), what it refuses before it starts (opening), and its launches."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoal import ports, state
from shoal.ask import RedisSays
from shoal.config import parse
from shoal.engine import Engine
from shoal.errors import ConfigError, StateError
from shoal.hosts import LocalHost
from shoal.lookout import Lookout
from shoal.opening import hosts_here, require_fit, rings
from shoal.parts import Launcher, Part, kind_of, listening, main_endpoint
from shoal.rules import Start, Word
from shoal.sentinel import Report
from shoal.state import Identity, UnitRecord
from shoal.supervisor import ping_period
from shoal.topology import Endpoint, Layout, ProxyNode, RedisNode, SentinelNode, Topology, lay_out, ports_to_choose

ENGINE = Engine(Path("/bin/redis-server"), ("--sentinel",), "redis", (7, 0, 15), "a test")


def laid_out(**sections: Any) -> Layout:
    topology = parse({"shards": {"a": {"replicas": 1}}, "proxy": {"nodes": 1}, **sections})
    return lay_out(topology, {key: 7001 + n for n, key in enumerate(ports_to_choose(topology))})


LAYOUT = laid_out()
A1, A2 = (node.endpoint for node in LAYOUT.redis)


def report(endpoint: Endpoint, epoch: int, *flags: str) -> Report:
    return Report(endpoint, frozenset({"master", *flags}), "master", "", epoch, 1000, 2, 2)


def replica_of(endpoint: Endpoint, **changes: Any) -> RedisSays:
    says = RedisSays("replica", loading=False, keys=1, offset=5, priority=100, master=endpoint, link_up=True)
    return replace(says, **changes)


MASTER = RedisSays("master", loading=False, keys=1, offset=5, priority=100)


class Watched:
    """A lookout whose parts say what a test has them say."""

    def __init__(self, directory: Path, layout: Layout = LAYOUT) -> None:
        self.launcher = Launcher(layout, directory, ENGINE, directory / "shoal.yaml")
        self.parts = {
            node.name: Part(node, here=True, record=UnitRecord(kind=kind_of(node), endpoint=str(main_endpoint(node))))
            for node in layout.nodes()
        }
        self.lookout = Lookout(layout, self.parts, self.launcher)

    def runs(self, name: str, says: RedisSays) -> None:
        self.parts[name].process = object()  # type: ignore[assignment]  # only whether there is one matters
        self.parts[name].heard(says)

    def sentinels(self, *reports: Report) -> None:
        for number, said in enumerate(reports, 1):
            self.parts[f"sentinel{number}"].heard_words({"a": said})
        self.lookout.take_words()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


class TestWords:
    def test_a_majority_is_believed(self, watched: Watched) -> None:
        watched.sentinels(report(A1, 0), report(A2, 1), report(A2, 1))
        assert watched.lookout.words == {"a": Word(A2, 1)}
        assert watched.lookout.live == {"a"}

    def test_without_one_the_last_word_stays_and_is_not_live(self, watched: Watched) -> None:
        watched.sentinels(report(A1, 0), report(A1, 0), report(A1, 0))
        watched.parts["sentinel2"].says_at = watched.parts["sentinel3"].says_at = 0.0
        watched.lookout.take_words()
        assert watched.lookout.words == {"a": Word(A1, 0)}
        assert watched.lookout.live == frozenset()

    async def test_at_a_cold_start_the_highest_saved_epoch_counts(self, watched: Watched) -> None:
        for number, (endpoint, epoch) in enumerate([(A1, 0), (A2, 2), (A1, 1)], 1):
            home = watched.launcher.directory / "nodes" / f"sentinel{number}"
            home.mkdir(parents=True)
            text = f"sentinel monitor a {endpoint.host} {endpoint.port} 2\nsentinel config-epoch a {epoch}\n"
            (home / "sentinel.conf").write_text(text)
        await watched.lookout.look_once()
        assert watched.lookout.words == {"a": Word(A2, 2)}
        assert not watched.lookout.facts("a").live

    def test_one_that_fails_over_is_noticed(self, watched: Watched) -> None:
        watched.sentinels(report(A1, 0), report(A1, 0, "failover_in_progress"), report(A1, 0))
        assert watched.lookout.facts("a").failing_over


class TestPromotable:
    @pytest.mark.parametrize(
        ("says", "promotable"),
        [
            (replica_of(A1), True),
            (replica_of(A1, link_up=False, link_down_seconds=3), True),
            (replica_of(A1, link_up=False, link_down_seconds=-1), True),
            (replica_of(A1, link_up=False, link_down_seconds=3600), False),
            (replica_of(A1, loading=True), False),
            (replica_of(A1, priority=0), False),
            (MASTER, True),  # it has just been promoted
        ],
    )
    def test_it_is_sentinels_own_measure(self, watched: Watched, says: RedisSays, promotable: bool) -> None:
        watched.runs("a-2", says)
        assert watched.lookout.facts("a").members[1].promotable is promotable

    def test_a_link_may_be_down_for_as_long_as_the_master_is(self, watched: Watched) -> None:
        watched.sentinels(report(A1, 0), report(A1, 0))
        watched.runs("a-2", replica_of(A1, link_up=False, link_down_seconds=100))
        assert not watched.lookout.facts("a").members[1].promotable
        watched.parts["a-1"].died_at = time.monotonic() - 99
        assert watched.lookout.facts("a").members[1].promotable

    def test_one_that_is_silent_is_not(self, watched: Watched) -> None:
        watched.runs("a-2", replica_of(A1))
        watched.parts["a-2"].says_at = 0.0
        assert not watched.lookout.facts("a").members[1].promotable


class TestCurrency:
    def test_the_master_and_a_replica_in_sync_are_current(self, watched: Watched) -> None:
        watched.sentinels(report(A1, 4), report(A1, 4))
        watched.runs("a-1", MASTER)
        watched.runs("a-2", replica_of(A1))
        assert watched.lookout.note_currency()
        assert [watched.parts[name].record.epoch for name in ("a-1", "a-2")] == [4, 4]
        assert [watched.parts[name].record.role for name in ("a-1", "a-2")] == ["master", "replica"]
        assert not watched.lookout.note_currency()

    @pytest.mark.parametrize("says", [MASTER, replica_of(A1, link_up=False), replica_of(Endpoint("::1", 1))])
    def test_who_is_not_in_sync_with_the_named_master_is_not_noted(self, watched: Watched, says: RedisSays) -> None:
        watched.sentinels(report(A1, 4), report(A1, 4))
        watched.runs("a-2", says)
        watched.lookout.note_currency()
        assert watched.parts["a-2"].record.epoch is None

    def test_a_replica_that_was_cut_off_for_long_is_current_no_more(self, watched: Watched) -> None:
        watched.sentinels(report(A1, 4), report(A1, 4))
        watched.parts["a-2"].remember(epoch=4)
        watched.runs("a-2", replica_of(A1, link_up=False, link_down_seconds=3600))
        assert watched.lookout.note_currency()
        assert watched.parts["a-2"].record.epoch is None

    def test_without_a_live_majority_nothing_is_noted(self, watched: Watched) -> None:
        watched.runs("a-1", MASTER)
        watched.lookout.note_currency()
        assert watched.parts["a-1"].record.epoch is None


class TestOpening:
    def test_a_node_must_stay_where_sentinels_know_it(self) -> None:
        require_fit(Identity(cluster="shoal", parts={"a-1": str(A1), "proxy1": "127.0.0.1:1"}), LAYOUT)
        with pytest.raises(StateError, match=r"a-1 was at 127\.0\.0\.1:1, is to be at 127\.0\.0\.1:7001"):
            require_fit(Identity(cluster="shoal", parts={"a-1": "127.0.0.1:1"}), LAYOUT)

    @pytest.mark.parametrize(
        "changed",
        [
            {"shards": {"a": {}, "b": {}}},
            {"shards": {"a": {"weight": 2}}},
            {"proxy": {"nodes": 1, "hash_tag": "{}"}},
            {"proxy": {"nodes": 1, "hash": "md5"}},
        ],
    )
    def test_a_ring_must_stay_as_it_is(self, changed: dict[str, Any]) -> None:
        kept = Identity(cluster="shoal", rings=rings(LAYOUT.topology))
        require_fit(kept, LAYOUT)
        with pytest.raises(StateError, match='pool "shoal" had another ring'):
            require_fit(kept, laid_out(**changed))

    def test_hosts_with_an_address_of_this_machine_are_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ports, "is_local", lambda address: address == "203.0.113.8")
        topology = placed("203.0.113.8", "203.0.113.9")
        assert hosts_here(topology, lay_out(topology, {}), None) == {"one"}
        assert hosts_here(topology, lay_out(topology, {}), "two") == {"two"}
        with pytest.raises(ConfigError, match='no part runs on host "three"'):
            hosts_here(topology, lay_out(topology, {}), "three")

    def test_a_machine_that_is_no_host_is_told_so(self) -> None:
        topology = placed("203.0.113.8", "203.0.113.9")
        with pytest.raises(ConfigError, match="no part of the topology runs on this machine"):
            hosts_here(topology, lay_out(topology, {}), None)

    def test_an_address_is_local_if_an_interface_has_it(self) -> None:
        assert ports.is_local("127.0.0.1")
        assert ports.is_local("::1")
        assert not ports.is_local("203.0.113.9")
        assert not ports.is_local("a name")

    def test_chosen_ports_are_apart_and_below_the_ephemeral_ones(self) -> None:
        chosen = ports.choose([f"key{number}" for number in range(50)], avoid=[])
        assert len(set(chosen.values())) == 50
        assert max(chosen.values()) < 32768


def placed(one: str, two: str) -> Topology:
    return parse(
        {
            "hosts": {"one": one, "two": two},
            "shards": {"a": {"master": "one:1", "replicas": ["two:2"]}},
            "sentinel": {"nodes": ["one:3", "two:4", "one:5"]},
            "proxy": {"nodes": {"p": {"host": "one", "port": 6, "admin": 7, "stats": 8}}},
            "insecure": True,
        }
    )


class TestLaunching:
    def launch(self, directory: Path, start: Start, layout: Layout = LAYOUT) -> tuple[str, ...]:
        launcher = Launcher(layout, directory, ENGINE, directory / "shoal.yaml")
        return asyncio.run(launcher.redis(layout.redis[1], start, LocalHost(directory))).argv

    def test_the_decision_is_in_the_arguments_and_comes_last(self, tmp_path: Path) -> None:
        home = tmp_path / "nodes" / "a-2"
        files = (str(home / "redis.conf"), "--include", str(home / "shoal.conf"))
        argv = self.launch(tmp_path, Start(A1, guarded=True))
        assert argv[1:4] == files
        assert argv[4:] == ("--replicaof", "127.0.0.1", "7001", "--replica-priority", "0")
        argv = self.launch(tmp_path, Start(None))
        assert argv[4:] == ("--replicaof", "no", "one", "--replica-priority", "100")

    def test_redis_conf_is_written_once_and_shoal_conf_each_time(self, tmp_path: Path) -> None:
        home = tmp_path / "nodes" / "a-2"
        self.launch(tmp_path, Start(A1))
        (home / "redis.conf").write_text("the server's own")
        (home / "shoal.conf").write_text("somebody's")
        self.launch(tmp_path, Start(A1), laid_out(redis={"maxmemory": "1gb"}))
        assert (home / "redis.conf").read_text() == "the server's own"
        assert "maxmemory 1gb" in (home / "shoal.conf").read_text()

    def test_sentinels_know_each_other_and_the_replicas_from_the_start(self, tmp_path: Path) -> None:
        launcher = Launcher(LAYOUT, tmp_path, ENGINE, tmp_path / "shoal.yaml")
        node = LAYOUT.sentinels[0]
        asyncio.run(launcher.sentinel(node, {"a": A2}, LocalHost(tmp_path)))
        lines = launcher.sentinel_conf(node).read_text().splitlines()
        assert "sentinel known-replica a 127.0.0.1 7001" in lines
        known = [line.split() for line in lines if line.startswith("sentinel known-sentinel a ")]
        assert [int(words[4]) for words in known] == [one.endpoint.port for one in LAYOUT.sentinels[1:]]
        asyncio.run(launcher.sentinel(LAYOUT.sentinels[1], {"a": A2}, LocalHost(tmp_path)))
        other = launcher.sentinel_conf(LAYOUT.sentinels[1]).read_text()
        assert f"sentinel myid {known[0][5]}" in other

    @pytest.mark.parametrize(
        ("redis", "file", "kept"),
        [
            ({}, "appendonlydir/appendonly.aof.1.base.rdb", True),
            ({}, "dump.rdb", True),
            ({}, "nodes.conf", False),
            ({"appendonly": "no"}, "dump.rdb", True),
            ({"appendonly": "no", "save": ""}, "dump.rdb", False),
            ({"dbfilename": "other.rdb"}, "other.rdb", True),
            ({"dbfilename": "other.rdb"}, "dump.rdb", False),
        ],
    )
    def test_data_is_what_a_server_that_persists_would_load(
        self, tmp_path: Path, redis: dict[str, str], file: str, kept: bool
    ) -> None:
        layout = laid_out(redis=redis)
        launcher = Launcher(layout, tmp_path, ENGINE, tmp_path / "shoal.yaml")
        path = launcher.home(layout.redis[0]) / file
        assert not launcher.has_data(layout.redis[0])
        state.write_file(path, "something")
        assert launcher.has_data(layout.redis[0]) is kept

    def test_what_a_part_must_be_started_anew_for_changes_its_digest(self, tmp_path: Path) -> None:
        def digests(**sections: Any) -> list[str]:
            layout = laid_out(**sections)
            launcher = Launcher(layout, tmp_path, ENGINE, tmp_path / "shoal.yaml")
            return [launcher.digest(node) for node in (layout.redis[0], layout.sentinels[0], layout.proxies[0])]

        before = digests()
        assert digests() == before
        changed = digests(sentinel={"down_after": "7s"})
        assert changed[0] == before[0]
        assert changed[1] != before[1]
        assert digests(redis={"maxmemory": "1gb"})[0] != before[0]
        assert digests(proxy={"nodes": 1, "timeout": "1s"})[2] != before[2]

    @pytest.mark.parametrize(
        ("down_after", "period"), [(1500, None), (1200, None), (1000, 500), (500, 300), (100, 300)]
    )
    def test_sentinels_reconnect_well_within_down_after(self, down_after: int, period: int | None) -> None:
        assert ping_period(down_after) == period

    def test_every_socket_of_a_node_is_checked(self) -> None:
        assert list(listening(LAYOUT.proxies[0])) == ["proxy1 (pool shoal)", "proxy1 (admin)", "proxy1 (stats)"]
        assert listening(LAYOUT.redis[0]) == {"a-1": A1}
        assert [kind_of(node) for node in LAYOUT.nodes()] == ["redis", "redis", *["sentinel"] * 3, "proxy"]
        assert all(isinstance(node, RedisNode | SentinelNode | ProxyNode) for node in LAYOUT.nodes())
