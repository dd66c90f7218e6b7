"""arq: jobs with results, and a deferred one. Arguments: PORT.

Prints "done", or how a server refused.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import redis
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

if TYPE_CHECKING:
    from arq.jobs import Job

TIMEOUT = 30


async def plus(_context: dict[Any, Any], one: int, other: int) -> int:
    return one + other


async def main(port: int) -> None:
    pool = await create_pool(RedisSettings(port=port))

    async def give(number: int, **options: Any) -> Job:
        job: Job | None = await pool.enqueue_job("plus", number, 1, _job_id=f"job {number}", **options)
        assert job is not None
        return job

    jobs = [await give(number) for number in range(30)]
    assert await pool.enqueue_job("plus", 0, 1, _job_id="job 0") is None  # a job of that name waits already
    jobs.append(await give(30, _defer_by=1))
    worker = Worker([func(plus, name="plus")], redis_pool=pool, handle_signals=False, poll_delay=0.05)
    working = asyncio.ensure_future(worker.async_run())
    results = asyncio.gather(*(job.result(timeout=TIMEOUT, poll_delay=0.05) for job in jobs))
    await asyncio.wait([working, results], return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()  # the error that it ended with
    assert await results == [number + 1 for number in range(31)]
    working.cancel()
    await asyncio.wait([working])
    await worker.close()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1])))
    except redis.ResponseError as error:
        sys.stdout.write(f"{error}\n")
