"""Valkey GLIDE, an asyncio client with a core in Rust, with its default options. CLIENT is `valkey-glide`.

The steps are those of programs.py.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import random
import time
from typing import Any

import glide

from tests.clients.python.program import Arguments, ask_for, run_async, same, say, until_async

arguments = Arguments.given()


async def connected() -> Any:
    where = [glide.NodeAddress(arguments.host, arguments.port)]
    credentials = None if arguments.password is None else glide.ServerCredentials(arguments.password)
    return await glide.GlideClient.create(glide.GlideClientConfiguration(where, credentials=credentials))


class Steps:
    """One method for each step."""

    client: Any

    async def connect(self) -> None:
        self.client = await connected()
        same(await self.client.ping(), b"PONG", "PING")

    async def strings(self) -> None:
        same(await self.client.set("strings:text", "hello"), "OK", "SET")
        same(await self.client.get("strings:text"), b"hello", "GET")
        same(await self.client.get("strings:nothing"), None, "GET of no key")
        same(await self.client.incr("strings:number"), 1, "INCR")
        same(await self.client.incrby("strings:number", 41), 42, "INCRBY")
        same(await self.client.expire("strings:number", 100), True, "EXPIRE")
        same(0 < await self.client.ttl("strings:number") <= 100, True, "TTL between 1 and 100")
        same(await self.client.append("strings:text", " you"), 9, "APPEND")

    async def pipeline(self) -> None:
        batch = glide.Batch(is_atomic=False)
        for number in range(100):
            batch.set(f"pipeline:{number}", str(number))
            batch.incr(f"pipeline:{number}")
            batch.get(f"pipeline:{number}")
        wanted = [reply for number in range(100) for reply in ("OK", number + 1, str(number + 1).encode())]
        same(await self.client.exec(batch, raise_on_error=True), wanted, "the replies")

    async def many_keys(self) -> None:
        keys = [f"many:{number}" for number in range(20)]
        same(await self.client.mset({key: key for key in keys}), "OK", "MSET")
        wanted = [*(key.encode() for key in keys), None]
        same(await self.client.mget([*keys, "many:nothing"]), wanted, "MGET")
        same(await self.client.exists(keys), 20, "EXISTS")
        same(await self.client.delete(keys), 20, "DEL")

    async def collections(self) -> None:
        same(await self.client.hset("{tag}:hash", {"a": "1", "b": "2"}), 2, "HSET")
        same(await self.client.hgetall("{tag}:hash"), {b"a": b"1", b"b": b"2"}, "HGETALL")
        same(await self.client.rpush("{tag}:list", ["x", "y"]), 2, "RPUSH")
        same(await self.client.lrange("{tag}:list", 0, -1), [b"x", b"y"], "LRANGE")
        same(await self.client.sadd("{tag}:set1", ["m", "n"]), 2, "SADD")
        same(await self.client.sadd("{tag}:set2", ["n", "o"]), 2, "SADD")
        same(await self.client.sinter(["{tag}:set1", "{tag}:set2"]), {b"n"}, "SINTER")
        same(await self.client.zadd("{tag}:zset", {"one": 1.5}), 1, "ZADD")
        ranked = await self.client.zrange_withscores("{tag}:zset", glide.RangeByIndex(0, -1))
        same(ranked, {b"one": 1.5}, "ZRANGE")
        at = await self.client.xadd("{tag}:stream", [("field", "value")])
        entries = await self.client.xrange("{tag}:stream", glide.MinId(), glide.MaxId())
        same(entries, {at: [[b"field", b"value"]]}, "XRANGE")

    async def script(self) -> None:
        add = glide.Script(f"return redis.call('INCRBY', KEYS[1], ARGV[1]) -- {random.getrandbits(64)}")
        same(await self.client.invoke_script(add, keys=["script:number"], args=["20"]), 20, "the script, unknown")
        same(await self.client.invoke_script(add, keys=["script:number"], args=["22"]), 42, "the script, known")

    async def transaction(self) -> None:
        batch = glide.Batch(is_atomic=True)
        batch.set("{tag}:tx", "1")
        batch.incr("{tag}:tx")
        batch.get("{tag}:tx")
        same(await self.client.exec(batch, raise_on_error=True), ["OK", 2, b"2"], "EXEC")

    async def watch(self) -> None:
        other = await connected()
        await self.client.watch(["{tag}:watched"])
        await other.set("{tag}:watched", "somebody else's")
        batch = glide.Batch(is_atomic=True)
        batch.set("{tag}:watched", "mine")
        same(await self.client.exec(batch, raise_on_error=True), None, "EXEC")
        same(await self.client.get("{tag}:watched"), b"somebody else's", "the watched key")
        await other.close()

    async def scan(self) -> None:
        keys = {f"scan:{number}".encode() for number in range(200)}
        await self.client.mset(dict.fromkeys(keys, "x"))
        found: set[bytes] = set()
        cursor: bytes = b"0"
        while True:
            cursor, some = await self.client.scan(cursor, match="scan:*", count=50)
            found.update(some)
            if cursor == b"0":
                break
        same(found, keys, "the keys")

    async def wrong_type(self) -> str:
        await self.client.set("wrong:text", "text")
        try:
            await self.client.lpush("wrong:text", ["x"])
        except glide.RequestError as error:
            same("wrong kind of value" in str(error), True, f"WRONGTYPE in {error}")
            return type(error).__name__
        raise AssertionError("no error")

    async def cross_slot(self) -> str:
        try:
            await self.client.sinter([f"cross:{number}" for number in range(20)])
        except glide.RequestError as error:
            same("on different shards" in str(error), True, f"CROSSSLOT in {error}")
            return type(error).__name__
        raise AssertionError("no error")

    async def blocking_pop(self) -> None:
        other = await connected()

        async def push() -> None:
            await asyncio.sleep(0.3)
            await other.rpush("blocking:list", ["late"])

        pushed = asyncio.create_task(push())
        try:
            same(await self.client.blpop(["blocking:list"], 3), [b"blocking:list", b"late"], "BLPOP")
        finally:
            await pushed
            await other.close()
        begin = time.monotonic()
        same(await self.client.blpop(["blocking:nothing"], 1), None, "BLPOP of nothing")
        same(time.monotonic() - begin > 0.9, True, "a wait of 1 s")

    async def pub_sub(self) -> None:
        subscriber = await connected()

        async def hear() -> Any:
            return (await asyncio.wait_for(subscriber.get_pubsub_message(), 5)).message

        await subscriber.subscribe({"pub:channel"}, 5000)
        await subscriber.psubscribe({"pub:p*"}, 5000)
        await self.client.publish("one", "pub:channel")
        same(await hear(), b"one", "the message")
        await self.client.publish("two", "pub:pattern")
        same(await hear(), b"two", "the message by pattern")
        await subscriber.unsubscribe({"pub:channel"}, 5000)
        await subscriber.punsubscribe({"pub:p*"}, 5000)
        await self.client.publish("three", "pub:channel")
        await asyncio.sleep(0.2)
        same(subscriber.try_get_pubsub_message(), None, "a message after unsubscribe")
        await subscriber.close()

    async def reconnect(self) -> str:
        await self.client.set("reconnect:key", "still here")
        ask_for("restart")
        errors: list[str] = []

        async def read() -> Any:
            try:
                return await self.client.get("reconnect:key")
            except (glide.ConnectionError, glide.TimeoutError, glide.ClosingError, glide.RequestError) as error:
                errors.append(type(error).__name__)
                return None

        same(await until_async(read, "a reply"), b"still here", "GET")
        return f"{len(errors)} errors first"

    async def held_write(self) -> str:
        await self.client.set("held:key", "before")
        ask_for("hold")
        begin = time.monotonic()
        same(await self.client.set("held:key", "after"), "OK", "SET")
        return f"answered after {time.monotonic() - begin:.1f} s"


async def main() -> None:
    say(client=arguments.client, version=importlib.metadata.version("valkey-glide"))
    steps = Steps()
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
