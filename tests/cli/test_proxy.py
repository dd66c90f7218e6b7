"""`shoal proxy`: which file and which ports it serves, and what does not go together."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from inline_snapshot import snapshot

from shoal.serving import AtAddresses, Followed
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.log import Log
    from shoal.serving import Service
    from tests.cli.conftest import Daemon

    Shoal = Callable[..., str]

TOPOLOGY = """\
shards: {a: {master: "local:1"}}
sentinel: {nodes: ["local:3"]}
proxy: {workers: 2, nodes: {p: {port: 4, admin: 5, stats: 6}, q: {port: 7, admin: 8, stats: 9}}}
"""
NUTCRACKER = """\
main:
  listen: 127.0.0.1:22121
  redis: true
  servers:
   - 127.0.0.1:6379:1 shard1
"""


@pytest.fixture(autouse=True)
def files(run_there: object, daemon: Daemon) -> None:
    Path("shoal.yaml").write_text(TOPOLOGY)
    Path("other.yaml").write_text(TOPOLOGY.replace("q:", "r:"))
    Path("nutcracker.yml").write_text(NUTCRACKER)


@pytest.mark.parametrize("arguments", [["--node", "q"], ["-f", "other.yaml", "--node", "r"]])
def test_a_node_of_a_topology(arguments: list[str], shoal: Shoal, daemon: Daemon) -> None:
    assert shoal("proxy", *arguments) == "exit 0\n"
    (service,) = daemon.services
    assert (service.node, service.workers) == (arguments[-1], 2)
    assert (service.admin, service.stats) == (Endpoint("127.0.0.1", 8), Endpoint("127.0.0.1", 9))
    assert isinstance(service.pools[0].source, Followed)


def test_a_nutcracker_file_is_asked_on_loopback_only(shoal: Shoal, daemon: Daemon) -> None:
    assert shoal("proxy", "-c", "nutcracker.yml") == "exit 0\n"
    (service,) = daemon.services
    assert (service.node, service.workers) == (socket.gethostname(), None)
    assert (service.admin, service.stats) == (Endpoint("127.0.0.1", 22180), Endpoint("127.0.0.1", 22222))
    assert isinstance(service.pools[0].source, AtAddresses)


def test_a_nutcracker_file_s_process_is_told_by_options(shoal: Shoal, daemon: Daemon) -> None:
    options = ("--stats", "0.0.0.0:5", "--admin", "[::1]:6", "--workers", "3", "--log-format", "json")
    assert shoal("proxy", "-c", "nutcracker.yml", *options) == "exit 0\n"
    (service,) = daemon.services
    assert (service.stats, service.admin, service.workers) == (Endpoint("0.0.0.0", 5), Endpoint("::1", 6), 3)


@pytest.mark.parametrize(
    ("arguments", "file", "change"),
    [
        (["--node", "p"], "shoal.yaml", ("workers: 2", "workers: 4")),
        (["-c", "nutcracker.yml"], "nutcracker.yml", ("shard1", "shard2")),
    ],
)
def test_a_reload_reads_the_file_again(
    arguments: list[str], file: str, change: tuple[str, str], shoal: Shoal, daemon: Daemon
) -> None:
    read: list[Service] = []

    def act(_log: Log, load: Callable[[], Service], _handlers: Any) -> None:
        Path(file).write_text(Path(file).read_text().replace(*change))
        read.append(load())

    daemon.act = act
    shoal("proxy", *arguments)
    assert read[0] != daemon.services[0]
    assert (read[0].workers == 4) or (read[0].pools[0].labels == ("shard2",))


@pytest.mark.parametrize(
    ("arguments", "transcript"),
    [
        (
            [],
            snapshot("""\
exit 2
--- stderr
error: which of the topology's proxies is this?
  hint: say --node NAME; or -c nutcracker.yml
"""),
        ),
        (
            ["-f", "shoal.yaml"],
            snapshot("""\
exit 2
--- stderr
error: which of the topology's proxies is this?
  hint: say --node NAME; or -c nutcracker.yml
"""),
        ),
        (
            ["--node", "x"],
            snapshot("""\
exit 2
--- stderr
error: there is no proxy "x"
  hint: the topology has p, q
"""),
        ),
        (
            ["-c", "nutcracker.yml", "-f", "shoal.yaml"],
            snapshot("""\
exit 2
--- stderr
error: -f belongs to a topology, and -c FILE is a nutcracker.yml
  hint: give -f and --node, or -c
"""),
        ),
        (
            ["-c", "nutcracker.yml", "--node", "p"],
            snapshot("""\
exit 2
--- stderr
error: --node belongs to a topology, and -c FILE is a nutcracker.yml
  hint: give -f and --node, or -c
"""),
        ),
        (
            ["-c", "nutcracker.yml", "--state", "."],
            snapshot("""\
exit 2
--- stderr
error: --state belongs to a topology, and -c FILE is a nutcracker.yml
  hint: give -f and --node, or -c
"""),
        ),
        (
            ["-c", "nutcracker.yml", "--stats", "22222"],
            snapshot("""\
exit 2
--- stderr
error: --stats is not HOST:PORT: "22222" has no port
  hint: for example "127.0.0.1:22222"
"""),
        ),
        (
            ["-c", "none.yml"],
            snapshot("""\
exit 2
--- stderr
error: there is no configuration file
  at: none.yml
  hint: give it with -c
"""),
        ),
        (
            ["--node", "p", "--stats", "127.0.0.1:1"],
            snapshot("""\
exit 2
--- stderr
error: --stats goes with -c only
  hint: in a topology it stands under `proxy`
"""),
        ),
        (
            ["--node", "p", "--workers", "1"],
            snapshot("""\
exit 2
--- stderr
error: --workers goes with -c only
  hint: in a topology it stands under `proxy`
"""),
        ),
    ],
)
def test_what_does_not_go_together(arguments: list[str], transcript: str, shoal: Shoal, daemon: Daemon) -> None:
    assert shoal("proxy", *arguments) == transcript
    assert daemon.services == []
