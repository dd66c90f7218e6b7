"""The four hosts of examples/from-twemproxy, from nutcracker to sentinels that are followed, at the file's addresses.

What Twemproxy did there when the first master was killed, measured: its keys went to the other shard; when it came
back, as a replica, 45 % of all acknowledged keys could not be read, and writes to it failed with READONLY for ever.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from shoal.traffic import Outcome, Traffic, value_of
from tests.four_hosts import (
    ADDRESSES,
    FIRST,
    LABELS,
    NUTCRACKER,
    PROXY_PORT,
    SECOND,
    STATS_PORT,
    VIP,
    WITH_SENTINELS,
    start_four_hosts,
    start_masters,
)
from tests.harness import LOOPBACK, Servers, have, link_up, redis_engine, wait_until
from tests.integration.wire import Wire, command
from tests.network import private_network, why_no_network
from tests.proxies import SHOAL, NutcrackerProxy, ProxyServer, start_nutcracker_proxy
from tests.trials import KillTrial, acknowledged, assert_every_promise, ping_as_supervised, shard_of, writes_go_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shoal.promises import Evidence
    from tests.harness import RedisServer

SHOAL_NUTCRACKER = SHOAL.with_name("shoal-nutcracker")
KEYS = 2000
ON_THE_RING = tuple(LABELS.values())
OF_FIRST = LABELS[FIRST]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """The example's own redis-server, in a network where its addresses are."""
    missing = why_no_network()
    if missing is not None:
        pytest.skip(missing)
    engine = redis_engine() or pytest.skip("no /usr/bin/redis-server: as root on Debian, `make test` installs it")
    with private_network(*ADDRESSES), Servers(engine, tmp_path) as running:
        yield running


@pytest.fixture
def nutcracker() -> Path:
    return have("nutcracker") or pytest.skip("no nutcracker: `make test` installs it as root on Debian")


def start(servers: Servers, program: Path, file: Path, port: int = PROXY_PORT, stats: int = STATS_PORT) -> ProxyServer:
    """Twemproxy or its drop-in, with the same arguments, and wait until it answers."""
    directory = servers.directory / f"{program.name}-{port}"
    argv = [str(program), "-c", str(file), "-a", LOOPBACK, "-s", str(stats), "-o", ""]
    proxy = servers.adopt(ProxyServer(directory.name, argv, directory, port=port, host=VIP))
    proxy.launch()

    def answers() -> bool:
        assert proxy.running(), f"{proxy.name} ended:\n{proxy.log_tail()}"
        with Wire(proxy.address) as wire:
            return bool(wire.call("PING") == "PONG")

    wait_until(answers, 10, f"{proxy.name} to answer")
    return proxy


def write(proxy: ProxyServer, keys: list[str]) -> None:
    with Wire(proxy.address) as wire:
        wire.send(b"".join(command("SET", key, value_of(key)) for key in keys))
        assert {wire.reply() for _ in keys} == {"OK"}


def unreadable(proxy: ProxyServer, keys: list[str]) -> list[str]:
    with Wire(proxy.address) as wire:
        wire.send(b"".join(command("GET", key) for key in keys))
        return [key for key in keys if wire.reply() != value_of(key).encode()]


def sizes(masters: dict[str, RedisServer]) -> list[int]:
    found = []
    for master in masters.values():
        with master.client() as direct:
            size: Any = direct.dbsize()
            found.append(int(size))
    return found


@pytest.mark.timeout(60)
def test_the_unchanged_file_serves_every_key_where_nutcracker_has_it(
    servers: Servers, nutcracker: Path, tmp_path: Path
) -> None:
    masters = start_masters(servers)
    theirs, ours = [f"user:{n}" for n in range(KEYS)], [f"order:{n}" for n in range(KEYS)]
    before = start(servers, nutcracker, NUTCRACKER)
    with before.client(retry=None) as client, pytest.raises(redis.ConnectionError):
        client.set("key", "value")  # redis-py as it comes: nutcracker closes the connection
    write(before, theirs)

    elsewhere = tmp_path / "other-port.yml"
    elsewhere.write_text(NUTCRACKER.read_text().replace(str(PROXY_PORT), str(PROXY_PORT + 1)))
    beside = start(servers, SHOAL_NUTCRACKER, elsewhere, PROXY_PORT + 1, STATS_PORT + 1)
    assert unreadable(beside, theirs) == []
    write(beside, ours)
    assert unreadable(before, ours) == []
    assert sum(sizes(masters)) == 2 * KEYS  # no key is on both
    assert min(sizes(masters)) > KEYS // 2

    before.stop()
    instead = start(servers, SHOAL_NUTCRACKER, NUTCRACKER)
    assert unreadable(instead, theirs + ours) == []
    with redis.Redis(host=VIP, port=PROXY_PORT) as client:
        assert client.set("key", "value")
        assert client.mget("user:1", "order:2", "nobody") == [b"value of user:1", b"value of order:2", None]


