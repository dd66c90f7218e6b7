"""Servers that many proxy tests share: three shards of each engine, and one data plane before them.

Rule: they are started once a module and emptied before each test, so a test may count on an empty cluster but not on
the numbers of an earlier one.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.harness import Servers
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from tests.harness import EngineProgram

SHARDS = ("a", "b", "c")


@pytest.fixture(scope="module")
def module_servers(engine: EngineProgram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers(engine, tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="module")
def shared_proxy(module_servers: Servers) -> PlaneHost:
    """A data plane over three masters, one worker, the settings of a plain pool."""
    shards = {name: module_servers.redis(name) for name in SHARDS}
    host = PlaneHost("proxy", [], module_servers.directory / "proxy", servers=shards)
    return module_servers.adopt(host).start()


@pytest.fixture
def proxy(shared_proxy: PlaneHost) -> PlaneHost:
    for server in shared_proxy.servers.values():
        with contextlib.closing(server.client()) as direct:
            direct.flushall()
    return shared_proxy


@pytest.fixture
def make_client(proxy: PlaneHost) -> Iterator[Callable[..., redis.Redis]]:
    """`make_client(protocol=3)`: redis-py clients of the proxy, closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(proxy.client(**options))


@pytest.fixture
def client(make_client: Callable[..., redis.Redis]) -> redis.Redis:
    """An ordinary redis-py client with default settings."""
    return make_client()
