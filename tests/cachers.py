"""A client that keeps what it reads and believes what it is told: what client-side caching must be right for.

Owns: `Cacher`, one RESP3 connection with a cache, and `Writers`, who change what it keeps.
Rule: it takes replies and messages in the order in which they come, and asks for nothing that it has; so a value that
is not true any more once everything is quiet stays with it for ever, and `is_true` never holds.
Used by: the tests of CLIENT TRACKING.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import hiredis
import redis

from tests.harness import wait_until
from tests.integration.wire import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# hiredis's word for it; None is a reply.
NOTHING = False
QUIET = 0.05
PATIENCE = 20


class Cacher:
    """One client that tracks as `options` say."""

    def __init__(self, address: tuple[str, int], options: str = "", *, before_reads: str = "") -> None:
        self.cache: dict[bytes, bytes | None] = {}
        self.told: list[bytes | None] = []
        self.reads = 0
        self.errors: list[str] = []
        self._before = command(*before_reads.split()) if before_reads else b""
        self._reader = hiredis.Reader()
        self._socket = socket.create_connection(address, timeout=10)
        self.ask(command("HELLO", "3"), 1)
        assert self.ask(command("CLIENT", "TRACKING", "ON", *options.split()), 1) == [b"OK"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, requests: bytes, count: int) -> list[Any]:
        self._socket.sendall(requests)
        return [self._reply() for _ in range(count)]

    def read(self, keys: Iterable[bytes]) -> None:
        """Asks at once for all that it has not."""
        wanted = [key for key in keys if key not in self.cache]
        self._socket.sendall(b"".join(self._before + command("GET", key) for key in wanted))
        for key in wanted:
            if self._before:
                self._reply()
            value = self._reply()
            if isinstance(value, hiredis.ReplyError):
                self.errors.append(str(value))
            else:
                self.reads += 1
                self.cache[key] = value

    def listen(self, seconds: float = QUIET) -> None:
        """Takes what comes until nothing does for this time; but not for ever, if it never ends."""
        self._socket.settimeout(seconds)
        until = time.monotonic() + PATIENCE * seconds
        try:
            while time.monotonic() < until and (message := self._next()) is not NOTHING:
                self._take(message)
        finally:
            self._socket.settimeout(10)

    def is_true(self, truth: Callable[[bytes], bytes | None]) -> bool:
        """Whether everything it still keeps is so, once it has heard what there is to hear."""
        self.listen()
        return all(truth(key) == value for key, value in self.cache.items())

    def becomes_true(self, truth: Callable[[bytes], bytes | None]) -> None:
        wait_until(lambda: self.is_true(truth), 10, "nothing but the truth in a cache")

    def has_heard(self, *keys: bytes | None) -> bool:
        """Whether it has been told of these; None is everything."""
        self.listen()
        return set(keys) <= set(self.told)

    def _reply(self) -> Any:
        while True:
            found = self._next()
            assert found is not NOTHING, "no reply in time"
            if not isinstance(found, hiredis.PushNotification):
                return found
            self._take(found)

    def _take(self, message: Any) -> None:
        assert message[0] == b"invalidate", message
        if message[1] is None:
            self.told.append(None)
            self.cache.clear()
            return
        for key in message[1]:
            self.told.append(key)
            self.cache.pop(key, None)

    def _next(self) -> Any:
        """The next reply or message; `NOTHING` if none comes."""
        while (found := self._reader.gets()) is NOTHING:
            try:
                more = self._socket.recv(65536)
            except TimeoutError:
                return NOTHING
            assert more, "closed"
            self._reader.feed(more)
        return found


class Writers:
    """Threads that set keys to ever new values, each through one of these clients; errors are left to the others."""

    def __init__(self, clients: list[redis.Redis], keys: list[bytes]) -> None:
        self.written = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(client, keys)) for client in clients]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _write(self, client: redis.Redis, keys: list[bytes]) -> None:
        draw = random.Random(id(client))
        while not self._over.is_set():
            try:
                client.set(draw.choice(keys), time.monotonic_ns())
            except redis.RedisError:
                time.sleep(0.01)
            self.written += 1
