"""The statistics port: nutcracker's line of JSON, with the figures of this moment, to whoever connects.

    client ──connect──►  one line, and the connection is closed; what the client says is never read

    {"service":"nutcracker", ..., "POOL": {"client_eof":0, ..., "SERVER": {"server_eof":0, ...}}}

Rule: names, order and spacing are nutcracker 0.5.0's, so that what reads its port reads ours. What only Shoal counts
comes after them in a server's map and nowhere else: readers in use take whatever else stands at the top for a pool,
and whatever else stands in a pool for a server. Every figure is declared once, in FIGURES, which `shoal-nutcracker -D`
prints. A client that does not read costs a place for at most a second. Called by the daemon, in its own event loop.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shoal.nutcracker.model import RELEASE, rank
from shoal.ports import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from shoal.topology import Endpoint

POOL: Final = "pool"
SERVER: Final = "server"

MOST_CONNECTIONS = 64
ANSWER_LIMIT = 1.0
ACCEPT_PAUSE = 0.1
_NAME_WIDTH = 20

Counters = dict[str, Any]
"""What `shoal.plane.Plane.stats` gives."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a pool or of a server: the sum of these counters of the data plane."""

    of: str
    name: str
    counters: tuple[str, ...]
    meaning: str
    ours: bool = False


FIGURES: Final = (
    Figure(POOL, "client_eof", ("left",), "clients that left"),
    Figure(POOL, "client_err", ("lost",), "clients lost to an error of their connection or their protocol"),
    Figure(POOL, "client_connections", ("clients",), "clients connected now"),
    Figure(POOL, "server_ejects", ("ejections",), "times that a server was ejected"),
    Figure(POOL, "forward_error", ("errors",), "requests answered with an error of the proxy's own"),
    Figure(POOL, "fragments", ("fragments",), "parts of requests that went to several servers"),
    Figure(SERVER, "server_eof", ("closed",), "connections that the server closed"),
    Figure(SERVER, "server_err", ("broken",), "connections that broke or were refused"),
    Figure(SERVER, "server_timedout", ("timed_out",), "connections and replies that took too long"),
    Figure(SERVER, "server_connections", ("connections",), "connections to the server open now"),
    Figure(
        SERVER, "server_ejected_at", ("ejected_at",), "when it was last ejected, in microseconds since 1970; 0 is never"
    ),
    Figure(SERVER, "requests", ("requests",), "requests sent to the server, or queued for it"),
    Figure(SERVER, "request_bytes", ("request_bytes",), "their bytes"),
    Figure(SERVER, "responses", ("responses",), "replies of the server that clients were given"),
    Figure(SERVER, "response_bytes", ("response_bytes",), "their bytes"),
    Figure(SERVER, "in_queue", ("queued", "held_requests"), "requests not yet sent to the server now"),
    Figure(SERVER, "in_queue_bytes", ("queued_bytes", "held_bytes"), "their bytes"),
    Figure(SERVER, "out_queue", ("unanswered",), "requests sent and not answered now"),
    Figure(SERVER, "out_queue_bytes", ("unanswered_bytes",), "their bytes"),
    Figure(SERVER, "connected", ("connected",), "1 if every worker is connected to it now", ours=True),
    Figure(SERVER, "serving", ("serving",), "1 if a write would be sent to it now", ours=True),
    Figure(SERVER, "replica_reads", ("replica_reads",), "of the requests, reads sent to a replica", ours=True),
    Figure(SERVER, "replica_losses", ("replica_losses",), "reads that a replica left to the master", ours=True),
    Figure(SERVER, "held", ("held",), "requests that had to wait for a master", ours=True),
    Figure(SERVER, "held_requests", ("held_requests",), "requests waiting for a master now", ours=True),
    Figure(SERVER, "held_bytes", ("held_bytes",), "their bytes", ours=True),
    Figure(SERVER, "masterdown", ("masterdown",), "requests answered -MASTERDOWN", ours=True),
    Figure(SERVER, "indoubt", ("indoubt",), "writes answered -INDOUBT", ours=True),
    Figure(SERVER, "refusals", ("refusals",), "replies like -READONLY that no client was shown", ours=True),
    Figure(SERVER, "timeouts", ("timeouts",), "requests not answered in time", ours=True),
)


