"""Commands that concern every shard: merged as one Redis would answer, over three shards and over one."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest
import redis as redis_py

from tests.harness import link_up, wait_until
from tests.integration.wire import Wire, WireError
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from tests.harness import RedisServer, Servers

LIBRARY = "#!lua name=mylib\nredis.register_function('f', function() return 1 end)"
KEYS = {f"{number}:key" for number in range(200)}


@pytest.fixture
def filled(client: redis.Redis) -> redis.Redis:
    client.mset(dict.fromkeys(KEYS, "v"))
    return client


@pytest.fixture
def directs(proxy: PlaneHost) -> Iterator[list[redis.Redis]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.client()) for server in proxy.servers.values()]


def text(names: Any) -> set[str]:
    return {name.decode() for name in names}


def test_the_keys_of_all_shards_are_counted_listed_and_drawn(filled: redis.Redis) -> None:
    assert filled.dbsize() == len(KEYS)
    assert text(filled.keys("*")) == KEYS
    assert text(filled.keys("1?:key")) == {f"1{digit}:key" for digit in range(10)}
    assert filled.randomkey().decode() in KEYS  # type: ignore[union-attr]


def test_a_key_is_drawn_while_one_shard_has_one(client: redis.Redis) -> None:
    assert client.randomkey() is None
    client.set("only", "1")
    assert {client.randomkey() for _ in range(20)} == {b"only"}


def test_flushdb_empties_one_database_and_flushall_all_of_them(make_client: Callable[..., redis.Redis]) -> None:
    first, second = make_client(), make_client(db=1)
    for client in (first, second):
        client.mset(dict.fromkeys(KEYS, "v"))
    assert second.flushdb() is True
    assert (first.dbsize(), second.dbsize()) == (len(KEYS), 0)
    second.mset(dict.fromkeys(KEYS, "v"))
    assert first.flushall(asynchronous=True) is True
    assert (first.dbsize(), second.dbsize()) == (0, 0)


def test_databases_are_swapped_on_all_shards(make_client: Callable[..., redis.Redis]) -> None:
    first, second = make_client(), make_client(db=1)
    first.mset(dict.fromkeys(KEYS, "v"))
    assert first.execute_command("SWAPDB", 0, 1) is True
    assert (first.dbsize(), second.dbsize()) == (0, len(KEYS))


def test_scripts_are_loaded_and_asked_for_on_all_shards(client: redis.Redis, directs: list[redis.Redis]) -> None:
    client.script_flush()
    sha = client.script_load("return 7")
    assert [direct.script_exists(sha) for direct in directs] == [[True]] * 3
    assert client.script_exists(sha, "0" * 40) == [True, False]
    assert all(client.evalsha(sha, 1, key) == 7 for key in sorted(KEYS)[:20])
    directs[1].script_flush()
    assert client.script_exists(sha) == [False]


def test_functions_are_loaded_on_all_shards_and_listed_once(client: redis.Redis, directs: list[redis.Redis]) -> None:
    client.function_flush()
    assert client.function_load(LIBRARY) == b"mylib"
    assert [len(direct.function_list()) for direct in directs] == [1, 1, 1]
    assert len(client.function_list()) == 1
    assert client.function_stats() == directs[0].function_stats()
    with pytest.raises(redis_py.ResponseError, match=r"^Library 'mylib' already exists$"):
        client.function_load(LIBRARY)
    with pytest.raises(redis_py.ResponseError, match="several shards"):
        client.function_dump()
    assert client.function_delete("mylib") is True
    assert client.function_list() == []


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_setting_is_the_value_of_all_or_that_of_each(
    make_client: Callable[..., redis.Redis], directs: list[redis.Redis], protocol: int
) -> None:
    client = make_client(protocol=protocol, decode_responses=True)
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    directs[1].config_set("hz", 20)
    try:
        assert client.config_get("hz") == {"hz": "a=10 b=20 c=10"}
    finally:
        directs[1].config_set("hz", 10)
    assert len(client.config_get("*")) > 100
    assert client.config_resetstat() is True


def test_a_setting_is_changed_only_where_the_pool_allows_it(client: redis.Redis, directs: list[redis.Redis]) -> None:
    with pytest.raises(redis_py.ResponseError, match=r"'config\|set' is refused unless the pool allows it"):
        client.config_set("hz", 20)
    assert {direct.config_get("hz")["hz"] for direct in directs} == {"10"}


@pytest.mark.parametrize("protocol", [2, 3])
def test_info_is_read_by_redis_py_and_adds_the_shards_up(
    make_client: Callable[..., redis.Redis], directs: list[redis.Redis], protocol: int
) -> None:
    client = make_client(protocol=protocol)
    client.mset(dict.fromkeys(KEYS, "v"))
    info = client.info()
    servers = [direct.info() for direct in directs]
    assert info["db0"]["keys"] == len(KEYS)
    assert info["used_memory"] > sum(one["used_memory"] for one in servers) * 0.8
    assert info["redis_version"] == servers[0]["redis_version"]
    assert info["role"] == "master"
    assert (info["shoal_pool"], info["shoal_shards"]) == ("main", 3)
    assert info["shard1"]["name"] == "b"
    assert "tcp_port" not in info
    assert client.info("memory").keys() & {"used_memory", "redis_version", "shoal_pool"} == {"used_memory"}
    assert client.info("shoal")["shoal_workers"] == 1
    assert client.info("everything")["cmdstat_mset"]["calls"] >= 3


def test_logs_of_all_shards_are_one(client: redis.Redis, directs: list[redis.Redis]) -> None:
    for direct in directs:
        direct.config_set("slowlog-log-slower-than", 0)
    try:
        client.slowlog_reset()
        client.mset(dict.fromkeys(KEYS, "v"))
        entries: Any = client.slowlog_get(128)
        assert sum(b"MSET" in entry["command"] for entry in entries) == 3
        times = [entry["start_time"] for entry in entries]
        assert times == sorted(times, reverse=True)
        assert len(client.slowlog_get(2)) == 2
        assert client.slowlog_len() >= 3
    finally:
        for direct in directs:
            direct.config_set("slowlog-log-slower-than", 10_000)


def test_what_servers_say_of_themselves(proxy: PlaneHost, client: redis.Redis) -> None:
    seconds, micros = client.time()
    assert abs(seconds + micros / 1e6 - time.time()) < 5
    assert abs(client.lastsave().timestamp() - time.time()) < 3600
    assert client.command_count() > 200
    assert "get" in client.command()
    with Wire(proxy.address) as wire:
        assert wire.call("COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2") == [b"a", b"b"]
        assert b'# shard "b"' in wire.call("MEMORY", "DOCTOR")
        assert wire.call("MEMORY", "PURGE") == "OK"
        assert wire.call("LATENCY", "LATEST") == []
        assert wire.call("LATENCY", "HISTORY", "command") == []
        assert wire.call("LATENCY", "RESET") == 0
        wire.call("SET", "k", "v")
        assert wire.call("MEMORY", "USAGE", "k") > 0
        for refused in (("SHUTDOWN",), ("REPLICAOF", "NO", "ONE"), ("DEBUG", "SLEEP", "0"), ("CLUSTER", "INFO")):
            assert isinstance(wire.call(*refused), WireError)
        assert wire.call("PING") == "PONG"


def test_a_shard_that_fails_is_named(proxy: PlaneHost, filled: redis.Redis, directs: list[redis.Redis]) -> None:
    name = "DBSIZE"
    directs[1].execute_command("ACL", "SETUSER", "default", f"-{name.lower()}")
    try:
        with Wire(proxy.address) as wire:
            answer = wire.call(name)
            assert isinstance(answer, WireError)
            assert answer.endswith('(shard "b")')
    finally:
        directs[1].execute_command("ACL", "SETUSER", "default", "+@all")
    assert filled.dbsize() == len(KEYS)


def test_one_shard_answers_as_its_server_does(servers: Servers) -> None:
    settings = {"allow": ("config|set", "debug")}
    server = servers.redis("a", enable_debug_command="local")
    host = PlaneHost("one", [], servers.directory / "one", servers={"a": server}, settings=settings)
    servers.adopt(host).start()
    with host.client(decode_responses=True) as client, host.servers["a"].client(decode_responses=True) as direct:
        assert client.config_get("*") == direct.config_get("*")
        assert client.config_set("hz", 20) is True
        assert direct.config_get("hz") == {"hz": "20"}
        assert client.execute_command("DEBUG", "SLEEP", "0")
        assert client.execute_command("ROLE")[0] in ("master", b"master")
        assert client.memory_stats().keys() == direct.memory_stats().keys()
        info = client.info()
        assert direct.info().keys() <= info.keys() | {"db0"}
        assert info["run_id"] == direct.info()["run_id"]
        assert info["shoal_shards"] == 1


# ------------------------------------------------------------------------------------------------------------- SCAN


def test_a_scan_sees_every_key_once_where_nothing_changes(make_client: Callable[..., redis.Redis]) -> None:
    client, third = make_client(), make_client(db=3, protocol=3)
    client.mset(dict.fromkeys(KEYS, "v"))
    client.rpush("list", "x")
    third.set("elsewhere", "v")
    assert sorted(text(client.scan_iter())) == sorted([*KEYS, "list"])
    assert text(client.scan_iter(match="1*", count=3)) == {key for key in KEYS if key.startswith("1")}
    assert text(client.scan_iter(_type="list")) == {"list"}
    assert text(third.scan_iter()) == {"elsewhere"}


def test_a_scan_goes_on_through_another_proxy(proxy: PlaneHost, servers: Servers, filled: redis.Redis) -> None:
    other = PlaneHost(
        "other", [], servers.directory / "other", servers=dict(sorted(proxy.servers.items(), reverse=True))
    )
    servers.adopt(other).start()
    with other.client() as second:
        seen: list[Any] = []
        cursor, turn = 0, 0
        while cursor or not turn:
            cursor, found = (filled, second)[turn % 2].scan(cursor, count=7)
            seen += found
            turn += 1
    assert sorted(text(seen)) == sorted(KEYS)
    assert len(seen) == len(KEYS)
    assert turn > 10


class Writer:
    """Sets, and deletes again, keys of its own until told to stop."""

    def __init__(self, port: int) -> None:
        self.client = redis_py.Redis(port=port, socket_timeout=10)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            batch = [f"{number}:{part}:noise" for part in range(50)]
            with contextlib.suppress(redis_py.RedisError):
                self.client.mset(dict.fromkeys(batch, "x"))
                self.client.delete(*batch[:40])

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join()
        self.client.close()


def replicated(servers: Servers, name: str) -> tuple[RedisServer, RedisServer]:
    master = servers.redis(name)
    return master, servers.redis(f"{name}-replica", replica_of=master)


@pytest.mark.timeout(60)
def test_no_key_is_missed_by_a_scan_over_a_failover_under_writes_through_two_proxies(servers: Servers) -> None:
    pairs = {name: replicated(servers, name) for name in ("a", "b", "c")}
    masters = {name: master for name, (master, _) in pairs.items()}
    hosts = [
        servers.adopt(PlaneHost(name, [], servers.directory / name, servers=masters)).start() for name in ("p", "q")
    ]
    stable = {f"{number}:stable" for number in range(3000)}
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(host.client()) for host in hosts]
        clients[0].mset(dict.fromkeys(stable, "v"))
        for master, replica in pairs.values():
            wait_until(lambda replica=replica: link_up(replica), 10, "the replica to follow")  # type: ignore[misc]
            with master.client() as direct:
                assert direct.wait(1, 5000) == 1
        stack.enter_context(Writer(hosts[0].port))
        seen: set[str] = set()
        cursor, turn = 0, 0
        while cursor or not turn:
            cursor, found = clients[turn % 2].scan(cursor, count=20)
            seen |= text(found)
            turn += 1
            if turn == 20:
                fail_over(pairs, hosts, "a")
            if turn == 60:
                fail_over(pairs, hosts, "b")
    assert turn > 60
    assert stable <= seen


def fail_over(pairs: dict[str, tuple[RedisServer, RedisServer]], hosts: list[PlaneHost], name: str) -> None:
    """The master of a shard is killed, its replica promoted, and the proxies are told one after the other."""
    master, replica = pairs[name]
    master.kill()
    with replica.client() as direct:
        direct.execute_command("REPLICAOF", "NO", "ONE")
    pairs[name] = (replica, replica)
    for host in hosts:
        host.route({shard: server.port for shard, (server, _) in pairs.items()})


def test_a_scan_goes_on_over_a_restart(servers: Servers) -> None:
    server = servers.redis("a")
    host = servers.adopt(PlaneHost("p", [], servers.directory / "p", servers={"a": server})).start()
    with host.client() as client:
        client.mset(dict.fromkeys(KEYS, "v"))
        cursor, found = client.scan(0, count=30)
        seen = text(found)
        with server.client() as direct:
            direct.save()
        server.kill()
        server.launch()
        wait_until(lambda: reachable(server), 5, "the server to be back")
        while cursor:
            cursor, found = client.scan(cursor, count=30)
            seen |= text(found)
    assert seen == KEYS


def reachable(server: RedisServer) -> bool:
    with contextlib.suppress(redis_py.RedisError), server.client() as direct:
        return bool(direct.ping())
    return False
