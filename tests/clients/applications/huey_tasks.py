"""Huey: tasks with results, and a scheduled one. Arguments: PORT.

Prints "done", and does it again for each line that it reads."""

from __future__ import annotations

import sys
from typing import Any

from huey import RedisHuey

TIMEOUT = 30


def plus(one: int, other: int) -> int:
    return one + other


def give_work(add: Any) -> None:
    results = [add(number, 1) for number in range(30)]
    assert [result(blocking=True, timeout=TIMEOUT) for result in results] == [number + 1 for number in range(30)]
    assert add.schedule((5, 6), delay=1)(blocking=True, timeout=TIMEOUT) == 11
    sys.stdout.write("done\n")
    sys.stdout.flush()


def main() -> None:
    huey = RedisHuey("app", port=int(sys.argv[1]))
    add: Any = huey.task()(plus)
    consumer = huey.create_consumer(workers=2, periodic=False)
    consumer.start()
    give_work(add)
    for _again in sys.stdin:
        give_work(add)
    consumer.stop(graceful=True)


if __name__ == "__main__":
    main()
