"""The statistics port: nutcracker's line byte for byte, then ours; and whoever connects gets it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from inline_snapshot import snapshot

from shoal import stats
from shoal.errors import ConfigError, PortInUseError
from shoal.stats import FIGURES, POOL, SERVER, Moment, StatsServer, describe, line, stats_line
from shoal.topology import Endpoint
from tests.harness import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

RECORDED = json.loads((Path(__file__).parents[1] / "compat" / "stats_line.json").read_text())["line"]
MOMENT = Moment("here", 7, 1_700_000_000)


def counters_of(of: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """What the data plane counts when nutcracker's figures are these."""
    counters = {counter: 0 for figure in FIGURES if figure.of == of for counter in figure.counters}
    return counters | {figure.counters[0]: numbers[figure.name] for figure in FIGURES if figure.name in numbers}


def counters(told: dict[str, Any]) -> dict[str, Any]:
    """A plane's counters for a line of nutcracker's, in another order than the line has."""
    pools = {}
    for name, pool in reversed(told.items()):
        if not isinstance(pool, dict):
            continue
        shards = {
            label: {"attempts": 0, **counters_of(SERVER, server)}
            for label, server in reversed(pool.items())
            if isinstance(server, dict)
        }
        pools[name] = counters_of(POOL, pool) | {"accepted": 0, "shards": shards}
    first = next(iter(pools.values()))
    first["accepted"] = told["total_connections"] - len(pools)
    return {"workers": 2, "pools": pools}


def without_ours(text: str) -> str:
    names = [figure.name for figure in FIGURES if figure.ours]
    return re.sub(rf', "({"|".join(names)})":[^,}}]+', "", text)


def a_pool(*labels: str, **numbers: int) -> dict[str, Any]:
    shards = {label: {"attempts": 1, **counters_of(SERVER, {})} for label in labels}
    return {**counters_of(POOL, {}), "accepted": 0, **numbers, "shards": shards}


# ------------------------------------------------------------------------------------------------------------ the line


def test_the_line_is_nutcracker_s_own_to_the_byte() -> None:
    told = json.loads(RECORDED)
    moment = Moment(told["source"], told["uptime"], told["timestamp"])
    assert without_ours(line(counters(told), moment)) == RECORDED


def test_ours_comes_after_theirs_and_for_servers_only() -> None:
    text = line({"workers": 4, "pools": {"p": a_pool("a", "b", left=1)}}, MOMENT)
    told = json.loads(text)
    head = [name for name, value in json.loads(RECORDED).items() if not isinstance(value, dict)]
    assert list(told) == [*head, "p"]
    assert told["p"]["client_eof"] == 1
    assert not any(figure.ours for figure in FIGURES if figure.of == POOL)
    for figures, of in ((told["p"], POOL), (told["p"]["a"], SERVER)):
        names = [name for name, value in figures.items() if isinstance(value, int)]
        assert names == [figure.name for figure in FIGURES if figure.of == of]
    ours = [figure.ours for figure in FIGURES if figure.of == SERVER]
    assert ours == sorted(ours)


def test_the_header_counts_listening_sockets_clients_and_connections_to_servers() -> None:
    pools = {"p": a_pool("a", "b", accepted=5, clients=2), "q": a_pool("c", accepted=1)}
    pools["q"]["shards"]["c"] |= {"attempts": 7, "connections": 3}
    told = json.loads(line({"workers": 1, "pools": pools}, MOMENT))
    assert told["total_connections"] == 2 + (5 + 1) + (1 + 1 + 7)
    assert told["curr_connections"] == 2 + 2 + 3


def test_what_waits_for_a_connection_is_in_the_queue() -> None:
    pool = a_pool("a")
    pool["shards"]["a"] |= {"queued": 2, "queued_bytes": 20, "held_requests": 3, "held_bytes": 30, "unanswered": 4}
    server = json.loads(line({"workers": 1, "pools": {"p": pool}}, MOMENT))["p"]["a"]
    assert (server["in_queue"], server["in_queue_bytes"], server["out_queue"]) == (5, 50, 4)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "tab\there", "é", "held", "service"])
def test_any_name_gives_valid_json(name: str) -> None:
    text = line({"workers": 1, "pools": {name: a_pool(name)}}, Moment("\udcff", 1, 2))
    told = json.loads(text.encode(errors="replace"))
    assert text.endswith("}}}\n")
    assert text.count("\n") == 1
    assert told[name][name]["server_eof"] == 0


def test_a_flag_is_a_number() -> None:
    pool = a_pool("a")
    pool["shards"]["a"]["serving"] = True
    assert '"serving":1,' in line({"workers": 1, "pools": {"p": pool}}, MOMENT)


