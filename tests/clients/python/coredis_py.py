"""coredis, an asyncio client, with its default options. CLIENT is `coredis`; the steps are those of programs.py."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import coredis
import coredis.exceptions

from tests.clients.python.program import Arguments, ask_for, run_async, same, say, until_async

arguments = Arguments.given()


def connected() -> Any:
    return coredis.Redis(host=arguments.host, port=arguments.port, password=arguments.password)


class Steps:
    """One method for each step."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def connect(self) -> None:
        same(await self.client.ping(), b"PONG", "PING")

    async def strings(self) -> None:
        same(await self.client.set("strings:text", "hello"), True, "SET")
        same(await self.client.get("strings:text"), b"hello", "GET")
        same(await self.client.get("strings:nothing"), None, "GET of no key")
        same(await self.client.incr("strings:number"), 1, "INCR")
        same(await self.client.incrby("strings:number", 41), 42, "INCRBY")
        same(await self.client.expire("strings:number", 100), True, "EXPIRE")
        same(0 < await self.client.ttl("strings:number") <= 100, True, "TTL between 1 and 100")
        same(await self.client.append("strings:text", " you"), 9, "APPEND")

    async def pipeline(self) -> None:
        async with self.client.pipeline(transaction=False) as pipe:
            for number in range(100):
                pipe.set(f"pipeline:{number}", number)
                pipe.incr(f"pipeline:{number}")
                pipe.get(f"pipeline:{number}")
        wanted = [reply for number in range(100) for reply in (True, number + 1, str(number + 1).encode())]
        same(list(pipe.results), wanted, "the replies")

    async def many_keys(self) -> None:
        keys = [f"many:{number}" for number in range(20)]
        same(await self.client.mset({key: key for key in keys}), True, "MSET")
        wanted = (*(key.encode() for key in keys), None)
        same(tuple(await self.client.mget([*keys, "many:nothing"])), wanted, "MGET")
        same(await self.client.exists(keys), 20, "EXISTS")
        same(await self.client.delete(keys), 20, "DEL")

    async def collections(self) -> None:
        same(await self.client.hset("{tag}:hash", {"a": 1, "b": 2}), 2, "HSET")
        same(await self.client.hgetall("{tag}:hash"), {b"a": b"1", b"b": b"2"}, "HGETALL")
        same(await self.client.rpush("{tag}:list", ["x", "y"]), 2, "RPUSH")
        same(await self.client.lrange("{tag}:list", 0, -1), [b"x", b"y"], "LRANGE")
        same(await self.client.sadd("{tag}:set1", ["m", "n"]), 2, "SADD")
        same(await self.client.sadd("{tag}:set2", ["n", "o"]), 2, "SADD")
        same(await self.client.sinter(["{tag}:set1", "{tag}:set2"]), {b"n"}, "SINTER")
        same(await self.client.zadd("{tag}:zset", {"one": 1.5}), 1, "ZADD")
        ranked = await self.client.zrange("{tag}:zset", 0, -1, withscores=True)
        same([tuple(pair) for pair in ranked], [(b"one", 1.5)], "ZRANGE")
        at = await self.client.xadd("{tag}:stream", {"field": "value"})
        (entry,) = await self.client.xrange("{tag}:stream")
        same((entry.identifier, dict(entry.field_values)), (at, {b"field": b"value"}), "XRANGE")

    async def script(self) -> None:
        add = self.client.register_script(f"return redis.call('INCRBY', KEYS[1], ARGV[1]) -- {random.getrandbits(64)}")
        same(await add(keys=["script:number"], args=[20]), 20, "the script, unknown to the server")
        same(await add(keys=["script:number"], args=[22]), 42, "the script, known")

    async def transaction(self) -> None:
        async with self.client.pipeline(transaction=True) as pipe:
            pipe.set("{tag}:tx", 1)
            pipe.incr("{tag}:tx")
            pipe.get("{tag}:tx")
        same(list(pipe.results), [True, 2, b"2"], "EXEC")

    async def watch(self) -> None:
        try:
            async with self.client.pipeline(transaction=False) as pipe, pipe.watch("{tag}:watched"):
                await self.client.set("{tag}:watched", "somebody else's")
                pipe.set("{tag}:watched", "mine")
        except* coredis.exceptions.WatchError:
            same(await self.client.get("{tag}:watched"), b"somebody else's", "the watched key")
        else:
            raise AssertionError("the transaction was carried out")

    async def scan(self) -> None:
        keys = {f"scan:{number}".encode() for number in range(200)}
        await self.client.mset(dict.fromkeys(keys, "x"))
        same({key async for key in self.client.scan_iter(match="scan:*", count=50)}, keys, "the keys")

    async def wrong_type(self) -> str:
        await self.client.set("wrong:text", "text")
        try:
            await self.client.lpush("wrong:text", ["x"])
        except coredis.exceptions.ResponseError as error:
            same("wrong kind of value" in str(error), True, f"WRONGTYPE in {error}")
            return type(error).__name__
        raise AssertionError("no error")

    async def cross_slot(self) -> str:
        try:
            await self.client.sinter([f"cross:{number}" for number in range(20)])
        except coredis.exceptions.ResponseError as error:
            same("on different shards" in str(error), True, f"CROSSSLOT in {error}")
            return type(error).__name__
        raise AssertionError("no error")

    async def blocking_pop(self) -> None:
        async def push() -> None:
            await asyncio.sleep(0.3)
            await self.client.rpush("blocking:list", ["late"])

        pushed = asyncio.create_task(push())
        try:
            popped = await self.client.blpop(["blocking:list"], timeout=3)
            same([*popped], [b"blocking:list", b"late"], "BLPOP")
        finally:
            await pushed
        begin = time.monotonic()
        same(await self.client.blpop(["blocking:nothing"], timeout=1), None, "BLPOP of nothing")
        same(time.monotonic() - begin > 0.9, True, "a wait of 1 s")

    async def pub_sub(self) -> None:
        async with self.client.pubsub(ignore_subscribe_messages=True) as subscriber:

            async def hear() -> Any:
                return await until_async(lambda: subscriber.get_message(timeout=0.1), "a message", 5)

            await subscriber.subscribe("pub:channel")
            await subscriber.psubscribe("pub:p*")
            await self.client.publish("pub:channel", "one")
            same((await hear())["data"], b"one", "the message")
            await self.client.publish("pub:pattern", "two")
            same((await hear())["data"], b"two", "the message by pattern")
            await subscriber.unsubscribe("pub:channel")
            await subscriber.punsubscribe()
            await self.client.publish("pub:channel", "three")
            same(await subscriber.get_message(timeout=0.2), None, "a message after unsubscribe")

    async def reconnect(self) -> str:
        await self.client.set("reconnect:key", "still here")
        ask_for("restart")
        errors: list[str] = []

        async def read() -> Any:
            try:
                return await self.client.get("reconnect:key")
            except (coredis.exceptions.ConnectionError, coredis.exceptions.TimeoutError) as error:
                errors.append(type(error).__name__)
                return None

        same(await until_async(read, "a reply"), b"still here", "GET")
        return f"{len(errors)} errors first"

    async def held_write(self) -> str:
        await self.client.set("held:key", "before")
        ask_for("hold")
        begin = time.monotonic()
        same(await self.client.set("held:key", "after"), True, "SET")
        return f"answered after {time.monotonic() - begin:.1f} s"


async def main() -> None:
    say(client=arguments.client, version=coredis.__version__)
    async with connected() as client:
        steps = Steps(client)
        named = {
            "connect": steps.connect,
            "strings": steps.strings,
            "pipeline": steps.pipeline,
            "many keys": steps.many_keys,
            "collections": steps.collections,
            "script": steps.script,
            "transaction": steps.transaction,
            "watch": steps.watch,
            "scan": steps.scan,
            "wrong type": steps.wrong_type,
            "cross slot": steps.cross_slot,
            "blocking pop": steps.blocking_pop,
            "pub/sub": steps.pub_sub,
            "reconnect": steps.reconnect,
            "held write": steps.held_write,
        }
        await run_async(named, arguments.only)


asyncio.run(main())
