"""`shoal up --host NAME`: a supervisor for each host, here three loopback addresses with a state directory each."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import redis

from shoal.config import load
from shoal.hosts import LocalHost
from shoal.status import gather
from shoal.topology import lay_out
from tests.harness import free_ports, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shoal.health import Status
    from tests.harness import EngineProgram

HOSTS = {"one": "127.0.0.1", "two": "127.0.0.2", "three": "127.0.0.3"}


class Site:
    """Three hosts: a master, its replica, and a sentinel on each."""

    def __init__(self, directory: Path, engine: Path) -> None:
        self.directory = directory
        ports = iter(free_ports(11))
        proxies = ("one", "two")
        topology = {
            "engine": str(engine),
            "hosts": HOSTS,
            "shards": {"a": {"master": f"one:{next(ports)}", "replicas": [f"two:{next(ports)}"]}},
            "sentinel": {"nodes": [f"{host}:{next(ports)}" for host in HOSTS], "down_after": "1s"},
            "proxy": {
                "nodes": {
                    f"at-{host}": {"host": host, "port": next(ports), "admin": next(ports), "stats": next(ports)}
                    for host in proxies
                }
            },
        }
        self.file = directory / "shoal.yaml"
        self.file.write_text(json.dumps(topology))
        self.layout = lay_out(load(self.file), {})
        self.supervisors: list[subprocess.Popen[bytes]] = []

    def up(self) -> None:
        for host in HOSTS:
            with (self.directory / f"{host}.log").open("ab") as log:
                argv = ("up", "--host", host, "--state", str(self.directory / host))
                self.supervisors.append(
                    subprocess.Popen([sys.executable, "-m", "shoal", *argv], cwd=self.directory, stderr=log)
                )

    def down(self) -> list[int]:
        supervisors, self.supervisors = self.supervisors, []
        for supervisor in supervisors:
            supervisor.terminate()
        return [supervisor.wait(20) for supervisor in supervisors]

    def status(self, host: str) -> Status:
        return asyncio.run(gather(self.layout, self.directory / host))

    def wait_until_well(self, *masters: str) -> None:
        wait_until(lambda: (now := self.status("one")).ok and now.master("a") in masters, 40, "all to be well", 0.1)

    def client(self) -> redis.Redis:
        return redis.Redis(*self.layout.proxies[0].reach("shoal"), socket_timeout=8)


@pytest.fixture
def site(valkey: EngineProgram, tmp_path: Path) -> Iterator[Site]:
    running = Site(tmp_path, valkey.server)
    try:
        yield running
    finally:
        running.down()


@pytest.mark.timeout(150)
def test_each_host_runs_its_part_and_the_whole_fails_over_and_starts_again(site: Site) -> None:
    site.up()
    site.wait_until_well("a-1")
    assert site.status("one").part("a-1").pid is not None
    assert site.status("two").part("a-1").pid is None
    with site.client() as client:
        assert client.set("key", "value")
    asyncio.run(LocalHost(site.directory / "one").kill("a-1"))
    site.wait_until_well("a-2")
    assert site.down() == [0, 0, 0]
    # After a cold start of the whole site the sentinels say who is master. Each host starts on its own: one that finds
    # the replica up already holds the master back, as after a death, and Sentinel promotes the replica.
    site.up()
    site.wait_until_well("a-1", "a-2")
    with site.client() as client:
        assert client.get("key") == b"value"