def test_each_figure_is_described() -> None:
    assert "\n".join(describe()) == snapshot("""\
pool stats:
  client_eof          "clients that left"
  client_err          "clients lost to an error of their connection or their protocol"
  client_connections  "clients connected now"
  server_ejects       "times that a server was ejected"
  forward_error       "requests answered with an error of the proxy's own"
  fragments           "parts of requests that went to several servers"

server stats:
  server_eof          "connections that the server closed"
  server_err          "connections that broke or were refused"
  server_timedout     "connections and replies that took too long"
  server_connections  "connections to the server open now"
  server_ejected_at   "when it was last ejected, in microseconds since 1970; 0 is never"
  requests            "requests sent to the server, or queued for it"
  request_bytes       "their bytes"
  responses           "replies of the server that clients were given"
  response_bytes      "their bytes"
  in_queue            "requests not yet sent to the server now"
  in_queue_bytes      "their bytes"
  out_queue           "requests sent and not answered now"
  out_queue_bytes     "their bytes"
  connected           "1 if every worker is connected to it now"
  serving             "1 if a write would be sent to it now"
  replica_reads       "of the requests, reads sent to a replica"
  replica_losses      "reads that a replica left to the master"
  held                "requests that had to wait for a master"
  held_requests       "requests waiting for a master now"
  held_bytes          "their bytes"
  masterdown          "requests answered -MASTERDOWN"
  indoubt             "writes answered -INDOUBT"
  refusals            "replies like -READONLY that no client was shown"
  timeouts            "requests not answered in time"
""")


# ------------------------------------------------------------------------------------------------------------ the port


@contextlib.asynccontextmanager
async def serving(line: Callable[[], str]) -> AsyncIterator[Endpoint]:
    """A running server; it ends within a second of `stop`."""
    endpoint = Endpoint(LOOPBACK, free_port())
    server = StatsServer(endpoint, line)
    running = asyncio.create_task(server.run())
    try:
        yield endpoint
        server.stop()
        await asyncio.wait_for(running, 3)
    finally:
        running.cancel()
        server.close()


async def read(endpoint: Endpoint) -> bytes:
    reader, writer = await asyncio.open_connection(*endpoint)
    text = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return text


async def test_whoever_connects_gets_the_figures_of_the_moment_and_an_end() -> None:
    left = itertools.count(1)
    started = time.time() - 7.5

    def tell() -> str:
        return stats_line({"workers": 1, "pools": {"p": a_pool("a", left=next(left))}}, started)

    async with serving(tell) as endpoint:
        first, second = json.loads(await read(endpoint)), json.loads(await read(endpoint))
    assert (first["source"], first["uptime"]) == (socket.gethostname(), 7)
    assert abs(first["timestamp"] - time.time()) < 3
    assert (first["p"]["client_eof"], second["p"]["client_eof"]) == (1, 2)


async def test_clients_that_do_not_read_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "ANSWER_LIMIT", 0.05)
    text = "x" * 20_000_000  # more than the buffers of a socket take
    async with serving(lambda: text) as endpoint:
        idle = [socket.create_connection(endpoint) for _ in range(stats.MOST_CONNECTIONS + 1)]
        reader, writer = await asyncio.open_connection(*endpoint)
        assert (await asyncio.wait_for(reader.read(10), 5)) == b"x" * 10
        writer.close()
        for client in idle:
            client.close()


async def test_what_a_client_says_is_not_read() -> None:
    async with serving(lambda: "hello\n") as endpoint:
        reader, writer = await asyncio.open_connection(*endpoint)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert await reader.readline() == b"hello\n"
        writer.close()


async def test_a_client_that_leaves_at_once_harms_nobody() -> None:
    async with serving(lambda: "hello\n") as endpoint:
        for _ in range(10):
            socket.create_connection(endpoint).close()
        assert await read(endpoint) == b"hello\n"


def test_a_taken_port_is_said() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken, pytest.raises(PortInUseError, match="Address already in use"):
        StatsServer(Endpoint(*taken.getsockname()), str)


@pytest.mark.parametrize(
    ("host", "what"),
    [
        ("192.0.2.1", "the statistics port cannot listen: Cannot assign requested address"),
        ("no.such.host.invalid", "the host of the statistics port has no address"),
        ("", "the host of the statistics port has no address"),
    ],
)
def test_an_address_that_is_not_this_machine_s_is_said(host: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        StatsServer(Endpoint(host, 1), str)
    assert caught.value.what == what