@pytest.mark.timeout(90)
def test_sentinels_are_added_under_load_and_a_killed_master_is_latency(servers: Servers) -> None:
    stack = start_four_hosts(servers)
    ping_as_supervised(stack)
    masters = {LABELS[shard]: server for shard, server in stack.masters.items()}
    old, new = stack.masters[FIRST], stack.replicas[FIRST][0]
    following = start(servers, SHOAL_NUTCRACKER, WITH_SENTINELS)
    reloaded = start_nutcracker_proxy(servers, on_another_port(NUTCRACKER))
    earlier = sentinels_added_under_load(reloaded)

    def come_back() -> None:
        times["back"] = time.monotonic()
        old.start()
        wait_until(lambda: old.role() == "slave" and link_up(old), 25, "the old master to be a replica")

    times: dict[str, float] = {}
    trial = KillTrial(following, masters, shard_of(ON_THE_RING, None))
    evidence = trial.run(OF_FIRST, old.kill, promoted=new, afterwards=come_back)
    assert_every_promise(evidence.until(times["back"]))
    assert_nothing_happens(evidence, since=times["back"])
    assert unreadable(reloaded, earlier) == []
    assert sizes({FIRST: new, SECOND: stack.masters[SECOND]}) == sizes({FIRST: old, SECOND: stack.replicas[SECOND][0]})


def assert_nothing_happens(evidence: Evidence, since: float) -> None:
    """The old master comes back, as a replica, and no client learns of it."""
    for label, attempts in evidence.attempts.items():
        later = [one for one in attempts if one.ended > since]
        assert {one.error for one in later if one.outcome is not Outcome.OK} == set()
        written = [one.key for one in later if one.write]
        assert written
        assert {evidence.homes[key] for key in written} == {frozenset({label})}


def on_another_port(file: Path) -> str:
    return file.read_text().replace(str(PROXY_PORT), "{port}")


def sentinels_added_under_load(proxy: NutcrackerProxy) -> list[str]:
    """Let clients write through a proxy of the unchanged file, and have it follow sentinels; gives what was written."""
    traffic = Traffic(proxy.address, ON_THE_RING, shard_of(ON_THE_RING, None), password=None)
    clients = accepted(proxy) + len(traffic.clients)
    traffic.start()
    try:
        wait_until(lambda: accepted(proxy) == clients, 10, "every client to connect")
        proxy.write(on_another_port(WITH_SENTINELS))
        planned = subprocess.run(
            [str(SHOAL), "reload", "--admin", f"{LOOPBACK}:{proxy.admin}", "--plan"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert planned.returncode == 0, planned.stderr
        assert "nothing is ejected any more" in planned.stdout
        assert f'shard "{OF_FIRST}" was at {OF_FIRST} and is the master "{FIRST}" now' in planned.stdout
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: " reloaded " in proxy.log_tail(), 10, "the reload")
        done = time.monotonic()
        for label in ON_THE_RING:
            writes_go_on(traffic, label, done)
        assert accepted(proxy) == clients, "a client had to connect again"
    finally:
        traffic.stop()
    attempts = [one for label in ON_THE_RING for one in traffic.attempts(label)]
    assert {one.error for one in attempts if one.outcome is not Outcome.OK} == set()
    return acknowledged(traffic)


def accepted(proxy: NutcrackerProxy) -> int:
    """How many clients ever connected: those that are there, and those that have left."""
    with socket.create_connection((LOOPBACK, proxy.stats), timeout=5) as connection, connection.makefile() as line:
        pool = json.load(line)["redis-cluster"]
    return sum(pool[name] for name in ("client_connections", "client_eof", "client_err"))
