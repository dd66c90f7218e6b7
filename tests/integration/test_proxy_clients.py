"""Ordinary clients, unchanged, through the proxy: redis-py, redis-cli, redis-benchmark."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio

from tests.harness import have, wait_until
from tests.integration.wire import Wire, command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.plane_host import PlaneHost


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def protocol(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def redis_cli() -> Path:
    return have("redis-cli") or pytest.skip("no redis-cli: `make test` installs redis-tools as root on Debian")


@pytest.fixture
def redis_benchmark() -> Path:
    return have("redis-benchmark") or pytest.skip(
        "no redis-benchmark: `make test` installs redis-tools as root on Debian"
    )


def test_redis_py_connects_with_its_default_settings(client: redis.Redis) -> None:
    assert client.ping()
    assert client.set("greeting", "hello")
    assert client.get("greeting") == b"hello"


def test_types_survive_in_both_protocols(make_client: Callable[..., redis.Redis], protocol: int) -> None:
    client: Any = make_client(protocol=protocol, decode_responses=True)
    assert client.incrby("counter", 41) == 41
    assert client.hset("hash", mapping={"a": 1, "b": 2}) == 2
    assert client.hgetall("hash") == {"a": "1", "b": "2"}
    assert client.rpush("list", "x", "y") == 2
    assert client.lrange("list", 0, -1) == ["x", "y"]
    assert client.sadd("set", "m") == 1
    assert client.smembers("set") == {"m"}
    assert client.zadd("zset", {"one": 1.5}) == 1
    assert client.zscore("zset", "one") == 1.5
    assert [list(pair) for pair in client.zrange("zset", 0, -1, withscores=True)] == [["one", 1.5]]
    assert client.get("absent") is None
    assert client.expire("counter", 100)
    assert 0 < client.ttl("counter") <= 100
    assert client.type("zset") == "zset"


def test_a_pipeline_answers_in_order_over_all_shards(make_client: Callable[..., redis.Redis], protocol: int) -> None:
    pipeline: Any = make_client(protocol=protocol).pipeline(transaction=False)
    for number in range(500):
        pipeline.set(f"key:{number}", number)
        pipeline.get(f"key:{number}")
    replies = pipeline.execute()
    assert replies[0::2] == [True] * 500
    assert replies[1::2] == [str(number).encode() for number in range(500)]


def test_keys_are_spread_over_every_shard(client: redis.Redis, proxy: PlaneHost) -> None:
    for number in range(300):
        client.set(f"key:{number}", number)
    sizes: list[Any] = []
    for server in proxy.servers.values():
        with server.client() as direct:
            sizes.append(direct.dbsize())
    assert sum(sizes) == 300
    assert min(sizes) > 30


def test_a_servers_own_error_reaches_the_client_unchanged(client: redis.Redis) -> None:
    client.set("text", "not a number")
    with pytest.raises(redis.ResponseError, match="value is not an integer or out of range"):
        client.incr("text")
    with pytest.raises(redis.ResponseError, match=r"^WRONGTYPE|Operation against a key holding the wrong kind"):
        client.lpush("text", "x")
    assert client.get("text") == b"not a number"


def test_binary_keys_and_values(client: redis.Redis) -> None:
    every_byte = bytes(range(256))
    client.set(every_byte, every_byte[::-1])
    assert client.get(every_byte) == every_byte[::-1]
    client.set("", "an empty key")
    assert client.get("") == b"an empty key"


async def test_many_asyncio_clients_at_once(proxy: PlaneHost) -> None:
    async def one(number: int) -> None:
        client: Any = redis.asyncio.Redis(host=proxy.address[0], port=proxy.port, socket_timeout=20)
        async with client:
            for turn in range(5):
                await client.set(f"client:{number}", turn)
                assert await client.get(f"client:{number}") == str(turn).encode()

    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(one(number))


def test_redis_cli(redis_cli: Path, proxy: PlaneHost) -> None:
    def cli(*arguments: str, stdin: str | None = None) -> str:
        run = subprocess.run(
            [redis_cli, "-p", str(proxy.port), *arguments],
            input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
        return run.stdout

    assert cli("SET", "name", "shoal") == "OK\n"
    assert cli("GET", "name") == "shoal\n"
    assert cli("-3", "HGETALL", "nothing") == "\n"
    assert cli(stdin="MSET a 1 b 2 c 3\nMGET a b c\nDEL a b c nothing\n") == "OK\n1\n2\n3\n3\n"
    assert "CROSSSLOT" in cli("RENAME", "key:1", "other:2")


def test_redis_benchmark(redis_benchmark: Path, proxy: PlaneHost) -> None:
    tests = "ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"
    run = subprocess.run(
        [redis_benchmark, "-p", str(proxy.port), "-t", tests, "-n", "2000", "-c", "20", "-P", "4", "-r", "1000", "-q"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "Error" not in run.stdout + run.stderr
    assert run.stdout.count("requests per second") >= 16


def test_clients_are_listed_and_killed_as_at_one_redis(make_client: Callable[..., redis.Redis], protocol: int) -> None:
    operator, other = make_client(protocol=protocol, client_name="operator"), make_client(client_name="web-1", db=2)
    other.set("k", "v")
    listed: Any = {line["name"]: line for line in operator.client_list()}
    web = listed["web-1"]
    assert {"db": "2", "cmd": "set", "flags": "N", "multi": "-1"}.items() <= web.items()
    assert web["lib-name"].startswith("redis-py")
    assert listed["operator"]["resp"] == str(protocol)
    assert operator.client_info()["id"] == operator.client_id() == int(listed["operator"]["id"])
    assert [line["name"] for line in operator.client_list(client_id=[web["id"]])] == ["web-1"]
    assert operator.client_kill_filter(_id=web["id"]) == 1
    assert other.get("k") == b"v", "it connects again"
    assert operator.client_list(client_id=[web["id"]]) == []
    with pytest.raises(redis.ResponseError, match="not supported by Shoal"):
        operator.client_pause(100)


def test_the_list_shows_who_subscribes_and_who_waits(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as subscriber, Wire(proxy.address) as waiter, proxy.client() as client:
        subscriber.call("CLIENT", "SETNAME", "subscriber")
        for request in (("SUBSCRIBE", "a"), ("PSUBSCRIBE", "b*"), ("SSUBSCRIBE", "c")):
            assert subscriber.call(*request)[0] == request[0].lower().encode()
        waiter.call("CLIENT", "SETNAME", "waiter")
        waiter.send(command("BLPOP", "queue", "0"))

        def shown(name: str) -> dict[str, str]:
            lines: Any = client.client_list()
            return next(line for line in lines if line["name"] == name)

        found = shown("subscriber")
        assert (found["sub"], found["psub"], found["ssub"], found["flags"]) == ("1", "1", "1", "P")
        wait_until(lambda: shown("waiter")["flags"] == "b", 5, "the waiter to wait")
        names = {line["name"] for line in client.client_list(_type="pubsub")}
        assert names == {"subscriber"}
