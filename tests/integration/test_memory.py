"""What clients make a proxy take of memory: bounded while they are there, and given back when they are gone.

Rule: the proxy is the whole one, as users run it; the kernel says how much memory it has. The bounds are generous, and
nothing is timed: the proxy looks after its size every ten seconds.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shoal import memory
from tests.harness import Servers, wait_until
from tests.integration.wire import Wire, command
from tests.proxies import start_nutcracker_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import EngineProgram
    from tests.proxies import NutcrackerProxy

MIB = 1 << 20
POOL = """\
main:
  listen: 127.0.0.1:{{port}}
  redis: true
  servers:
   - 127.0.0.1:{first}:1 a
   - 127.0.0.1:{second}:1 b
"""


@pytest.fixture
def servers(valkey: EngineProgram, tmp_path: Path) -> Iterator[Servers]:
    """One engine: what is tested here never looks at which."""
    with Servers(valkey, tmp_path) as running:
        yield running


@pytest.fixture
def proxy(servers: Servers) -> NutcrackerProxy:
    text = POOL.format(first=servers.redis("a").port, second=servers.redis("b").port)
    return start_nutcracker_proxy(servers, text)


def resident(proxy: NutcrackerProxy) -> int:
    """Bytes of memory that the proxy's process has."""
    status = Path(f"/proc/{proxy.pid}/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def crowd(proxy: NutcrackerProxy, size: int, data: bytes) -> None:
    """So many clients that send this, and leave once all have."""
    with contextlib.ExitStack() as clients:
        for wire in [clients.enter_context(Wire(proxy.address)) for _ in range(size)]:
            wire.send(data)


def a_million_keys(proxy: NutcrackerProxy) -> None:
    keys = [f"key:{number}" for number in range(1_000_000)]
    with Wire(proxy.address, timeout=50) as wire:
        assert wire.call("MSET", *[word for key in keys[::1000] for word in (key, "x")]) == "OK"
        assert wire.call("DEL", *keys) == 1000
        assert wire.call("EXISTS", *keys) == 0


def half_a_million_keys(proxy: NutcrackerProxy) -> None:
    with Wire(proxy.address, timeout=50) as wire:
        wire.send(b"*1000000\r\n" + b"$5\r\nhello\r\n" * 500_000)


def half_gigabytes_that_are_announced(proxy: NutcrackerProxy) -> None:
    """30 GB of them; there is room for what came, and for as much again."""
    before = resident(proxy)
    with contextlib.ExitStack() as clients:
        for wire in [clients.enter_context(Wire(proxy.address)) for _ in range(60)]:
            wire.send(b"*2\r\n$536870912\r\n" + b"x" * MIB)
            assert resident(proxy) < before + 200 * MIB


def values_that_lack_a_byte(proxy: NutcrackerProxy) -> None:
    crowd(proxy, 200, command("SET", "half", b"x" * 300_000)[:-1])


def lines_without_an_end(proxy: NutcrackerProxy) -> None:
    crowd(proxy, 200, b"a" * 65_000)


def a_long_transaction(proxy: NutcrackerProxy) -> None:
    with Wire(proxy.address) as wire:
        assert wire.call("MULTI") == "OK"
        for _ in range(60):
            assert wire.call("SET", "one", b"x" * MIB) == "QUEUED"


@pytest.mark.timeout(180)
def test_memory_returns_when_those_who_took_it_are_gone(proxy: NutcrackerProxy) -> None:
    crowds = [
        a_million_keys,
        half_a_million_keys,
        half_gigabytes_that_are_announced,
        values_that_lack_a_byte,
        a_long_transaction,
        lines_without_an_end,
    ]
    before = resident(proxy)
    with Wire(proxy.address) as bystander:
        assert bystander.call("SET", "mine", "before") == "OK"
        for come_and_go in crowds:
            come_and_go(proxy)
            assert bystander.call("GET", "mine") == b"before"
        wait_until(
            lambda: resident(proxy) < before + memory.GROWTH + 16 * MIB,
            120,
            f"the memory to return to {before >> 20} MiB",
            interval=0.1,
        )
        assert bystander.call("GET", "mine") == b"before"
