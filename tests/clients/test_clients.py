"""Unchanged clients of several languages, with their default options: first on one Redis, then through the proxy.

The run on one Redis is the control: a step that fails there is a fault of its program, and says nothing of the proxy.
"""

from __future__ import annotations

import contextlib
import threading
import urllib.error
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pytest

from tests.clients.programs import CLIENTS, STEPS, Client, Server, run
from tests.harness import WHY_NO_ENGINE, Servers, redis_engine, wait_until
from tests.proxies import start_nutcracker_proxy, start_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.clients.programs import Report
    from tests.harness import RedisServer, SentinelServer
    from tests.proxies import ProxyServer

pytestmark = pytest.mark.timeout(600)  # the first test of a language brings and compiles it

ONE_SERVER = {"cross slot"}  # what one Redis cannot refuse
GIVES_UP = {"jedis", "valkey-glide"}  # by default they wait 2 s and 0.25 s for an answer
HELD_FOR = 2.4  # seconds, and the sentinel takes some tenths to be heard again; the proxy holds for 4 s at most
EVERY_STEP = [step for step in STEPS if step != "held write"]

every_client = pytest.mark.parametrize(
    "client", [pytest.param(one, id=one.name, marks=[pytest.mark.soak] if one.soak else []) for one in CLIENTS]
)


@dataclass
class Deployment:
    """A proxy, with what is behind it."""

    shards: list[RedisServer]
    proxy: ProxyServer
    sentinel: SentinelServer | None = None

    def emptied(self) -> Self:
        for shard in self.shards:
            empty(shard)
        return self

    def restart(self) -> None:
        self.proxy.stop()
        self.proxy.launch()
        wait_until(self.proxy.serves, 10, "the proxy to serve every shard")

    def writable(self) -> bool:
        try:
            return bool(self.proxy.ask("/readyz")["ready"])
        except urllib.error.HTTPError:
            return False


def empty(server: RedisServer) -> None:
    with contextlib.closing(server.client()) as direct:
        direct.flushall()


@pytest.fixture(scope="module")
def module_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    engine = redis_engine() or pytest.skip(WHY_NO_ENGINE["redis"])
    with Servers(engine, tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="module")
def only_redis(module_servers: Servers) -> RedisServer:
    return module_servers.redis("only", appendonly="yes")  # it has its keys again after a restart


@pytest.fixture(scope="module")
def shared_deployment(module_servers: Servers) -> Deployment:
    stack = module_servers.stack(("a", "b"), replicas=0, sentinels=1)
    return Deployment(list(stack.masters.values()), start_proxy(module_servers, stack), stack.sentinels[0])


@pytest.fixture
def deployment(shared_deployment: Deployment) -> Deployment:
    """Two shards under a sentinel, without keys, and a proxy of a shoal.yaml."""
    return shared_deployment.emptied()


@pytest.fixture(scope="module")
def shared_guarded(module_servers: Servers) -> Deployment:
    shards = [module_servers.redis(f"guarded-{number}", requirepass=PASSWORD) for number in (1, 2)]
    servers = "".join(f"    - 127.0.0.1:{shard.port}:1\n" for shard in shards)
    text = GUARDED + servers
    return Deployment(shards, start_nutcracker_proxy(module_servers, text, password=PASSWORD))


@pytest.fixture
def guarded(shared_guarded: Deployment) -> Deployment:
    """Two shards, without keys, and a proxy of a nutcracker.yml that wants a password."""
    return shared_guarded.emptied()


PASSWORD = "a-secret"
GUARDED = f"""\
guarded:
  listen: 127.0.0.1:{{port}}
  hash: fnv1a_64
  distribution: ketama
  hash_tag: "{{{{}}}}"
  redis: true
  redis_auth: {PASSWORD}
  servers:
"""


def went_well(report: Report, steps: Sequence[str]) -> None:
    wrong = report.wrong(steps)
    assert not wrong, "\n".join(wrong)


@every_client
def test_every_step_goes_well_on_one_redis(client: Client, only_redis: RedisServer) -> None:
    def restart() -> None:
        only_redis.stop()
        only_redis.start()

    empty(only_redis)
    report = run(client, Server(only_redis.address, {"restart": restart}), EVERY_STEP)
    went_well(report, [step for step in EVERY_STEP if step not in ONE_SERVER])


@every_client
def test_every_step_goes_well_through_the_proxy(client: Client, deployment: Deployment) -> None:
    report = run(client, Server(deployment.proxy.address, {"restart": deployment.restart}), EVERY_STEP)
    went_well(report, EVERY_STEP)


@every_client
def test_a_password_is_given_when_it_connects(client: Client, guarded: Deployment) -> None:
    steps = ("connect", "strings", "many keys")
    went_well(run(client, Server(guarded.proxy.address, password=PASSWORD), steps), steps)


@pytest.mark.soak
@every_client
def test_a_write_that_is_held_is_a_late_answer(client: Client, deployment: Deployment) -> None:
    """Without its sentinel the proxy has no lease, so no write goes out until the sentinel is back."""
    sentinel = deployment.sentinel
    assert sentinel is not None
    comeback = threading.Timer(HELD_FOR, sentinel.start)

    def hold() -> None:
        sentinel.kill()
        wait_until(lambda: not deployment.writable(), 5, "the lease to run out")
        if client.name not in GIVES_UP:
            comeback.start()

    try:
        report = run(client, Server(deployment.proxy.address, {"hold": hold}), ("connect", "held write"))
    finally:
        if comeback.ident is not None:
            comeback.join()
        sentinel.start()
        wait_until(deployment.writable, 10, "the lease to be back")
    if client.name in GIVES_UP:
        assert "timed out" in report.details["held write"]
    else:
        went_well(report, ["connect", "held write"])
