"""Locks: redis-py's, python-redis-lock's, and pottery's Redlock. Arguments: PORT [PREFIX].

Prints "done", or how a server refused."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
import redis_lock
from pottery import Redlock

THREADS, ROUNDS = 8, 5


def counted(lock: Any, counter: list[int]) -> None:
    """Reads and writes with a pause in between: what others do meanwhile is lost, if the lock lets them."""
    for _ in range(ROUNDS):
        with lock():
            found = counter[0]
            time.sleep(0.001)
            counter[0] = found + 1


def excludes(lock: Any) -> None:
    counter = [0]
    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(counted, lock, counter) for _ in range(THREADS)]:
            done.result()
    assert counter == [THREADS * ROUNDS]


def main(port: int, prefix: str) -> None:
    client = redis.Redis(port=port)
    excludes(lambda: client.lock("redis-py", timeout=30, sleep=0.005))
    excludes(lambda: Redlock(key="redlock", masters={client}, auto_release_time=30))
    expires = client.lock("short", timeout=0.2)
    assert expires.acquire()
    assert client.lock("short", timeout=10).acquire(blocking_timeout=2)
    assert not expires.owned()
    for number in range(10):
        with redis_lock.Lock(client, f"{prefix}{number}-lock"):
            assert redis_lock.Lock(client, f"{prefix}{number}-lock").locked()
    excludes(lambda: redis_lock.Lock(client, f"{prefix}python-redis-lock", expire=30))
    renewed = redis_lock.Lock(client, f"{prefix}renewed", expire=1, auto_renewal=True)
    assert renewed.acquire()
    assert not any(redis_lock.Lock(client, f"{prefix}renewed", expire=1).acquire(timeout=1) for _ in range(2))
    renewed.release()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
    except redis.ResponseError as error:
        sys.stdout.write(f"{error}\n")
