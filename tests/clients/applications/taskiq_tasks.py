"""Taskiq: tasks with results over a list and over a stream. Arguments: PORT [QUEUE].

One message of the stream was taken by a worker that died, and is done by another. Prints "done"."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import redis.asyncio as redis
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

TIMEOUT = 30
IDLE = 200  # milliseconds after which a message is taken from the worker that has not done it


def plus(one: int, other: int) -> int:
    return one + other


async def work(broker: Any) -> None:
    add = broker.register_task(plus, task_name="plus")
    broker.is_worker_process = True
    await broker.startup()
    working = asyncio.ensure_future(run_receiver_task(broker))
    tasks = [await add.kiq(number, 1) for number in range(30)]
    results = [await task.wait_result(check_interval=0.05, timeout=TIMEOUT) for task in tasks]
    assert [result.return_value for result in results] == [number + 1 for number in range(30)]
    working.cancel()
    await asyncio.wait([working])
    await broker.shutdown()


async def leave_one_behind(broker: Any, url: str) -> Any:
    """Give a task to a worker that does not do it."""
    task = await broker.register_task(plus, task_name="plus").kiq(1000, 1)
    async with redis.Redis.from_url(url) as client:
        assert await client.xreadgroup(broker.consumer_group_name, "dead", {broker.queue_name: ">"})
    return task


async def main(url: str, queue: str) -> None:
    results = RedisAsyncResultBackend(url)
    stream = RedisStreamBroker(url, queue_name=queue, idle_timeout=IDLE, xread_block=100).with_result_backend(results)
    await stream.startup()
    left = await leave_one_behind(stream, url)
    await work(ListQueueBroker(url, queue_name=f"{queue} list").with_result_backend(results))
    await asyncio.sleep(IDLE / 1000)
    await work(stream)
    assert (await left.wait_result(timeout=TIMEOUT)).return_value == 1001
    sys.stdout.write("done\n")


if __name__ == "__main__":
    asyncio.run(main(f"redis://127.0.0.1:{sys.argv[1]}", sys.argv[2] if len(sys.argv) > 2 else "taskiq"))
