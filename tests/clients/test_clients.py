"""Unchanged clients of several languages, with their default options: first on one Redis, then through the proxy.

The run on one Redis is the control: a step that fails there is a fault of its program, and says nothing of the proxy.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.clients.programs import CLIENTS, STEPS, Client, Server, run
from tests.harness import WHY_NO_ENGINE, Servers, redis_engine, wait_until
from tests.proxies import start_nutcracker_proxy, start_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import RedisServer
    from tests.proxies import ProxyServer

pytestmark = pytest.mark.timeout(600)  # the first test of a language brings and compiles it

NOT_YET = {"blocking pop", "pub/sub"}  # what the proxy refuses so far: empty this when it serves them
UNHEARD = {("coredis", "pub/sub"), ("valkey-glide", "pub/sub")}  # they wait for the subscription, whatever the answer
ONE_SERVER = {"cross slot"}  # what one Redis cannot refuse

every_client = pytest.mark.parametrize(
    "client", [pytest.param(one, id=one.name, marks=[pytest.mark.soak] if one.soak else []) for one in CLIENTS]
)


@pytest.fixture(scope="module")
def module_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    engine = redis_engine() or pytest.skip(WHY_NO_ENGINE["redis"])
    with Servers(engine, tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="module")
def only_redis(module_servers: Servers) -> RedisServer:
    return module_servers.redis("only", appendonly="yes")  # it has its keys again after a restart


@pytest.fixture(scope="module")
def shards_and_proxy(module_servers: Servers) -> tuple[list[RedisServer], ProxyServer]:
    stack = module_servers.stack(("a", "b"), replicas=0, sentinels=1)
    return list(stack.masters.values()), start_proxy(module_servers, stack)


@pytest.fixture
def proxy(shards_and_proxy: tuple[list[RedisServer], ProxyServer]) -> ProxyServer:
    shards, running = shards_and_proxy
    _empty(shards)
    return running


def _empty(servers: list[RedisServer]) -> None:
    for server in servers:
        with contextlib.closing(server.client()) as direct:
            direct.flushall()


@every_client
def test_every_step_goes_well_on_one_redis(client: Client, only_redis: RedisServer) -> None:
    def restart() -> None:
        only_redis.stop()
        only_redis.start()

    _empty([only_redis])
    report = run(client, Server(only_redis.address, restart))
    assert not report.wrong([step for step in STEPS if step not in ONE_SERVER])


@every_client
def test_every_step_goes_well_through_the_proxy(client: Client, proxy: ProxyServer) -> None:
    def restart() -> None:
        proxy.stop()
        proxy.launch()
        wait_until(proxy.serves, 10, "the proxy to serve every shard")

    report = run(client, Server(proxy.address, restart))
    assert not report.wrong([step for step in STEPS if step not in NOT_YET])
    for step in NOT_YET:
        error = report.failures[step]
        assert error, f"{step} works: take it from NOT_YET"
        assert "not supported by Shoal" in error or (client.name, step) in UNHEARD


@every_client
def test_a_password_is_given_when_it_connects(client: Client, servers_with_password: ProxyServer) -> None:
    server = Server(servers_with_password.address, lambda: None, "a-secret")
    steps = ("connect", "strings", "many keys")
    assert not run(client, server, steps).wrong(steps)


@pytest.fixture(scope="module")
def guarded_proxy(module_servers: Servers) -> tuple[list[RedisServer], ProxyServer]:
    shards = [module_servers.redis(f"guarded-{number}", requirepass="a-secret") for number in (1, 2)]
    lines = "".join(f"    - 127.0.0.1:{shard.port}:1 shard{shard.port}\n" for shard in shards)
    text = (
        "guarded:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: ketama\n  hash_tag: '{{}}'\n"
        "  redis: true\n  redis_auth: a-secret\n  servers:\n" + lines
    )
    return shards, start_nutcracker_proxy(module_servers, text, password="a-secret")


@pytest.fixture
def servers_with_password(guarded_proxy: tuple[list[RedisServer], ProxyServer]) -> ProxyServer:
    shards, running = guarded_proxy
    _empty(shards)
    return running
