"""Real servers start with the rendered files, rewrite them as they do, and start with them again."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shoal import config
from shoal.engine import Engine
from shoal.render import redis_conf, sentinel_conf, shoal_conf, with_password
from shoal.topology import lay_out, ports_to_choose
from tests.harness import Process, free_port, wait_until

if TYPE_CHECKING:
    from shoal.topology import Endpoint, Layout, RedisNode, SentinelNode
    from tests.harness import EngineProgram, Servers

ODD_PASSWORD = r"#p\x41a#w\o{}$é%~:,;<>|&`("
NO_RETRY = Retry(NoBackoff(), 0)
# With 1 s, and no supervisor to shorten their ping period, sentinels may take the master that they have just promoted
# for dead, and make the old one master again.
ONE_SHARD: dict[str, Any] = {"shards": {"a": {"replicas": 1}}, "sentinel": {"nodes": 3, "down_after": "1200ms"}}


@dataclass
class Rendered:
    """One shard and its sentinels, started from rendered files the way the supervisor does it."""

    servers: Servers
    engine: Engine
    layout: Layout
    password: str | None

    def start_redis(self, node: RedisNode) -> Process:
        home = self.servers.directory / "a state" / node.name
        home.mkdir(parents=True, exist_ok=True)
        conf = home / "redis.conf"
        text = conf.read_text() if conf.exists() else redis_conf(node, self.layout, home)
        conf.write_text(with_password(text, self.layout.topology))
        (home / "shoal.conf").write_text(shoal_conf(node, self.layout))
        return self._start(node.name, self.engine.server_command(home / "redis.conf"), node.endpoint)

    def start_sentinel(self, node: SentinelNode) -> Process:
        home = self.servers.directory / "a state" / node.name
        home.mkdir(parents=True, exist_ok=True)
        conf = home / "sentinel.conf"
        masters = {"a": self.layout.redis[0].endpoint}
        text = conf.read_text() if conf.exists() else sentinel_conf(node, self.layout, masters)
        conf.write_text(with_password(text, self.layout.topology))
        return self._start(node.name, self.engine.sentinel_command(conf), node.endpoint)

    def _start(self, name: str, argv: tuple[str, ...], endpoint: Endpoint) -> Process:
        process = self.servers.adopt(Process(name, argv, self.servers.directory / "logs" / name))
        process.launch()
        wait_until(lambda: self.ask(endpoint, "PING"), 10, f"{name} to answer")
        return process

    def ask(self, endpoint: Endpoint, *words: str) -> Any:
        with contextlib.closing(
            redis.Redis(
                *endpoint, password=self.password, decode_responses=True, socket_timeout=2, protocol=2, retry=NO_RETRY
            )
        ) as client:
            return client.execute_command(*words)

    def setting(self, node: RedisNode, name: str) -> str:
        reply = self.ask(node.endpoint, "CONFIG", "GET", name)
        return str(reply[name] if isinstance(reply, dict) else reply[1])

    def endpoints(self) -> list[Endpoint]:
        return [*(node.endpoint for node in self.layout.redis), *(node.endpoint for node in self.layout.sentinels)]

    def conf(self, name: str) -> str:
        kind = "sentinel" if name.startswith("sentinel") else "redis"
        return (self.servers.directory / "a state" / name / f"{kind}.conf").read_text()

    def role(self, node: RedisNode) -> str:
        return str(self.ask(node.endpoint, "ROLE")[0])

    def linked(self, node: RedisNode) -> bool:
        reply = self.ask(node.endpoint, "ROLE")
        return bool(reply[0] == "slave" and reply[3] == "connected")

    def settled(self) -> bool:
        masters = [self.ask(node.endpoint, "SENTINEL", "MASTERS")[0] for node in self.layout.sentinels]
        found = [one if isinstance(one, dict) else dict(zip(one[::2], one[1::2], strict=True)) for one in masters]
        return all(one["num-slaves"] == "1" and one["num-other-sentinels"] == "2" for one in map(_as_text, found))


def _as_text(values: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


@pytest.fixture(params=[None, ODD_PASSWORD], ids=["open", "password"])
def rendered(request: pytest.FixtureRequest, servers: Servers, engine: EngineProgram) -> Rendered:
    program = Engine(engine.server, ("--sentinel",), "redis", (7, 0, 0), "a test")
    layout = _layout({**ONE_SHARD, **_auth(request.param), "redis": {"maxmemory": "100mb", "save": "900 1"}}, None)
    stack = Rendered(servers, program, layout, request.param)
    for node in layout.redis:
        stack.start_redis(node)
    for sentinel in layout.sentinels:
        stack.start_sentinel(sentinel)
    return stack


def _auth(password: str | None) -> dict[str, Any]:
    return {} if password is None else {"auth": {"password": password}}


def _layout(data: dict[str, Any], ports: dict[str, int] | None) -> Layout:
    topology = config.parse(data)
    return lay_out(topology, ports or {key: free_port() for key in ports_to_choose(topology)})


def test_a_failover_and_a_restart_keep_the_roles_and_take_the_topology_s_settings(rendered: Rendered) -> None:
    """The second start has other settings, and a password where there was none or none where there was one."""
    old, new = rendered.layout.redis
    wait_until(lambda: rendered.linked(new) and rendered.settled(), 20, "the sentinels to know everyone")
    processes = {process.name: process for process in rendered.servers.processes}
    processes[old.name].kill()
    wait_until(lambda: rendered.role(new) == "master", 15, "the replica to be promoted")
    rendered.start_redis(old)
    wait_until(lambda: rendered.linked(old), 25, "the old master to follow, with the password that its file has")

    for process in rendered.servers.processes:
        process.kill()
    rendered.password = ODD_PASSWORD if rendered.password is None else None
    settings = {"redis": {"maxmemory": "200mb", "save": "800 1"}, **_auth(rendered.password)}
    rendered.layout = _layout({**ONE_SHARD, **settings}, _ports(rendered.layout))
    for node in rendered.layout.redis:
        rendered.start_redis(node)
    for sentinel in rendered.layout.sentinels:
        rendered.start_sentinel(sentinel)

    assert rendered.role(new) == "master"
    wait_until(lambda: rendered.linked(old), 10, "the replica to follow again")
    wait_until(rendered.settled, 20, "the sentinels to know everyone again")
    for node in rendered.layout.redis:
        assert rendered.setting(node, "maxmemory") == str(200 << 20)
        assert rendered.setting(node, "save") == "800 1"
        assert rendered.conf(node.name).count("include ") == 1
        assert rendered.conf(node.name).index("include ") < rendered.conf(node.name).index("maxmemory")
    _password_is_asked_for(rendered)


def test_the_defaults_are_in_force_and_the_password_is_asked_for(rendered: Rendered) -> None:
    node = rendered.layout.redis[0]
    expected = {
        "appendonly": "yes",
        "repl-diskless-sync": "yes",
        "repl-diskless-sync-delay": "0",
        "repl-backlog-size": str(64 << 20),
        "repl-timeout": "10",
        "replica-priority": "100",
        "min-replicas-to-write": "0",
    }
    assert {name: rendered.setting(node, name) for name in expected} == expected
    assert rendered.setting(node, "dir").endswith("/a state/a-1")
    _password_is_asked_for(rendered)


def _password_is_asked_for(rendered: Rendered) -> None:
    if rendered.password is not None:
        rendered.password = None
        for endpoint in rendered.endpoints():
            with pytest.raises(redis.AuthenticationError):
                rendered.ask(endpoint, "PING")


def _ports(layout: Layout) -> dict[str, int]:
    ports = {node.name: node.endpoint.port for node in layout.redis}
    ports |= {node.name: node.endpoint.port for node in layout.sentinels}
    for proxy in layout.proxies:
        ports |= {f"{proxy.name}.{pool}": endpoint.port for pool, endpoint in proxy.listens.items()}
        ports |= {f"{proxy.name}.admin": proxy.admin.port, f"{proxy.name}.stats": proxy.stats.port}
    return ports
