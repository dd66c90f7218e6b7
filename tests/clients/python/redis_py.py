"""redis-py and its fork valkey-py, which share their interface, with their default options.

CLIENT is `redis-py` (with the hiredis parser, as it is when hiredis is installed), `redis-py-without-hiredis` or
`valkey-py`. The steps are those of tests/clients/programs.py.
"""

from __future__ import annotations

import importlib
import random
import sys
import threading
import time
from typing import Any

from tests.clients.python.program import Arguments, ask_for, run, same, say, until

PACKAGES = {"redis-py": "redis", "redis-py-without-hiredis": "redis", "valkey-py": "valkey"}
CLASSES = {"redis": "Redis", "valkey": "Valkey"}

arguments = Arguments.given()
if arguments.client == "redis-py-without-hiredis":
    sys.modules["hiredis"] = None  # type: ignore[assignment]  # what makes `import hiredis` fail
library: Any = importlib.import_module(PACKAGES[arguments.client])


def connected() -> Any:
    make = getattr(library, CLASSES[library.__name__])
    return make(host=arguments.host, port=arguments.port, password=arguments.password)


client = connected()


def connect() -> None:
    same(client.ping(), True, "PING")


def strings() -> None:
    same(client.set("strings:text", "hello"), True, "SET")
    same(client.get("strings:text"), b"hello", "GET")
    same(client.get("strings:nothing"), None, "GET of no key")
    same(client.incr("strings:number"), 1, "INCR")
    same(client.incrby("strings:number", 41), 42, "INCRBY")
    same(client.expire("strings:number", 100), True, "EXPIRE")
    same(0 < client.ttl("strings:number") <= 100, True, "TTL between 1 and 100")
    same(client.append("strings:text", " you"), 9, "APPEND")


def pipeline() -> None:
    pipe = client.pipeline(transaction=False)
    for number in range(100):
        pipe.set(f"pipeline:{number}", number)
        pipe.incr(f"pipeline:{number}")
        pipe.get(f"pipeline:{number}")
    wanted = [reply for number in range(100) for reply in (True, number + 1, str(number + 1).encode())]
    same(pipe.execute(), wanted, "the replies")


def many_keys() -> None:
    keys = [f"many:{number}" for number in range(20)]
    same(client.mset({key: key for key in keys}), True, "MSET")
    same(client.mget([*keys, "many:nothing"]), [*(key.encode() for key in keys), None], "MGET")
    same(client.exists(*keys), 20, "EXISTS")
    same(client.delete(*keys), 20, "DEL")


def collections() -> None:
    same(client.hset("{tag}:hash", mapping={"a": 1, "b": 2}), 2, "HSET")
    same(client.hgetall("{tag}:hash"), {b"a": b"1", b"b": b"2"}, "HGETALL")
    same(client.rpush("{tag}:list", "x", "y"), 2, "RPUSH")
    same(client.lrange("{tag}:list", 0, -1), [b"x", b"y"], "LRANGE")
    same(client.sadd("{tag}:set1", "m", "n"), 2, "SADD")
    same(client.sadd("{tag}:set2", "n", "o"), 2, "SADD")
    same(set(client.sinter("{tag}:set1", "{tag}:set2")), {b"n"}, "SINTER")
    same(client.zadd("{tag}:zset", {"one": 1.5}), 1, "ZADD")
    same([tuple(pair) for pair in client.zrange("{tag}:zset", 0, -1, withscores=True)], [(b"one", 1.5)], "ZRANGE")
    at = client.xadd("{tag}:stream", {"field": "value"})
    same(client.xrange("{tag}:stream"), [(at, {b"field": b"value"})], "XRANGE")


def script() -> None:
    add = client.register_script(f"return redis.call('INCRBY', KEYS[1], ARGV[1]) -- {random.getrandbits(64)}")
    same(add(keys=["script:number"], args=[20]), 20, "the script, unknown to the server")
    same(add(keys=["script:number"], args=[22]), 42, "the script, known")


def transaction() -> None:
    pipe = client.pipeline()
    pipe.set("{tag}:tx", 1).incr("{tag}:tx").get("{tag}:tx")
    same(pipe.execute(), [True, 2, b"2"], "EXEC")


