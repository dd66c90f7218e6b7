"""A running proxy reads its file again: what can change does, with no client lost; what cannot is refused by name."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import LOOPBACK, Servers, free_port, wait_until
from tests.integration.wire import Wire
from tests.proxies import (
    PROXY,
    SHOAL,
    NutcrackerProxy,
    nutcracker_proxy,
    start_nutcracker_proxy,
    start_proxy,
    topology_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness import EngineProgram, RedisServer

POOL = """\
main:
  listen: 127.0.0.1:{{port}}
  redis: true
{settings}
  servers:
{servers}
"""


def pool(servers: dict[str, int], *settings: str) -> str:
    lines = "\n".join(f"   - {LOOPBACK}:{port}:1 {name}" for name, port in servers.items())
    return POOL.format(settings="\n".join(f"  {line}" for line in settings), servers=lines)


def sentinels(ports: list[int]) -> list[str]:
    return ["sentinels:", *(f" - {LOOPBACK}:{port}" for port in ports)]


def reload(proxy: NutcrackerProxy, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [str(SHOAL), "reload", "--admin", f"{LOOPBACK}:{proxy.admin}", *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def stats_of(proxy: NutcrackerProxy) -> Any:
    with socket.create_connection((LOOPBACK, proxy.stats), timeout=5) as connection, connection.makefile() as line:
        return json.load(line)


@pytest.fixture
def servers(valkey: EngineProgram, tmp_path: Path) -> Iterator[Servers]:
    """One engine: what is tested here never looks at which."""
    with Servers(valkey, tmp_path) as running:
        yield running


@pytest.fixture
def two(servers: Servers) -> dict[str, RedisServer]:
    return {name: servers.redis(name) for name in ("s1", "s2")}


def ports(of: dict[str, RedisServer]) -> dict[str, int]:
    return {name: server.port for name, server in of.items()}


class Writer(threading.Thread):
    """One connection that writes and reads back until it is told to stop; what it was answered instead is kept."""

    def __init__(self, proxy: NutcrackerProxy, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.wire = Wire(proxy.address)
        self.done = threading.Event()
        self.wrong: list[object] = []
        self.written = 0

    def run(self) -> None:
        with self.wire:
            while not self.done.is_set():
                key, value = f"{self.name}:{self.written % 500}", str(self.written)
                try:
                    answers = [self.wire.call("SET", key, value), self.wire.call("GET", key)]
                except (OSError, EOFError) as error:
                    self.wrong.append(error)
                    return
                if answers != ["OK", value.encode()]:
                    self.wrong.append(answers)
                self.written += 1

    def goes_on(self) -> None:
        before = self.written
        wait_until(lambda: self.written > before + 20, 5, "writes to go on")

    def end(self) -> None:
        self.done.set()
        self.join(10)
        assert self.wrong == []


def test_settings_change_under_clients_that_stay(servers: Servers, two: dict[str, RedisServer]) -> None:
    proxy = start_nutcracker_proxy(servers, pool(ports(two)))
    with Wire(proxy.address) as wire:
        assert wire.call("SET", "k", "1") == "OK"
        elsewhere = free_port()
        text = pool(ports(two), "timeout: 300", "client_connections: 1").replace("{port}", str(elsewhere))
        proxy.write(text)
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in proxy.log_tail(), 5, "the reload")
        assert wire.call("GET", "k") == b"1"
        stats = stats_of(proxy)
        assert (stats["main"]["client_connections"], stats["total_connections"]) == (1, 4)
        with pytest.raises(ConnectionRefusedError):
            Wire(proxy.address)
        with Wire((LOOPBACK, elsewhere)) as second:
            assert second.reply() == "ERR max number of clients reached"
        two["s1"].pause()
        two["s2"].pause()
        assert wire.call("GET", "k") == "ERR Connection timed out"


def test_what_would_move_keys_is_refused_and_says_how_many(servers: Servers, two: dict[str, RedisServer]) -> None:
    proxy = start_nutcracker_proxy(servers, pool({"s1": two["s1"].port}))
    writer = Writer(proxy, "w")
    writer.start()
    proxy.write(pool(ports(two)))
    refused = reload(proxy)
    assert refused.returncode == 2
    assert "% of the keys would be looked for on another shard" in refused.stderr
    assert "--allow-remap" in refused.stderr
    planned = reload(proxy, "--plan", "--allow-remap")
    assert (planned.returncode, "would change" in planned.stdout) == (0, True)
    assert f'shard "s2" is new, at {LOOPBACK}:{two["s2"].port}' in planned.stdout
    assert set(stats_of(proxy)["main"]) & {"s1", "s2"} == {"s1"}
    writer.end()
    done = reload(proxy, "--allow-remap", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["applied"] is True
    with Wire(proxy.address) as wire:
        for n in range(50):
            assert wire.call("SET", f"k{n}", "v") == "OK"
    with two["s2"].client() as direct:
        assert 0 < int(str(direct.dbsize())) < 50


def test_a_new_address_of_a_server_loses_nothing_that_is_in_flight(
    servers: Servers, two: dict[str, RedisServer]
) -> None:
    proxy = start_nutcracker_proxy(servers, pool({"s": two["s1"].port}))
    two["s1"].pause()
    with Wire(proxy.address) as wire:
        wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n")
        wait_until(lambda: stats_of(proxy)["main"]["s"]["out_queue"] == 1, 5, "the write to be sent")
        proxy.write(pool({"s": two["s2"].port}))
        assert reload(proxy).returncode == 0
        two["s1"].resume()
        assert wire.reply() == "OK"
        assert wire.call("SET", "other", "1") == "OK"
    with two["s1"].client() as old, two["s2"].client() as new:
        assert (old.exists("k"), new.exists("other")) == (1, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("main:\n  listen: 127.0.0.1:{port}\n  redis: true\n  bogus: 1\n", 'directive "bogus" is unknown'),
        ("main: [", "not YAML"),
        ("other:\n  listen: 127.0.0.1:{port}\n  redis: true\n  servers:\n   - 127.0.0.1:1:1 s1\n", "cannot change"),
    ],
)
def test_a_file_that_cannot_be_served_changes_nothing(
    servers: Servers, two: dict[str, RedisServer], text: str, said: str
) -> None:
    proxy = start_nutcracker_proxy(servers, pool(ports(two)))
    proxy.write(text)
    refused = reload(proxy)
    assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    with Wire(proxy.address) as wire:
        assert wire.call("SET", "k", "1") == "OK"


def test_a_port_in_use_changes_nothing(servers: Servers, two: dict[str, RedisServer]) -> None:
    proxy = start_nutcracker_proxy(servers, pool(ports(two)))
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        second = pool({"x": two["s1"].port}).replace("main", "second").replace("{port}", str(port))
        proxy.write(pool(ports(two)) + second)
        refused = reload(proxy)
        assert refused.returncode == 2
        assert f"{LOOPBACK}:{port} is in use" in refused.stderr
    assert reload(proxy).returncode == 0
    assert set(stats_of(proxy)) >= {"main", "second"}


def test_sentinels_are_followed_from_a_reload_on_without_a_client_noticing(servers: Servers) -> None:
    stack = servers.stack(("a", "b"))
    masters = {shard: server.port for shard, server in stack.masters.items()}
    proxy = start_nutcracker_proxy(servers, pool(masters, "auto_eject_hosts: true"))
    writers = [Writer(proxy, f"w{n}") for n in range(4)]
    for writer in writers:
        writer.start()
    proxy.write(pool(masters, "auto_eject_hosts: true", *sentinels([one.port for one in stack.sentinels])))
    done = reload(proxy)
    assert done.returncode == 0, done.stderr
    assert "nothing is ejected any more" in done.stdout
    assert proxy.log_tail().count("ejection_off") == 1
    for writer in writers:
        writer.goes_on()
        writer.end()
    stack.masters["a"].kill()
    with Wire(proxy.address) as wire:
        assert [wire.call("SET", f"k{n}", "v") for n in range(40)] == ["OK"] * 40
    told = proxy.ask("/api/v1/topology")["pools"]["main"]["shards"]["a"]
    assert told["endpoint"] == f"{LOOPBACK}:{stack.replicas['a'][0].port}"


def test_a_shard_that_sentinels_do_not_know_is_refused(servers: Servers) -> None:
    stack = servers.stack(("a", "b"))
    listed = sentinels([one.port for one in stack.sentinels])
    masters = {shard: server.port for shard, server in stack.masters.items()}
    proxy = start_nutcracker_proxy(servers, pool(masters, *listed))
    stranger = servers.redis("stranger")
    proxy.write(pool({**masters, "c": stranger.port}, *listed))
    refused = reload(proxy, "--allow-remap")
    assert refused.returncode == 2
    assert f'no sentinel knows server "c" at {LOOPBACK}:{stranger.port}' in refused.stderr
    assert f"a ({LOOPBACK}:{masters['a']})" in refused.stderr
    with Wire(proxy.address) as wire:
        assert wire.call("SET", "k", "1") == "OK"


def test_a_server_that_no_sentinel_knows_is_an_error_at_start(servers: Servers) -> None:
    stack = servers.stack(("a",))
    text = pool({"x": free_port()}, *sentinels([one.port for one in stack.sentinels]))
    proxy = nutcracker_proxy(servers, text)
    ended = subprocess.run(list(proxy.argv), capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert 'no sentinel knows server "x"' in ended.stderr
    assert f"a ({LOOPBACK}:{stack.masters['a'].port})" in ended.stderr


def test_a_start_waits_for_its_sentinels_and_says_so(servers: Servers) -> None:
    stack = servers.stack(("a",))
    for sentinel in stack.sentinels[1:]:
        sentinel.kill()
    text = pool({"a": stack.masters["a"].port}, *sentinels([one.port for one in stack.sentinels]))
    proxy = nutcracker_proxy(servers, text)
    proxy.launch()
    wait_until(lambda: "sentinels_silent" in proxy.log_tail(), 5, "it to say what it waits for")
    assert proxy.running()
    stack.sentinels[1].start()
    wait_until(proxy.answers, 15, "it to serve once a majority answers")


def test_two_pools_follow_sentinels_of_their_own(valkey: EngineProgram, servers: Servers, tmp_path: Path) -> None:
    with Servers(valkey, tmp_path / "other") as others:
        one, other = servers.stack(("a",)), others.stack(("b",))
        second = pool({"b": other.masters["b"].port}, *sentinels([one.port for one in other.sentinels]))
        listen = free_port()
        second = second.replace("main", "second").replace("{port}", str(listen))
        first = pool({"a": one.masters["a"].port}, *sentinels([each.port for each in one.sentinels]))
        proxy = start_nutcracker_proxy(servers, first + second)
        other.masters["b"].kill()
        with Wire((LOOPBACK, listen)) as wire:
            assert wire.call("SET", "k", "1") == "OK"
        assert len(proxy.ask("/api/v1/topology")["sentinels"]) == 6


def test_a_topology_is_read_again_too(servers: Servers) -> None:
    stack = servers.stack(("a", "b"))
    proxy = start_proxy(servers, stack)
    file = proxy.directory / "shoal.yaml"
    sections = json.loads(file.read_text())
    sections["proxy"]["hold"] = {"timeout": "300ms"}
    file.write_text(json.dumps(sections))
    argv = [str(SHOAL), "reload", "-f", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{PROXY}: reloaded" in done.stdout
    assert "longest hold, ms 4000 is now 300" in done.stdout
    for server in (stack.masters["a"], *stack.replicas["a"]):
        server.kill()
    with Wire(proxy.address) as wire:
        answers = {str(wire.call("SET", f"k{n}", "v")) for n in range(12)}
    assert any(answer.startswith('MASTERDOWN shard "a" has no master: held 0.3 s') for answer in answers)
    assert topology_of(stack, proxy)["cluster"] == "trial"


def test_sentinels_that_do_not_answer_are_refused_and_the_mended_file_is_read(servers: Servers) -> None:
    stack = servers.stack(("a",))
    masters = {"a": stack.masters["a"].port}
    proxy = start_nutcracker_proxy(servers, pool(masters))
    nobody = [free_port() for _ in range(3)]
    proxy.write(pool(masters, *sentinels(nobody)))
    refused = reload(proxy)
    assert refused.returncode == 2
    assert "no majority of the sentinels" in refused.stderr
    with Wire(proxy.address) as wire:
        assert wire.call("SET", "k", "1") == "OK"
        proxy.write(pool(masters, *sentinels([one.port for one in stack.sentinels])))
        assert reload(proxy).returncode == 0
        assert wire.call("SET", "k", "2") == "OK"


def test_a_topology_with_deaf_sentinels_is_refused(servers: Servers) -> None:
    stack = servers.stack(("a", "b"))
    proxy = start_proxy(servers, stack)
    file = proxy.directory / "shoal.yaml"
    sections = json.loads(file.read_text())
    sections["sentinel"]["nodes"] = [f"here:{free_port()}" for _ in range(3)]
    file.write_text(json.dumps(sections))
    argv = [str(SHOAL), "reload", "-f", str(file)]
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert "no majority of the sentinels answers" in refused.stderr
    with Wire(proxy.address) as wire:
        assert {str(wire.call("SET", f"k{n}", "v")) for n in range(12)} == {"OK"}


def test_servers_that_change_places_would_move_keys(servers: Servers, two: dict[str, RedisServer]) -> None:
    proxy = start_nutcracker_proxy(servers, pool(ports(two)))
    proxy.write(pool({"s1": two["s2"].port, "s2": two["s1"].port}))
    refused = reload(proxy)
    assert refused.returncode == 2
    assert 'shard "s1" would be at' in refused.stderr
    assert 'which was shard "s2"' in refused.stderr


def test_a_reload_while_a_shard_has_no_master_changes_the_rest(servers: Servers) -> None:
    stack = servers.stack(("a", "b"))
    listed = sentinels([one.port for one in stack.sentinels])
    masters = {shard: server.port for shard, server in stack.masters.items()}
    proxy = start_nutcracker_proxy(servers, pool(masters, *listed))
    for server in (stack.masters["a"], *stack.replicas["a"]):
        server.kill()

    def held() -> bool:
        return not proxy.ask("/api/v1/topology")["pools"]["main"]["shards"]["a"]["writable"]

    wait_until(held, 5, "the shard to have no lease")
    proxy.write(pool(masters, "client_connections: 77", *listed))
    done = reload(proxy)
    assert done.returncode == 0, done.stderr
    assert "clients at most 0 is now 77" in done.stdout
    shards = proxy.ask("/api/v1/topology")["pools"]["main"]["shards"]
    assert (shards["a"]["writable"], shards["b"]["writable"]) == (False, True)
