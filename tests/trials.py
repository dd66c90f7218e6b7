"""A trial: traffic on every shard while something is done to the servers, and the evidence of what came of it.

Rule: a shard is called as the ring calls it, by its label. What was acknowledged is looked for at the masters
themselves, past every proxy. Used by the failure tests.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from shoal.plane import Ring, ShardSpec
from shoal.promises import Evidence, judge
from shoal.sentinel import Timing
from shoal.stalls import StallWatch
from shoal.supervisor import ping_period
from shoal.traffic import Traffic, value_of
from tests.harness import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.harness import RedisServer, Stack
    from tests.proxies import ProxyServer

STEADY = Timing().down_memory / 1000 + 0.5  # seconds of traffic before the kill: a cluster that has settled
AFTERWARDS = 1.0  # and after writes go on


def shard_of(labels: Sequence[str], hash_tag: str | None = "{}") -> Callable[[bytes], str]:
    """Where Twemproxy's default ring has a key."""
    ring = Ring([ShardSpec(label, 1) for label in labels], "fnv1a_64", "ketama", hash_tag)
    return lambda key: ring.locate(key).shard


def homes(masters: Mapping[str, RedisServer], keys: Sequence[str]) -> dict[str, frozenset[str]]:
    """The shards whose master, asked directly, holds each key with the value that was written."""
    found: dict[str, set[str]] = {key: set() for key in keys}
    for shard, master in masters.items():
        with master.client(socket_timeout=10) as direct:
            for start in range(0, len(keys), 1000):
                part = keys[start : start + 1000]
                values: Any = direct.mget(part)
                for key, value in zip(part, values, strict=True):
                    if value == value_of(key).encode():
                        found[key].add(shard)
    return {key: frozenset(where) for key, where in found.items()}


def acknowledged(traffic: Traffic) -> list[str]:
    return [key for writer in traffic.writers for key in writer.acknowledged]


def writes_go_on(traffic: Traffic, shard: str, moment: float) -> None:
    """Wait for a write of `shard` that was begun after this moment and acknowledged."""

    def wrote() -> bool:
        return any(one.write and one.outcome == "ok" and one.started > moment for one in traffic.attempts(shard)[-50:])

    wait_until(wrote, 15, f"shard {shard} to take writes")


def ping_as_supervised(stack: Stack) -> None:
    """Give the sentinels the ping period that `shoal up` gives them, or they may take the new master for dead."""
    for sentinel in stack.sentinels:
        period = ping_period(sentinel.down_after_ms)
        if period is not None:
            with sentinel.client() as client:
                client.execute_command("SENTINEL", "DEBUG", "ping-period", period)


class KillTrial:
    """Traffic through `proxy`, and a kill on one shard of `masters`; the others' master is a witness of stalls."""

    def __init__(self, proxy: ProxyServer, masters: Mapping[str, RedisServer], of_key: Callable[[bytes], str]) -> None:
        self.traffic = Traffic(proxy.address, list(masters), of_key, password=None)
        self._proxy = proxy
        self._masters = masters

    def run(
        self, shard: str, kill: Callable[[], None], promoted: RedisServer, afterwards: Callable[[], None] | None = None
    ) -> Evidence:
        """Kill, wait until `promoted` takes writes of `shard`, do what comes afterwards; what was seen."""
        other = next(master for label, master in self._masters.items() if label != shard)
        with StallWatch(other.address, [os.getpid(), self._proxy.pid, other.pid]) as stalls:
            self.traffic.start()
            try:
                time.sleep(STEADY)
                killed_at = time.monotonic()
                kill()
                writes_go_on(self.traffic, shard, killed_at + 0.5)
                time.sleep(AFTERWARDS)
                if afterwards is not None:
                    afterwards()
            finally:
                self.traffic.stop()
        assert promoted.role() == "master"
        found = homes({**self._masters, shard: promoted}, acknowledged(self.traffic))
        attempts = {label: self.traffic.attempts(label) for label in self._masters}
        return Evidence(shard, killed_at, attempts, found, stalls.seen)


def assert_every_promise(evidence: Evidence) -> None:
    promises = judge(evidence)
    report = "\n".join(f"{'kept  ' if one.kept else 'BROKEN'} {one.text}: {one.detail}" for one in promises)
    assert all(one.kept for one in promises), report
