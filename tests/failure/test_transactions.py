"""A master is killed or frozen under transactions: each is executed once or not at all, and its client knows which."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import redis

from tests.harness import wait_until
from tests.proxies import start_proxy

if TYPE_CHECKING:
    from tests.harness import Servers
    from tests.proxies import ProxyServer

LONGEST = 4.0  # seconds that a request may be held


@dataclass
class Told:
    """What the clients were told."""

    done: list[float] = field(default_factory=list)  # when
    indoubt: int = 0
    nulls: int = 0
    errors: list[str] = field(default_factory=list)
    longest: float = 0.0


def transact(proxy: ProxyServer, told: Told, over: threading.Event, *, watch: bool) -> None:
    """Increments two counters together, again and again."""
    with proxy.client() as client:
        while not over.is_set():
            began = time.monotonic()
            with client.pipeline() as pipeline:
                try:
                    if watch:
                        pipeline.watch("{t}a")
                        pipeline.multi()
                    pipeline.incr("{t}a").incr("{t}b").execute()
                    told.done.append(time.monotonic())
                except redis.WatchError:
                    told.nulls += 1
                except redis.ResponseError as error:
                    told.indoubt += str(error).startswith("INDOUBT")
                    told.errors.append(str(error))
            told.longest = max(told.longest, time.monotonic() - began)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_failover_leaves_no_half_transaction(servers: Servers, how: str) -> None:
    stack = servers.stack(("a",), down_after_ms=1000)
    proxy = start_proxy(servers, stack)
    told, over = Told(), threading.Event()
    with ThreadPoolExecutor(6) as threads:
        clients = [threads.submit(transact, proxy, told, over, watch=bool(n % 2)) for n in range(6)]
        try:
            wait_until(lambda: len(told.done) > 200, 10, "transactions")
            lost_at = time.monotonic()
            getattr(stack.masters["a"], how)()
            wait_until(lambda: told.done[-1] > lost_at + 1.5, 20, "transactions on the new master")
        finally:
            over.set()
        for client in clients:
            client.result()
    assert len(told.errors) == told.indoubt <= len(clients), told.errors
    assert told.longest < LONGEST
    with stack.replicas["a"][0].client() as direct:
        first, second = direct.mget("{t}a", "{t}b")
    assert first == second
