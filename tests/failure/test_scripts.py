"""A master is killed under scripts that are called by SHA-1: the next one has not got them, and no client sees it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import redis

from tests.harness import wait_until
from tests.proxies import start_proxy

if TYPE_CHECKING:
    from tests.harness import Servers
    from tests.proxies import ProxyServer

COUNT_UP = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
READ = "return redis.call('GET', KEYS[1])"


def call(proxy: ProxyServer, over: threading.Event, done: list[float], errors: list[str], *, whole: bool) -> None:
    """Counts up and reads, pipelined, alone or as a transaction, by the SHA-1s of scripts that are loaded once."""
    with proxy.client() as client:
        count_up, read = client.script_load(COUNT_UP), client.script_load(READ)
        while not over.is_set():
            pipeline = client.pipeline(transaction=whole)
            for _ in range(5):
                pipeline.evalsha(count_up, 1, "{t}n", 1).execute_command("EVALSHA_RO", read, 1, "{t}n")
            try:
                values = [int(value) for value in pipeline.execute()]
            except redis.ResponseError as error:
                errors.append(str(error))
                continue
            assert values == sorted(values), "what was pipelined was executed in its order"
            done.append(time.monotonic())


@pytest.mark.timeout(90)
@pytest.mark.parametrize("whole", [False, True], ids=["pipelined", "transactions"])
def test_a_failover_loses_no_script(servers: Servers, whole: bool) -> None:
    stack = servers.stack(("a",), down_after_ms=1000)
    proxy = start_proxy(servers, stack)
    done: list[float] = []
    errors: list[str] = []
    over = threading.Event()
    with ThreadPoolExecutor(4) as threads:
        clients = [threads.submit(call, proxy, over, done, errors, whole=whole) for _ in range(4)]
        try:
            wait_until(lambda: len(done) > 100, 10, "scripts")
            lost_at = time.monotonic()
            stack.masters["a"].kill()
            wait_until(lambda: done[-1] > lost_at + 1.5, 20, "scripts on the new master")
        finally:
            over.set()
        for client in clients:
            client.result()
    assert not [error for error in errors if "INDOUBT" not in error], errors
