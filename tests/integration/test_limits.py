"""Limits that would surprise, at the start of a proxy: descriptors, and how long requests are held."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.harness import LOOPBACK, Servers, wait_until
from tests.integration.wire import Wire
from tests.proxies import nutcracker_proxy, start_nutcracker_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness import EngineProgram

POOL = """\
main:
  listen: 127.0.0.1:{{port}}
  redis: true
  servers:
   - 127.0.0.1:{server}:1 a
"""
SOFT_LIMIT = 64


@pytest.fixture
def servers(valkey: EngineProgram, tmp_path: Path) -> Iterator[Servers]:
    """One engine: what is tested here never looks at which."""
    with Servers(valkey, tmp_path) as running:
        yield running


def test_more_clients_than_the_soft_limit_of_descriptors_are_served(servers: Servers) -> None:
    proxy = nutcracker_proxy(servers, POOL.format(server=servers.redis().port))
    proxy.argv = ["prlimit", f"--nofile={SOFT_LIMIT}:4096", *proxy.argv]
    proxy.launch()
    wait_until(proxy.answers, 10, "the proxy to answer")
    with contextlib.ExitStack() as clients:
        wires = [clients.enter_context(Wire(proxy.address)) for _ in range(2 * SOFT_LIMIT)]
        assert {wire.call("SET", "key", "value") for wire in wires} == {"OK"}


@pytest.mark.parametrize(("down_after_ms", "said"), [(1000, False), (5000, True)])
def test_a_failover_that_takes_longer_than_requests_are_held_is_said(
    servers: Servers, down_after_ms: int, said: bool
) -> None:
    master = servers.redis("a")
    sentinel = servers.sentinel({"a": master}, quorum=1, down_after_ms=down_after_ms)
    text = POOL.format(server=master.port) + f"  sentinels:\n   - {LOOPBACK}:{sentinel.port}\n"
    proxy = start_nutcracker_proxy(servers, text)
    assert ("hold_short" in proxy.log_tail(100)) == said
    assert ("failover_ms=6500 hold_ms=4000 pool=main" in proxy.log_tail(100)) == said