def watch() -> None:
    with client.pipeline() as pipe:
        pipe.watch("{tag}:watched")
        client.set("{tag}:watched", "somebody else's")
        pipe.multi()
        pipe.set("{tag}:watched", "mine")
        try:
            pipe.execute()
        except library.WatchError:
            same(client.get("{tag}:watched"), b"somebody else's", "the watched key")
            return
    raise AssertionError("the transaction was carried out")


def scan() -> None:
    keys = {f"scan:{number}".encode() for number in range(200)}
    client.mset(dict.fromkeys(keys, "x"))
    same(set(client.scan_iter(match="scan:*", count=50)), keys, "the keys")


def wrong_type() -> str:
    client.set("wrong:text", "text")
    try:
        client.lpush("wrong:text", "x")
    except library.ResponseError as error:
        same("wrong kind of value" in str(error), True, f"WRONGTYPE in {error}")
        return type(error).__name__
    raise AssertionError("no error")


def cross_slot() -> str:
    try:
        client.sinter([f"cross:{number}" for number in range(20)])
    except library.ResponseError as error:
        same("on different shards" in str(error), True, f"CROSSSLOT in {error}")
        return type(error).__name__
    raise AssertionError("no error")


def blocking_pop() -> None:
    other = connected()
    pusher = threading.Timer(0.3, lambda: other.rpush("blocking:list", "late"))
    pusher.start()
    try:
        same(client.blpop("blocking:list", timeout=3), (b"blocking:list", b"late"), "BLPOP")
    finally:
        pusher.join()
    begin = time.monotonic()
    same(client.blpop("blocking:nothing", timeout=1), None, "BLPOP of nothing")
    same(time.monotonic() - begin > 0.9, True, "a wait of 1 s")


def pub_sub() -> None:
    subscriber = client.pubsub()

    def heard(kind: str, channel: str) -> Any:
        def poll() -> Any:
            message = subscriber.get_message(timeout=0.1)
            return message if message and (message["type"], message["channel"]) == (kind, channel.encode()) else None

        return until(poll, f"{kind} of {channel}", 5)

    subscriber.subscribe("pub:channel")
    heard("subscribe", "pub:channel")
    subscriber.psubscribe("pub:p*")
    heard("psubscribe", "pub:p*")
    client.publish("pub:channel", "one")
    same(heard("message", "pub:channel")["data"], b"one", "the message")
    client.publish("pub:pattern", "two")
    same(heard("pmessage", "pub:pattern")["data"], b"two", "the message by pattern")
    subscriber.unsubscribe("pub:channel")
    heard("unsubscribe", "pub:channel")
    subscriber.punsubscribe()
    heard("punsubscribe", "pub:p*")
    client.publish("pub:channel", "three")
    same(subscriber.get_message(timeout=0.2), None, "a message after unsubscribe")
    subscriber.close()


def reconnect() -> str:
    client.set("reconnect:key", "still here")
    ask_for("restart")
    errors: list[str] = []

    def read() -> Any:
        try:
            return client.get("reconnect:key")
        except (library.ConnectionError, library.TimeoutError) as error:
            errors.append(type(error).__name__)
            return None

    same(until(read, "a reply"), b"still here", "GET")
    return f"{len(errors)} errors first"


def held_write() -> str:
    client.set("held:key", "before")
    ask_for("hold")
    begin = time.monotonic()
    same(client.set("held:key", "after"), True, "SET")
    return f"answered after {time.monotonic() - begin:.1f} s"


say(client=arguments.client, version=library.__version__)
run(
    {
        "connect": connect,
        "strings": strings,
        "pipeline": pipeline,
        "many keys": many_keys,
        "collections": collections,
        "script": script,
        "transaction": transaction,
        "watch": watch,
        "scan": scan,
        "wrong type": wrong_type,
        "cross slot": cross_slot,
        "blocking pop": blocking_pop,
        "pub/sub": pub_sub,
        "reconnect": reconnect,
        "held write": held_write,
    },
    arguments.only,
)
