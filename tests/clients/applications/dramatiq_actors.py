"""Dramatiq: actors with results, and a delayed message. Arguments: PORT. Prints "done"."""

from __future__ import annotations

import sys
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

TIMEOUT = 30_000


def plus(one: int, other: int) -> int:
    return one + other


def main() -> None:
    port = int(sys.argv[1])
    broker = RedisBroker(port=port)
    broker.add_middleware(Results(backend=RedisBackend(port=port)))
    dramatiq.set_broker(broker)
    add: Any = dramatiq.actor(plus, store_results=True)
    worker = dramatiq.Worker(broker, worker_threads=2)
    worker.start()
    messages = [add.send(number, 1) for number in range(30)]
    results = [message.get_result(block=True, timeout=TIMEOUT) for message in messages]
    assert results == [number + 1 for number in range(30)]
    delayed = add.send_with_options(args=(5, 6), delay=1000)
    assert delayed.get_result(block=True, timeout=TIMEOUT) == 11
    worker.stop()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main()
