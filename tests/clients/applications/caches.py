"""Caches: aiocache and cashews. Arguments: PORT [PREFIX]. Prints "done", or how a server refused."""

from __future__ import annotations

import asyncio
import sys

import redis
from aiocache import RedisCache
from aiocache.lock import RedLock
from cashews import Cache

NAMES = [f"{number} name" for number in range(20)]


async def use_aiocache(cache: RedisCache) -> None:
    for name in NAMES:
        await cache.set(name, name, ttl=60)
    assert await cache.multi_get([*NAMES, "absent"]) == [*NAMES, None]
    assert await cache.increment("count") == 1
    assert await cache.exists(NAMES[0])
    assert await cache.expire(NAMES[0], 10)
    async with RedLock(cache, "one", 5):
        assert await cache.delete(NAMES[0]) == 1


async def use_cashews(cache: Cache) -> None:
    calls: list[int] = []

    async def slow_square(number: int) -> int:
        calls.append(number)
        return number**2

    square = cache(ttl="1m", key="square:{number}", tags=["squares", "square:{number}"])(slow_square)
    for _ in range(2):
        assert [await square(number) for number in range(10)] == [number**2 for number in range(10)]
    assert calls == list(range(10))
    await cache.delete_tags("squares")
    assert await square(3) == 9
    assert calls == [*range(10), 3]
    for name in NAMES:
        await cache.set(name, name, expire=60)
    assert await cache.get_many(*NAMES) == tuple(NAMES)
    assert sorted([key async for key in cache.scan("[0-9]* name")]) == sorted(NAMES)
    await cache.delete_match("[0-9]* name")
    assert await cache.get(NAMES[0]) is None
    async with cache.lock("lock", expire=10):
        assert await cache.is_locked("lock")


async def set_many(own: RedisCache, other: Cache, prefix: str) -> None:
    """What puts several keys into one MULTI."""
    await own.multi_set([(f"{prefix}{name}", name) for name in NAMES], ttl=60)
    assert await own.multi_get([f"{prefix}{name}" for name in NAMES]) == NAMES
    await own.clear(namespace="aiocache:")
    assert await own.get(f"{prefix}{NAMES[0]}") is None
    await other.set_many({f"{prefix}{name}": name for name in NAMES}, expire=60)
    assert await other.get_many(*(f"{prefix}{name}" for name in NAMES)) == tuple(NAMES)


async def main(port: int, prefix: str) -> None:
    cashews = Cache()
    cashews.setup(f"redis://127.0.0.1:{port}")
    async with RedisCache(port=port, namespace="aiocache:") as aiocache:
        await use_aiocache(aiocache)
        await use_cashews(cashews)
        await set_many(aiocache, cashews, prefix)
    await cashews.close()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
    except redis.ResponseError as error:
        sys.stdout.write(f"{error}\n")
