"""Words that sentinels say, for tests: reports, polls and replies with one thing changed at a time.

Used by: the tests of the reducer, the lease, the watch, the admin HTTP and the daemon.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shoal.sentinel import Master, Polled, Published, Reducer, Report, Said, View, read_event
from shoal.topology import Endpoint

MS = 1_000_000
SHARD = "a"
OLD, NEW = Endpoint("10.0.0.1", 6379), Endpoint("10.0.0.2", 6379)
S1, S2, S3 = SENTINELS = tuple(Endpoint("10.0.1.1", 26379 + n) for n in range(3))

WELL = Report(
    endpoint=OLD,
    flags=frozenset({"master"}),
    role_reported="master",
    failover_state="",
    config_epoch=0,
    down_after_ms=1000,
    quorum=2,
    other_sentinels=2,
)


def report(*flags: str, **changes: Any) -> Report:
    """What a sentinel says that sees nothing wrong, but for `flags` and `changes`."""
    return replace(WELL, flags=WELL.flags | frozenset(flags), **changes)


def poll(sentinel: Endpoint, at_ms: float, said: Report | None = WELL, *, age_ms: int = 0) -> Polled:
    """A sentinel's answer to a poll sent at `at_ms`."""
    return Polled(sentinel, int(at_ms * MS), {} if said is None else {SHARD: Said(said, age_ms)})


def event(sentinel: Endpoint, at_ms: float, channel: str, payload: str = f"master {SHARD} 10.0.0.1 6379") -> Published:
    """An event as a sentinel publishes it."""
    read = read_event(channel.encode(), payload.encode())
    assert read is not None, f"{channel} means nothing to us"
    return Published(sentinel, int(at_ms * MS), read)


def reducer(**options: Any) -> Reducer:
    """Three sentinels, one shard, nothing known."""
    return Reducer(SENTINELS, [SHARD], **options)


def settled(at_ms: float = 0, **options: Any) -> Reducer:
    """All three have spoken for OLD at `at_ms`, and it is committed."""
    one = reducer(**options)
    for sentinel in SENTINELS:
        one.observe(poll(sentinel, at_ms))
    assert one.confirm(SHARD, Master(OLD, 0))
    return one


def look(one: Reducer, at_ms: float) -> Any:
    """The shard's part of the view at `at_ms`."""
    return one.decide(int(at_ms * MS)).masters[SHARD]


def view_of(one: Reducer, at_ms: float) -> View:
    return one.decide(int(at_ms * MS))


def reply(**changes: str) -> list[bytes]:
    """One master in SENTINEL MASTERS as redis-server 7.0.15 sends it; a value of "" leaves the field out."""
    fields = {
        "name": SHARD,
        "ip": "10.0.0.1",
        "port": "6379",
        "runid": "bceee2143fb0fa90b23475b1ac22ab3084708e9f",
        "flags": "master",
        "link-pending-commands": "0",
        "link-refcount": "1",
        "failover-state": "",
        "last-ping-sent": "0",
        "last-ok-ping-reply": "828",
        "last-ping-reply": "828",
        "down-after-milliseconds": "1000",
        "info-refresh": "3962",
        "role-reported": "master",
        "role-reported-time": "3992",
        "config-epoch": "7",
        "num-slaves": "1",
        "num-other-sentinels": "2",
        "quorum": "2",
        "failover-timeout": "6000",
        "parallel-syncs": "1",
    }
    fields.update({name.replace("_", "-"): value for name, value in changes.items()})
    return [part.encode() for name, value in fields.items() if value for part in (name, value)]
