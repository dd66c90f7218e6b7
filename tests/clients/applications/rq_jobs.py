"""RQ: jobs with results. Arguments: PORT. Prints "done", or how a server refused."""

from __future__ import annotations

import sys

import redis
from rq import Queue, SimpleWorker


def plus(one: int, other: int) -> int:
    return one + other


def main() -> None:
    connection = redis.Redis(port=int(sys.argv[1]))
    queue = Queue("work", connection=connection)
    jobs = [queue.enqueue("tests.clients.applications.rq_jobs.plus", number, 1) for number in range(30)]
    SimpleWorker([queue], connection=connection).work(burst=True, logging_level="ERROR")
    assert [job.return_value(refresh=True) for job in jobs] == [number + 1 for number in range(30)]
    sys.stdout.write("done\n")


if __name__ == "__main__":
    try:
        main()
    except redis.ResponseError as error:
        sys.stdout.write(f"{error}\n")
