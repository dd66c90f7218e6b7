"""Reads on replicas, as the workers do them: which requests go there, and what sends them to the master after all.

The "replicas" here are servers of their own with other values, so that each answer says where it was read; leases are
given by hand. What leases are made of is tested in test_reads.py, with replicas that replicate.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import wait_until
from tests.integration.wire import Wire, command
from tests.plane_host import PlaneHost
from tests.trials import shard_of

if TYPE_CHECKING:
    from tests.harness import RedisServer, Servers

FOREVER = 2**62
MAX_LAG_MS = 300
WHO = "who"
"""A key whose value says which server this is."""


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Scene:
    """A proxy over shard a, its master, and its replicas."""

    def __init__(self, servers: Servers, replicas: int, **settings: Any) -> None:
        secret = settings.get("backend_password")
        directives = {"requirepass": secret} if secret else {}
        self.master = servers.redis("master", **directives)
        self.replicas = [servers.redis(f"replica{number}", **directives) for number in range(replicas)]
        for server in self.everyone:
            introduce(server)
        options = {"max_lag_ms": MAX_LAG_MS, **settings}
        host = PlaneHost("proxy", [], servers.directory / "proxy", servers={"a": self.master}, settings=options)
        self.proxy = servers.adopt(host).start()
        self.proxy.epoch += 1
        ports = [replica.port for replica in self.replicas]
        self.proxy.ask(read_from={"epoch": self.proxy.epoch, "shard": "a", "ports": ports})

    @property
    def everyone(self) -> list[RedisServer]:
        return [self.master, *self.replicas]

    def lease(self, *, until: int = FOREVER, sampled: int | None = None, with_master: bool = False) -> None:
        """All replicas were sampled now, or then, and may be read from."""
        at = boot_ns() if sampled is None else sampled
        leases = [(replica.port, at, until) for replica in self.replicas]
        self.proxy.ask(renew_reads={"shard": "a", "leases": leases, "with_master": with_master})

    def who(self, wire: Wire) -> str:
        answer = wire.call("GET", WHO)
        assert isinstance(answer, bytes), answer
        return answer.decode()

    def reads_at_a_replica(self, wire: Wire) -> bool:
        """Whether this client's reads go to a replica that was sampled right now."""
        self.lease()
        return self.who(wire) != "master"

    def wire(self) -> Wire:
        """A client whose reads go to a replica."""
        wire = Wire(self.proxy.address)
        wait_until(lambda: self.reads_at_a_replica(wire), 5, "a read at a replica")
        return wire

    def count(self, name: str) -> int:
        return int(self.proxy.shard_stats("a")[name])


def introduce(server: RedisServer) -> None:
    with server.client() as direct:
        direct.set(WHO, server.name)


@pytest.fixture
def scene(servers: Servers) -> Scene:
    return Scene(servers, 1)


# --------------------------------------------------------------------------------------------------- what is read where


def test_reads_go_to_the_replica_and_everything_else_to_the_master(scene: Scene) -> None:
    with scene.replicas[0].client() as replica, scene.master.client() as master:
        for server, text in ((replica, "there"), (master, "here")):
            server.rpush("list", text)
            server.hset("hash", text, text)
    with scene.wire() as wire:
        for request, answer in {
            ("GET", WHO): b"replica0",
            ("LRANGE", "list", "0", "-1"): [b"there"],
            ("HGETALL", "hash"): [b"there", b"there"],
            ("MGET", WHO, "none"): [b"replica0", None],
            ("EXISTS", "list", "none"): 1,
            ("EVAL_RO", "return redis.call('get', KEYS[1])", "1", WHO): b"replica0",
            ("SORT_RO", "list", "ALPHA"): [b"there"],
            ("XREAD", "STREAMS", "none", "0"): None,
            ("EVAL", "return redis.call('get', KEYS[1])", "1", WHO): b"master",
        }.items():
            assert wire.call(*request) == answer, request
        wait_until(lambda: scene.reads_at_a_replica(wire), 5, "the script's write to be everywhere")
        for request, answer in {
            ("HSCAN", "hash", "0"): [b"0", [b"here", b"here"]],
            ("SCAN", "0", "COUNT", "100"): None,
            ("OBJECT", "ENCODING", "hash"): None,
            ("TOUCH", WHO): 1,
            ("DBSIZE",): 3,
        }.items():
            got = wire.call(*request)
            assert answer is None or got == answer, request
    with scene.replicas[0].client() as replica:
        calls = {name.removeprefix("cmdstat_") for name in replica.info("commandstats")}
    assert calls.isdisjoint({"hscan", "scan", "object|encoding", "object", "touch", "dbsize", "eval"})
    assert {"lrange", "hgetall", "mget", "exists", "sort_ro", "xread", "eval_ro"} <= calls
    assert scene.count("replica_reads") >= 8
    assert scene.count("replica_losses") == 0