@dataclass(frozen=True, slots=True)
class Moment:
    """Who tells, and when: the host's name, seconds since the start, seconds since 1970."""

    source: str
    uptime: int
    timestamp: int


# --------------------------------------------------------------------------------------------------------- what is told


def stats_line(counters: Counters, started: float) -> str:
    """The line of this moment, for a process that started then (seconds since 1970)."""
    now = time.time()
    return line(counters, Moment(socket.gethostname(), max(0, int(now - started)), int(now)))


def line(counters: Counters, moment: Moment) -> str:
    """The whole line, with its line end."""
    pools = dict(sorted(counters["pools"].items(), key=lambda item: rank(item[0])))
    head = [f"{_name(name)}:{json.dumps(value, ensure_ascii=False)}" for name, value in _head(pools, moment)]
    maps = [(name, _map(POOL, pool, [_server(*shard) for shard in _shards(pool)])) for name, pool in pools.items()]
    return f"{{{_joined(head, maps)}}}\n"


def describe() -> Iterator[str]:
    """What each figure means, a line each, in the form that nutcracker's -D has."""
    for of in (POOL, SERVER):
        yield f"{of} stats:"
        for figure in FIGURES:
            if figure.of == of:
                yield f'  {figure.name:{_NAME_WIDTH}}"{figure.meaning}"'
        yield ""


def _head(pools: Mapping[str, Any], moment: Moment) -> Iterator[tuple[str, str | int]]:
    """Of the process. Each pool has one listening socket, whatever the workers make of it."""
    shards = [shard for pool in pools.values() for shard in pool["shards"].values()]
    yield "service", "nutcracker"
    yield "source", moment.source
    yield "version", RELEASE
    yield "uptime", moment.uptime
    yield "timestamp", moment.timestamp
    accepted = sum(pool["accepted"] for pool in pools.values())
    yield "total_connections", len(pools) + accepted + sum(shard["attempts"] for shard in shards)
    clients = sum(pool["clients"] for pool in pools.values())
    yield "curr_connections", len(pools) + clients + sum(shard["connections"] for shard in shards)


def _shards(pool: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(pool["shards"].items(), key=lambda item: rank(item[0]))


def _server(name: str, shard: Mapping[str, Any]) -> tuple[str, str]:
    return name, _map(SERVER, shard, [])


def _map(of: str, counters: Mapping[str, Any], maps: list[tuple[str, str]]) -> str:
    """One pool or server."""
    numbers = [
        f'"{figure.name}":{sum(int(counters[counter]) for counter in figure.counters)}'
        for figure in FIGURES
        if figure.of == of
    ]
    return f"{{{_joined(numbers, maps)}}}"


def _joined(numbers: list[str], maps: list[tuple[str, str]]) -> str:
    """As nutcracker sets them: a space after each comma, but none between a map and the next."""
    inside = ",".join(f"{_name(name)}: {text}" for name, text in maps)
    return ", ".join([*numbers, inside] if inside else numbers)


def _name(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------------------- serving


class StatsServer:
    """Listens from the moment it is made; `run` serves until `stop`."""

    def __init__(self, bind: Endpoint, line: Callable[[], str]) -> None:
        self._socket = listen(bind, "the statistics port", MOST_CONNECTIONS)
        self._line = line
        self._places = asyncio.Semaphore(MOST_CONNECTIONS)
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as answers:
            accepting = answers.create_task(self._accept(answers), name="statistics")
            await self._stopped.wait()
            accepting.cancel()

    def stop(self) -> None:
        """Let `run` finish what it is writing, and end."""
        self._stopped.set()

    def close(self) -> None:
        """Stop listening, when `run` was never called or has ended."""
        self._socket.close()

    async def _accept(self, answers: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                client, _ = await loop.sock_accept(self._socket)
            except OSError:  # it has left already, or there are no descriptors now
                self._places.release()
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            answers.create_task(self._answer(client))

    async def _answer(self, client: socket.socket) -> None:
        """Nearly always the line fits in the socket's buffer, and this does not wait at all."""
        text = self._line().encode(errors="replace")
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await asyncio.get_running_loop().sock_sendall(client, text)
        except OSError:  # it has left, or does not read
            pass
        finally:
            client.close()
            self._places.release()
