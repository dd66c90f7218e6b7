"""Celery: a broker and a result backend, tasks, a group, a delayed task, remote control. Arguments: PORT [KEY_PREFIX].

Run as a program it starts a worker in threads and gives it work; it prints "done" if everything came out right.
"""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery, group
from celery.contrib.testing.worker import start_worker

TIMEOUT = 30


def plus(one: int, other: int) -> int:
    return one + other


url = f"redis://127.0.0.1:{sys.argv[1]}/0"
app = Celery("tasks", broker=url, backend=url)
if len(sys.argv) > 2:
    prefix = {"global_keyprefix": sys.argv[2]}
    app.conf.update(broker_transport_options=prefix, result_backend_transport_options=prefix)
add: Any = app.task(name="plus")(plus)


def main() -> None:
    with start_worker(app, perform_ping_check=False, pool="threads", concurrency=2, loglevel="ERROR"):
        results = [add.delay(number, 1) for number in range(30)]
        assert [result.get(timeout=TIMEOUT) for result in results] == [number + 1 for number in range(30)]
        assert group(add.s(number, number) for number in range(5))().get(timeout=TIMEOUT) == [0, 2, 4, 6, 8]
        assert add.apply_async((5, 6), countdown=1).get(timeout=TIMEOUT) == 11
        assert app.control.ping(timeout=2)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main()
