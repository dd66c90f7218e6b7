"""Traffic that remembers: ordinary clients that write and read through a proxy, and know what they were promised.

Owns: the record of every request sent to a cluster under trial: when, how long, for which shard, and how it ended.
Rule: nothing is retried and nothing is guessed; a write counts as acknowledged only when its `OK` was read. Each
client keeps to one shard, so that a shard whose requests wait delays no request of another one.
Called by the demonstration and by the failure tests.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CLIENT_TIMEOUT = 10.0  # longer than any hold: a client that gives up would hide how its request ended
PAUSE = 0.001  # between two requests of a client: the machine has other things to do than our load


class Outcome(StrEnum):
    """How a request ended, as its client saw it."""

    OK = "ok"
    IN_DOUBT = "in doubt"  # sent, and perhaps carried out: the proxy says so
    REFUSED = "refused"  # not sent: the shard had no master for longer than requests are held
    FAILED = "failed"  # anything else
    WRONG = "wrong value"  # a read that returned what was never written there


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request, with times of `time.monotonic`."""

    shard: str
    key: str
    write: bool
    started: float
    ended: float
    outcome: Outcome
    error: str = ""

    @property
    def took(self) -> float:
        return self.ended - self.started


def judge(error: redis.RedisError | OSError) -> Outcome:
    text = str(error)
    if text.startswith("INDOUBT"):
        return Outcome.IN_DOUBT
    if text.startswith("MASTERDOWN"):
        return Outcome.REFUSED
    return Outcome.FAILED


class Recorder:
    """One client: a thread that sends requests of one shard, one at a time, and keeps what became of them."""

    def __init__(self, name: str, shard: str, connect: Callable[[], redis.Redis]) -> None:
        self.shard = shard
        self.attempts: list[Attempt] = []
        self.waiting_since: float | None = None
        self._connect = connect
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        self._thread.join(CLIENT_TIMEOUT + 1)

    def _run(self) -> None:
        with self._connect() as client:
            while not self._stop.wait(PAUSE):
                self._once(client)

    def _once(self, client: redis.Redis) -> None:
        raise NotImplementedError

    def _timed(self, key: str, call: Callable[[], bool], *, write: bool) -> Outcome:
        """Send one request and note it; `call` says whether what came back was right."""
        started = self.waiting_since = time.monotonic()
        outcome, text = Outcome.OK, ""
        try:
            if not call():
                outcome = Outcome.WRONG
        except (redis.RedisError, OSError) as error:
            outcome, text = judge(error), str(error)
        self.waiting_since = None
        self.attempts.append(Attempt(self.shard, key, write, started, time.monotonic(), outcome, text))
        return outcome


class Writer(Recorder):
    """Writes every key once, each with a value that nobody else writes."""

    def __init__(self, name: str, shard: str, connect: Callable[[], redis.Redis], keys: Iterator[str]) -> None:
        super().__init__(name, shard, connect)
        self.acknowledged: list[str] = []
        self._keys = keys

    def _once(self, client: redis.Redis) -> None:
        key = next(self._keys)
        if self._timed(key, lambda: bool(client.set(key, value_of(key))), write=True) is Outcome.OK:
            self.acknowledged.append(key)


class Reader(Recorder):
    """Reads what `writer` wrote. A missing key is not judged here: only the end shows whether it was lost."""

    def __init__(self, name: str, writer: Writer, connect: Callable[[], redis.Redis]) -> None:
        super().__init__(name, writer.shard, connect)
        self._writer = writer

    def _once(self, client: redis.Redis) -> None:
        if not self._writer.acknowledged:
            return
        key = random.choice(self._writer.acknowledged)

        def right() -> bool:
            found: Any = client.get(key)
            return found is None or found == value_of(key).encode()

        self._timed(key, right, write=False)


def value_of(key: str) -> str:
    return f"value of {key}"


class Traffic:
    """Writers and readers on every shard, through one address."""

    def __init__(
        self, address: tuple[str, int], shards: Sequence[str], shard_of: Callable[[bytes], str], *, password: str | None
    ) -> None:
        self._address = address
        self._shard_of = shard_of
        self._password = password
        self.writers = [
            Writer(f"writer-{shard}-{number}", shard, self._connect, self._keys(f"{shard}:{number}", shard))
            for shard in shards
            for number in (1, 2)
        ]
        readers = [Reader(f"reader-{writer.shard}", writer, self._connect) for writer in self.writers[::2]]
        self.clients: list[Recorder] = [*self.writers, *readers]

    def start(self) -> None:
        for client in self.clients:
            client.start()

    def stop(self) -> None:
        for client in self.clients:
            client.stop()
        for client in self.clients:
            client.join()

    def attempts(self, shard: str) -> list[Attempt]:
        """Everything sent to `shard`, in the order in which it ended."""
        mine = [attempt for client in self.clients if client.shard == shard for attempt in list(client.attempts)]
        return sorted(mine, key=lambda attempt: attempt.ended)

    def acknowledged(self, shard: str) -> int:
        return sum(len(writer.acknowledged) for writer in self.writers if writer.shard == shard)

    def waiting(self, shard: str, longer_than: float) -> int:
        """Clients of `shard` whose request has been on its way for so long."""
        now = time.monotonic()
        since = [client.waiting_since for client in self.clients if client.shard == shard]
        return sum(one is not None and now - one > longer_than for one in since)

    def _connect(self) -> redis.Redis:
        return redis.Redis(
            *self._address,
            password=self._password,
            socket_timeout=CLIENT_TIMEOUT,
            retry=Retry(NoBackoff(), 0),  # what a retry would hide is what we are here to see
        )

    def _keys(self, prefix: str, shard: str) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            key = f"{prefix}:{number:06}"
            if self._shard_of(key.encode()) == shard:
                yield key
