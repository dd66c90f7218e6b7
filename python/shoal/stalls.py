"""Times in which the machine itself stood still: what must not be blamed on the proxy.

Owns: a client that asks one server again and again, past the proxy, and notes when that took long.
Rule: it is a witness for the defence only; it explains a slow request that overlaps a stall, it never excuses an error.
Called by the demonstration and by the failure tests.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

import redis

from shoal.promises import Stall

if TYPE_CHECKING:
    from types import TracebackType

INTERVAL = 0.005
STALLED = 0.020


class StallWatch:
    """While it is open, `seen` grows by every time in which a PING or a short sleep took too long."""

    def __init__(self, address: tuple[str, int], password: str | None = None) -> None:
        self.seen: list[Stall] = []
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
        while not self._stop.is_set():
            started = time.monotonic()
            self._stop.wait(INTERVAL)
            self._client.ping()
            ended = time.monotonic()
            if ended - started > INTERVAL + STALLED:
                self.seen.append(Stall(started, ended))