def test_without_max_lag_a_pool_reads_at_its_masters(servers: Servers) -> None:
    scene = Scene(servers, 1, max_lag_ms=None)
    with Wire(scene.proxy.address) as wire:
        for _ in range(20):
            scene.lease()
            assert scene.who(wire) == "master"
    with scene.replicas[0].client() as replica:
        assert "cmdstat_get" not in replica.info("commandstats")


def test_a_script_that_only_reads_runs_at_a_replica_by_its_digest(scene: Scene) -> None:
    text = "return redis.call('get', KEYS[1])"
    with scene.wire() as wire:
        digest = wire.call("SCRIPT", "LOAD", text)  # on the masters, which replicas learn of when it is used
        wait_until(lambda: scene.reads_at_a_replica(wire), 5, "the write to be everywhere")
        assert wire.call("EVALSHA_RO", digest, "1", WHO) == b"replica0"
        with scene.replicas[0].client() as replica:
            replica.script_flush()
        assert wire.call("EVALSHA_RO", digest, "1", WHO) == b"replica0", "the text is sent in its place"


@pytest.mark.parametrize("protocol", [2, 3])
def test_each_protocol_and_database_has_its_connection(scene: Scene, protocol: int) -> None:
    with scene.replicas[0].client(db=3) as replica:
        replica.hset("hash", "where", "replica")
    with scene.proxy.client(protocol=protocol, db=3) as client:

        def there() -> bool:
            scene.lease()
            return bool(client.hgetall("hash") == {b"where": b"replica"})

        wait_until(there, 5, "a read of database 3 at the replica")


def test_replicas_are_told_the_servers_password(servers: Servers) -> None:
    scene = Scene(servers, 1, backend_password="secret")
    with scene.wire() as wire:
        assert scene.who(wire) == "replica0"


def test_clients_are_spread_over_replicas_and_each_stays_with_one(servers: Servers) -> None:
    scene = Scene(servers, 2)
    seen = {replica.name: 0 for replica in scene.replicas}
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            wire = stack.enter_context(scene.wire())
            answers = {scene.who(wire) for _ in range(5)}
            assert len(answers) == 1
            seen[answers.pop()] += 1
    assert min(seen.values()) >= 8, seen


def test_a_master_that_is_as_near_takes_its_share(scene: Scene) -> None:
    with scene.wire(), contextlib.ExitStack() as stack:
        scene.lease(with_master=True)
        wires = [stack.enter_context(Wire(scene.proxy.address)) for _ in range(40)]
        seen = [scene.who(wire) for wire in wires]
    assert 8 <= seen.count("master") <= 32, seen


# ---------------------------------------------------------------------------------------------- what a client can trust


def test_a_client_reads_its_own_writes(scene: Scene) -> None:
    with scene.wire() as wire, scene.wire() as other:
        for _ in range(3):
            started = time.monotonic()
            wire.send(command("SET", "own", "1") + command("GET", WHO))
            assert wire.reply() == "OK"
            assert wire.reply() == b"master", "the write was unanswered"
            answered = time.monotonic()
            at_master = True
            while at_master:
                at_master = scene.who(wire) == "master"
                now = time.monotonic()
                assert not at_master or now - answered < MAX_LAG_MS / 1000 + 0.2
            assert now - started >= MAX_LAG_MS / 1000
            assert scene.who(other) == "replica0", "others go on"


