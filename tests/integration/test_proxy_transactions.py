"""MULTI, EXEC and WATCH through the proxy: what a server says to the same bytes, and nothing executed by halves."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.harness import LOOPBACK, wait_until
from tests.integration.wire import Wire, WireError, command, talk
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Servers

# Conversations whose answers are the server's own, byte by byte; `{t}` keeps the keys on one shard.
SCRIPTS = {
    "empty": "MULTI|EXEC",
    "writes and reads": "SET {t}a 1|MULTI|INCR {t}a|GET {t}a|LPUSH {t}l x y|LRANGE {t}l 0 -1|EXEC|GET {t}a",
    "several keys": "MULTI|MSET {t}a 1 {t}b 2|MGET {t}a {t}b {t}c|DEL {t}a {t}b|EXISTS {t}a|EXEC",
    "without keys": "MULTI|PING|ECHO hello|PING hello|PING a b|EXEC",
    "an error inside": "SET {t}s x|MULTI|INCR {t}s|LPUSH {t}s 1|SET {t}s y|EXEC|GET {t}s",
    "discarded": "MULTI|SET {t}a 1|DISCARD|GET {t}a|DISCARD",
    "without MULTI": "EXEC|DISCARD|EXEC a|DISCARD a|MULTI a|EXEC",
    "unknown command": "MULTI|SET {t}a 1|NOSUCH x y|SET {t}a 2|EXEC|GET {t}a|EXEC",
    "wrong arity": "MULTI|GET|SET {t}a 1|EXEC|GET {t}a",
    "wrong arity of EXEC": "MULTI|SET {t}a 1|EXEC a|EXEC|GET {t}a",
    "wrong arity of DISCARD": "MULTI|DISCARD a|EXEC",
    "the server sees a form": "MULTI|MSET {t}a 1 {t}b|ZUNION 0 {t}a|SINTERCARD 2 {t}a|SET {t}a 3|EXEC|GET {t}a",
    "reset": "MULTI|SET {t}a 1|RESET|EXEC|GET {t}a",
    "databases": "SELECT 3|MULTI|SET {t}a 1|EXEC|GET {t}a|SELECT 0|GET {t}a",
    "watched, unchanged": "SET {t}a 1|WATCH {t}a {t}b|GET {t}a|MULTI|SET {t}a 2|GET {t}a|EXEC|GET {t}a|EXEC",
    "watched, changed": "WATCH {t}a|SET {t}a 1|MULTI|SET {t}a 2|EXEC|GET {t}a|MULTI|SET {t}a 3|EXEC|GET {t}a",
    "watched twice": "WATCH {t}a|WATCH {t}b {t}c|SET {t}c 1|MULTI|EXEC|MULTI|EXEC",
    "unwatched": "WATCH {t}a|SET {t}a 1|UNWATCH|MULTI|SET {t}a 2|EXEC|GET {t}a",
    "watched and discarded": "WATCH {t}a|SET {t}a 1|MULTI|DISCARD|MULTI|SET {t}a 2|EXEC",
    "watched and reset": "WATCH {t}a|SET {t}a 1|RESET|MULTI|SET {t}a 2|EXEC",
    "watched and aborted": "WATCH {t}a|SET {t}a 1|MULTI|NOSUCH|EXEC|MULTI|SET {t}a 2|EXEC",
    "unwatched inside": "WATCH {t}a|SET {t}a 1|MULTI|UNWATCH|SET {t}a 2|EXEC|GET {t}a",
    "arity of watching": "WATCH|UNWATCH a|UNWATCH",
    "watched in a database": "SELECT 2|SET {t}a 1|WATCH {t}a|MULTI|INCR {t}a|EXEC|SELECT 0|GET {t}a",
    "script": "MULTI|EVAL return{{KEYS[1],ARGV[1]}} 1 {t}a x|EXEC",
}
REDIS_70 = {  # Valkey 9 has other words, and aborts; the proxy keeps to Redis's on both
    "watch inside": (
        "MULTI|WATCH {t}a|SET {t}a 1|EXEC",
        b"+OK\r\n-ERR WATCH inside MULTI is not allowed\r\n+QUEUED\r\n*1\r\n+OK\r\n",
    ),
    "nested": ("MULTI|MULTI|SET {t}a 1|EXEC", b"+OK\r\n-ERR MULTI calls can not be nested\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_answers_are_the_servers_own(proxy: PlaneHost, script: str, protocol: int) -> None:
    server = proxy.servers["a"]
    direct = talk((LOOPBACK, server.port), script, protocol=protocol)
    with server.client() as client:
        client.flushall()
    assert talk(proxy.address, script, protocol=protocol) == direct


def test_byte_by_byte_is_the_same(proxy: PlaneHost) -> None:
    script = SCRIPTS["several keys"]
    assert talk(proxy.address, script, at_once=False) == talk(proxy.address, script)


def test_what_engines_say_differently_is_said_as_redis_says_it(proxy: PlaneHost) -> None:
    for script, expected in REDIS_70.values():
        assert talk(proxy.address, script) == expected


def test_what_a_shared_connection_cannot_take_is_refused_and_aborts(proxy: PlaneHost) -> None:
    for request in ["SELECT 1", "HELLO 3", "AUTH x", "CLIENT ID", "SUBSCRIBE c", "KEYS *", "OBJECT NOSUCH k"]:
        with Wire(proxy.address) as wire:
            assert wire.call("MULTI") == "OK"
            refused = wire.call(*request.split())
            assert isinstance(refused, WireError), request
            assert "not supported by Shoal" in refused or "unknown subcommand" in refused
            assert wire.call("EXEC").code == "EXECABORT"
            assert wire.call("PING") == "PONG"


def test_an_error_that_only_the_server_sees_is_told_at_exec(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        for server in proxy.servers.values():
            with server.client() as direct:
                direct.config_set("maxmemory", "1")
        try:
            assert [wire.call("MULTI"), wire.call("SET", "k", "v")] == ["OK", "QUEUED"]
            told = wire.call("EXEC")
        finally:
            for server in proxy.servers.values():
                with server.client() as direct:
                    direct.config_set("maxmemory", "0")
        assert told.startswith("EXECABORT Transaction discarded because of: OOM ")
        assert wire.call("GET", "k") is None


def test_keys_of_two_shards_are_refused_at_the_request_that_crosses(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        assert wire.call("MULTI") == "OK"
        answers = [wire.call("SET", f"{number}:key", "1") for number in range(50)]
        refused = [answer for answer in answers if answer != "QUEUED"]
        assert answers[0] == "QUEUED"
        assert {answer.code for answer in refused} == {"CROSSSLOT"}
        assert ":key' of 'set' on" in refused[0]
        assert wire.call("EXEC").code == "EXECABORT"
        assert wire.call("GET", "0:key") is None


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_redis_py_pipeline_is_a_transaction(make_client: Callable[..., redis.Redis], protocol: int) -> None:
    client: Any = make_client(protocol=protocol, decode_responses=True)
    with client.pipeline() as pipeline:
        pipeline.set("{user:1}:name", "Ada").incr("{user:1}:visits").hset("{user:1}:h", mapping={"a": "1"})
        pipeline.hgetall("{user:1}:h").get("{user:1}:absent")
        assert pipeline.execute() == [True, 1, 1, {"a": "1"}, None]
    with client.pipeline() as pipeline:
        pipeline.set("{user:1}:name", "Grace").lpush("{user:1}:name", "x")
        with pytest.raises(redis.ResponseError, match="wrong kind of value"):
            pipeline.execute()
    assert client.get("{user:1}:name") == "Grace"
    with client.pipeline() as pipeline:
        for number in range(50):
            pipeline.set(f"{number}:other", 1)
        with pytest.raises(redis.ResponseError, match="keys of a transaction are on different shards"):
            pipeline.execute()


def test_a_long_transaction_comes_back_whole(client: redis.Redis) -> None:
    count = 20_000
    with client.pipeline() as pipeline:
        for number in range(count):
            pipeline.set("{t}k", number)
            pipeline.get("{t}k")
        replies = pipeline.execute()
    assert replies[1::2] == [str(number).encode() for number in range(count)]


def test_the_time_is_that_of_the_transactions_shard(client: redis.Redis) -> None:
    pipeline: Any
    with client.pipeline() as pipeline:
        (seconds, _), value = pipeline.time().get("k").execute()
    assert abs(seconds - time.time()) < 60
    assert value is None


def test_a_transaction_that_is_too_long_is_refused(proxy: PlaneHost) -> None:
    with Wire(proxy.address, timeout=30) as wire:
        assert wire.call("MULTI") == "OK"
        answers = [wire.call("SET", "k", b"x" * (16 << 20)) for _ in range(5)]
        assert answers[:3] == ["QUEUED"] * 3
        assert answers[3].startswith("ERR the transaction is too long")
        assert wire.call("EXEC").code == "EXECABORT"
        assert wire.call("EXISTS", "k") == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.timeout(60)
def test_a_counter_that_many_increment_under_watch_ends_right(servers: Servers, workers: int) -> None:
    proxy = started(servers, workers=workers)

    def count(_: int) -> None:
        with proxy.client() as client:
            for _ in range(25):
                client.transaction(increment, "{t}counter")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(count, range(8)))
    with proxy.client() as client:
        assert client.get("{t}counter") == b"200"


def increment(pipeline: Any) -> None:
    value = int(pipeline.get("{t}counter") or 0)
    pipeline.multi()
    pipeline.set("{t}counter", value + 1)


@pytest.mark.timeout(60)
def test_connections_lost_in_the_midst_leave_no_half_transaction(servers: Servers) -> None:
    """Two counters that one transaction increments are equal, and count what was told: neither less nor more."""
    proxy = started(servers, workers=1)
    over = threading.Event()

    def count(number: int) -> tuple[int, int]:
        done, doubted = 0, 0
        with proxy.client() as client:
            while not over.is_set():
                with client.pipeline() as pipeline:
                    try:
                        if number % 2:
                            pipeline.watch("{t}a")
                            pipeline.multi()
                        pipeline.incr("{t}a").incr("{t}b").execute()
                        done += 1
                    except redis.WatchError:
                        continue
                    except redis.ResponseError as error:
                        if not str(error).startswith("INDOUBT"):
                            raise
                        doubted += 1
        return done, doubted

    with ThreadPoolExecutor(8) as threads:
        counts = [threads.submit(count, number) for number in range(8)]
        with proxy.servers["a"].client() as direct:
            for _ in range(60):
                time.sleep(0.02)  # not a wait for anything: the pace of the losses
                direct.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            over.set()
            told = [thread.result() for thread in counts]
            first, second = (int(value) for value in direct.mget("{t}a", "{t}b"))
    done, doubted = sum(one[0] for one in told), sum(one[1] for one in told)
    assert first == second
    assert done <= first <= done + doubted
    assert done > 100


@pytest.mark.timeout(60)
def test_a_master_that_is_replaced_under_transactions_costs_time_only(servers: Servers) -> None:
    """A switchover by hand: writes are paused, the replica catches up and is promoted, the old master refuses."""
    proxy = started(servers, workers=1)
    old, new = proxy.servers["a"], servers.redis("next")
    over = threading.Event()

    def count(number: int) -> int:
        done = 0
        with proxy.client() as client:
            while not over.is_set():
                with client.pipeline() as pipeline, suppress(redis.WatchError):
                    if number % 2:
                        pipeline.watch("{t}a")
                        pipeline.multi()
                    pipeline.incr("{t}a").incr("{t}b").execute()
                    done += 1
        return done

    with ThreadPoolExecutor(8) as threads, old.client() as master, new.client() as replica:
        replica.replicaof(LOOPBACK, str(old.port))
        wait_until(lambda: replica.info("replication").get("master_link_status") == "up", 10, "the replica")
        counts = [threads.submit(count, number) for number in range(8)]
        wait_until(lambda: int(master.get("{t}a") or 0) > 100, 10, "transactions")
        master.execute_command("CLIENT", "PAUSE", "5000", "WRITE")
        at = master.info("replication")["master_repl_offset"]
        wait_until(lambda: replica.info("replication")["slave_repl_offset"] >= at, 5, "the replica's offset")
        replica.replicaof("NO", "ONE")
        master.replicaof(LOOPBACK, str(new.port))
        master.client_unpause()
        wait_until(lambda: proxy.shard_stats("a")["refusals"] > 0, 5, "a refusal")
        proxy.route({"a": new.port})
        before = int(replica.get("{t}a") or 0)
        wait_until(lambda: int(replica.get("{t}a") or 0) > before + 100, 10, "transactions on the new master")
        over.set()
        done = sum(thread.result() for thread in counts)
        assert replica.mget("{t}a", "{t}b") == [str(done).encode()] * 2


def test_connections_of_clients_that_watch_are_used_again(servers: Servers) -> None:
    proxy = started(servers, workers=1)
    with proxy.client() as client, proxy.servers["a"].client() as direct:
        client.transaction(increment, "{t}counter")
        before = direct.info("stats")["total_connections_received"]
        for _ in range(20):
            client.transaction(increment, "{t}counter")
        assert direct.info("stats")["total_connections_received"] == before


def test_clients_that_watch_have_a_bound(servers: Servers) -> None:
    proxy = started(servers, workers=1)
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(proxy.address)) for _ in range(4097)]
        for wire in wires:
            wire.send(command("WATCH", "{t}k"))
        answers = [wire.reply() for wire in wires]
        refused = [answer for answer in answers if answer != "OK"]
        assert len(refused) == 1
        assert refused[0].startswith("ERR too many clients watch keys")
        assert wires[0].call("UNWATCH") == "OK"
        at = answers.index(refused[0])
        # the connection is free once its server has answered, which the client does not wait for
        wait_until(lambda: wires[at].call("WATCH", "{t}k") == "OK", 5, "a connection to be free")


def started(servers: Servers, *, workers: int) -> PlaneHost:
    """A proxy over one shard."""
    shards = {"a": servers.redis("a")}
    host = PlaneHost("proxy", [], servers.directory / "proxy", servers=shards, workers=workers)
    return servers.adopt(host).start()
