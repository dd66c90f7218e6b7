"""Times in which the machine itself stood still: what must not be blamed on the proxy.

Owns: a client that asks one server again and again, past the proxy, and the kernel's own word on the threads that carry
requests: how long they were ready to run without a processor to run on, and whether they wait for the disk (a page of
the program that was put out of memory and is read again; none of them opens a file). Rule: it is a witness for the
defence only; it explains a slow request that overlaps a stall, it never excuses an error.
Called by the demonstration and by the failure tests.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import redis

from shoal.promises import Stall

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

INTERVAL = 0.010
STALLED = 0.003
NS = 1_000_000_000

Waits = dict[int, dict[str, int]]
WAITS_FOR_DISK = b"D"


class StallWatch:
    """While open, `seen` grows by every time in which a PING, a short sleep, or a thread of `pids` was kept waiting.

    No moment is between two looks: a machine that stands still while they are made is seen too.
    """

    def __init__(self, address: tuple[str, int], pids: Sequence[int] = (), password: str | None = None) -> None:
        self.seen: list[Stall] = []
        self._pids = pids
        self._client = redis.Redis(*address, password=password, socket_timeout=5)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stall-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        waited, ended, usual = self._waits(), time.monotonic(), float("inf")
        while not self._stop.is_set():
            started = ended
            self._stop.wait(INTERVAL)
            self._client.ping()
            looked = time.monotonic()
            before, waited = waited, self._waits()
            on_disk = self._anyone_waits_for_disk()
            ended = time.monotonic()
            usual = min(usual, ended - looked)
            took = ended - started
            lost = max(_queued(before, waited), took - INTERVAL - usual, took if on_disk else 0.0)
            if lost > STALLED:
                # The kernel counts a wait when it is over: this one may have begun before the last look.
                self.seen.append(Stall(min(started, ended - lost), ended, lost))

    def _waits(self) -> Waits:
        """For each process and thread, the nanoseconds it has waited for a processor so far."""
        waits: Waits = {pid: {} for pid in self._pids}
        for pid, of_pid in waits.items():
            with contextlib.suppress(OSError):  # a thread or the process may have ended
                for task in Path(f"/proc/{pid}/task").iterdir():
                    of_pid[task.name] = int((task / "schedstat").read_text().split()[1])
        return waits

    def _anyone_waits_for_disk(self) -> bool:
        for pid in self._pids:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    after_the_name = (task / "stat").read_bytes().rpartition(b")")[2]
                    if after_the_name.split()[0] == WAITS_FOR_DISK:
                        return True
        return False


def _queued(before: Waits, after: Waits) -> float:
    """Seconds that a request may have lost: it passes the processes one after the other, a thread in each."""
    worst = (
        max((waited - before[pid].get(task, waited) for task, waited in of_pid.items()), default=0)
        for pid, of_pid in after.items()
    )
    return sum(worst) / NS
