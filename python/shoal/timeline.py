"""What happened when, while a shard lost its master: from the sentinels' events and the proxies' own logs.

Owns: moments in one time (time.monotonic), whoever reported them. Rule: a moment is what somebody said at that time,
never a conclusion drawn later. Called by the demonstration.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from shoal.topology import Endpoint

SENTINEL_WORDS = {
    "+sdown": "does not hear the master any more",
    "+odown": "agrees with enough others that it is down",
    "+try-failover": "starts a failover",
    "+elected-leader": "is elected to carry it out",
    "+promoted-slave": "has promoted the replica",
    "+switch-master": "names the new master",
}
"""Sentinel's events about a master that make a failover, and what they say in plain words."""

PROXY_WORDS = {
    "lease_broken": "lease broken: writes of the shard are held",
    "master_named": "a majority of sentinels names a new master",
    "master_committed": "new master committed: its ROLE says so too",
    "lease_regained": "lease regained: what was held goes out",
}


class Moment(NamedTuple):
    """Somebody said something about a shard."""

    at: float
    who: str
    what: str
    shard: str


class SentinelEars:
    """While open, hears what every sentinel publishes about masters."""

    def __init__(self, sentinels: Mapping[str, Endpoint], password: str | None) -> None:
        self._heard: list[Moment] = []
        self._lock = threading.Lock()
        self._clients = {
            name: redis.Redis(host=place.host, port=place.port, password=password, decode_responses=True)
            for name, place in sentinels.items()
        }
        self._threads: list[Any] = []

    def __enter__(self) -> Self:
        for name, client in self._clients.items():
            pubsub: Any = client.pubsub(ignore_subscribe_messages=True)
            pubsub.psubscribe(**{"+*": lambda message, name=name: self._hear(name, message)})
            self._threads.append(pubsub.run_in_thread(sleep_time=0.2, daemon=True, exception_handler=_give_up))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(2)
        for client in self._clients.values():
            with contextlib.suppress(redis.RedisError, OSError):
                client.close()

    def moments(self) -> list[Moment]:
        with self._lock:
            return list(self._heard)

    def _hear(self, name: str, message: Mapping[str, str]) -> None:
        now = time.monotonic()
        shard = subject(message["channel"], message["data"])
        if shard is not None:
            with self._lock:
                self._heard.append(Moment(now, name, SENTINEL_WORDS[message["channel"]], shard))


def subject(event: str, data: str) -> str | None:
    """The master that a sentinel's event is about; None for events that make no failover, or about other servers.

    Most say "master NAME host port ...", "slave ... @ NAME host port"; a switch says "NAME host port host port".
    """
    words = data.split(" ")
    if event not in SENTINEL_WORDS:
        return None
    if event == "+switch-master":
        return words[0]
    if words[0] == "master" and len(words) > 1:
        return words[1]
    if event == "+promoted-slave" and "@" in words[:-1]:
        return words[words.index("@") + 1]
    return None


def _give_up(_error: BaseException, _pubsub: object, thread: Any) -> None:
    """A sentinel that went away has nothing more to say."""
    thread.stop()


def proxy_moments(logs: Mapping[str, Path]) -> Iterator[Moment]:
    """What the proxies' logs (JSON lines, by proxy) say about leases and masters."""
    now_wall, now = time.time(), time.monotonic()
    for proxy, path in logs.items():
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a traceback's line is no event
                event = json.loads(line)
                said = PROXY_WORDS[event["event"]]
                wall = datetime.fromisoformat(event["timestamp"]).timestamp()
                yield Moment(now - (now_wall - wall), proxy, said, event["shard"])