def test_a_write_does_not_overtake_the_reads_before_it(scene: Scene) -> None:
    with scene.wire() as wire, scene.master.client() as master:
        scene.replicas[0].pause()
        wire.send(command("GET", WHO) + command("SET", "later", "1") + command("GET", "later"))
        time.sleep(0.05)  # not a wait for anything: time in which a wrong proxy would write
        assert master.get("later") is None
        scene.replicas[0].resume()
        assert [wire.reply() for _ in range(3)] == [b"replica0", "OK", b"1"]


def test_a_transaction_and_what_is_read_while_keys_are_watched_are_the_masters(scene: Scene) -> None:
    with scene.wire() as wire:
        assert [wire.call(*words) for words in (("MULTI",), ("GET", WHO), ("EXEC",))][-1] == [b"master"]
        assert scene.who(wire) == "replica0"
        assert wire.call("WATCH", WHO) == "OK"
        assert scene.who(wire) == "master"
        assert wire.call("UNWATCH") == "OK"
        assert scene.who(wire) == "replica0"


def test_what_is_read_to_be_cached_is_the_masters(scene: Scene) -> None:
    with scene.wire() as wire:
        assert scene.who(wire) == "replica0"
        assert wire.call("CLIENT", "TRACKING", "ON") == "OK"
        assert scene.who(wire) == "master"
        assert wire.call("CLIENT", "TRACKING", "OFF") == "OK"
        assert scene.who(wire) == "replica0"


def test_replies_come_in_the_order_of_the_requests(scene: Scene) -> None:
    with scene.wire() as wire:
        wire.send((command("GET", WHO) + command("HSCAN", "none", "0") + command("PING")) * 50)
        assert [wire.reply() for _ in range(150)] == [b"replica0", [b"0", []], "PONG"] * 50


# ---------------------------------------------------------------------------------------------------- when it cannot be


def test_reads_go_to_the_master_when_the_lease_is_over(scene: Scene) -> None:
    with scene.wire() as wire:
        scene.lease(until=boot_ns() + 100_000_000)
        assert scene.who(wire) == "replica0"
        wait_until(lambda: scene.who(wire) == "master", 1, "the end of the lease")
        scene.lease()
        assert scene.who(wire) == "replica0"
        scene.lease(until=0)
        assert scene.who(wire) == "master"


def test_a_server_that_was_started_anew_is_not_read_from_before_it_was_sampled_again(scene: Scene) -> None:
    replica = scene.replicas[0]
    with scene.wire() as wire:
        replica.kill()
        assert scene.who(wire) == "master"
        introduce(replica.start())
        connections = scene.count("connections")
        with replica.client() as direct:
            direct.config_resetstat()
            wait_until(
                lambda: scene.who(wire) and scene.count("connections") > connections, 5, "a new connection to it"
            )
            assert {scene.who(wire) for _ in range(20)} == {"master"}, "its lease is from before"
            assert "cmdstat_get" not in direct.info("commandstats")
        scene.lease()
        assert scene.who(wire) == "replica0"


def test_what_a_dead_replica_has_not_answered_is_answered_by_the_master(scene: Scene) -> None:
    replica = scene.replicas[0]
    with scene.wire() as wire:
        replica.pause()
        wire.send(command("GET", WHO) * 10 + command("MGET", WHO, WHO))
        wait_until(lambda: scene.count("unanswered") >= 11, 2, "the reads to be with the replica")
        replica.kill()
        assert [wire.reply() for _ in range(11)] == [b"master"] * 10 + [[b"master", b"master"]]
        assert scene.count("replica_losses") == 11
        assert scene.count("indoubt") == 0


def test_a_frozen_replica_is_not_waited_for_beyond_its_lease(scene: Scene) -> None:
    with scene.wire() as wire:
        scene.lease(until=boot_ns() + 400_000_000)
        scene.replicas[0].pause()
        started = time.monotonic()
        assert scene.who(wire) == "master"
        assert 0.3 < time.monotonic() - started < 0.8


def test_a_frozen_replica_is_not_waited_for_beyond_the_timeout(servers: Servers) -> None:
    scene = Scene(servers, 1, timeout_ms=200)
    with scene.wire() as wire:
        scene.replicas[0].pause()
        started = time.monotonic()
        assert scene.who(wire) == "master"
        assert 0.15 < time.monotonic() - started < 0.6


def test_a_replica_that_refuses_is_never_seen(scene: Scene) -> None:
    with scene.wire() as wire:
        with scene.replicas[0].client() as direct:
            direct.config_set("replica-serve-stale-data", "no")
            direct.replicaof("127.0.0.1", 1)
        wire.send(command("GET", WHO) * 3)
        assert [wire.reply() for _ in range(3)] == [b"master"] * 3


def test_a_replica_that_runs_a_script_for_long_is_never_seen(scene: Scene) -> None:
    with scene.wire() as wire, scene.replicas[0].client() as direct, Wire(scene.replicas[0].address) as busy:
        direct.config_set("lua-time-limit", 10)
        busy.send(command("EVAL", "while true do end", "0"))
        time.sleep(0.1)  # from when on it says BUSY
        assert scene.who(wire) == "master"
        direct.script_kill()


def test_reads_on_a_replica_go_on_while_there_is_no_master(scene: Scene) -> None:
    with scene.wire() as wire, scene.wire() as fresh:
        scene.master.kill()
        for _ in range(20):
            assert scene.who(wire) == "replica0"
        wire.send(command("SET", "k", "1"))
        wait_until(lambda: scene.count("held_requests") == 1, 2, "the write to be held")
        assert scene.who(fresh) == "replica0"


def test_another_master_ends_reads_on_the_replicas_of_the_old_one(scene: Scene) -> None:
    replica = scene.replicas[0]
    with scene.wire() as wire:
        replica.pause()
        wire.send(command("GET", WHO))
        wait_until(lambda: scene.count("unanswered") >= 1, 2, "the read to be with the replica")
        replica.resume()
        scene.proxy.route({"a": replica.port})
        assert wire.reply() == b"replica0"
        scene.lease()
        reads = scene.count("replica_reads")
        for _ in range(5):
            assert scene.who(wire) == "replica0"
        assert scene.count("replica_reads") == reads


def test_reads_behind_what_is_held_stay_behind_it(scene: Scene) -> None:
    with scene.wire() as wire:
        scene.proxy.break_lease("a")
        wire.send(command("SET", WHO, "changed") + command("GET", WHO))
        wait_until(lambda: scene.count("held_requests") >= 1, 2, "the write to be held")
        scene.proxy.give_lease("a")
        assert [wire.reply(), wire.reply()] == ["OK", b"changed"]


def test_parts_of_a_request_go_to_the_replicas_of_their_shards(servers: Servers) -> None:
    masters = {name: servers.redis(f"master-{name}") for name in ("a", "b")}
    replica = servers.redis("replica-a")
    settings = {"max_lag_ms": MAX_LAG_MS}
    host = PlaneHost("proxy", [], servers.directory / "proxy", servers=masters, settings=settings)
    proxy = servers.adopt(host).start()
    of_key, candidates = shard_of(("a", "b")), [f"key:{number}" for number in range(50)]
    keys = {of_key(key.encode()): key for key in candidates}
    for server in (*masters.values(), replica):
        with server.client() as direct:
            direct.mset(dict.fromkeys(keys.values(), server.name))
    proxy.epoch += 1
    proxy.ask(read_from={"epoch": proxy.epoch, "shard": "a", "ports": [replica.port]})
    with Wire(proxy.address) as wire:

        def both() -> list[bytes]:
            lease = (replica.port, boot_ns(), FOREVER)
            proxy.ask(renew_reads={"shard": "a", "leases": [lease], "with_master": False})
            return list(wire.call("MGET", keys["b"], keys["a"]))

        wait_until(lambda: both() == [b"master-b", b"replica-a"], 5, "a part at the replica")
        replica.pause()
        wire.send(command("MGET", keys["a"], keys["b"]))
        wait_until(lambda: int(proxy.shard_stats("a")["unanswered"]) == 1, 2, "a part to be with the replica")
        replica.kill()
        assert wire.reply() == [b"master-a", b"master-b"]
