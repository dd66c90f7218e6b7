"""The admin HTTP of a proxy: is it healthy, is it ready, what does it serve.

    GET /healthz           200 if this process can serve: PING through every client port within 400 ms, and every
                           worker finished a round within 1 s; else 503 and the reasons. For the VIP and supervisors:
                           a shard without a master does not make a proxy unhealthy.
    GET /readyz            200 if every shard has an endpoint and a lease; else 503, naming each that has not, and why.
    GET /api/v1/topology   node, epoch, pools, shards, sentinels.

Rule: it reads and never changes anything, and it is bounded (connections, time). /healthz and /readyz are open. The
API is open on loopback; elsewhere it wants `Authorization: Bearer TOKEN`, where TOKEN is `admin_token(password)`, so
whoever has the password file has it and the password itself never travels; without a password it is refused there.
Called by the daemon, which runs it in its own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import socket
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from shoal.errors import PortInUseError
from shoal.resp import RespConnection, why
from shoal.sentinel import FOREVER_NS, NS_PER_MS, LeaseRule, View
from shoal.topology.values import is_loopback, is_wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from starlette.requests import Request

    from shoal.topology import Endpoint

PING_LIMIT = 0.4
ROUND_LIMIT_MS = 1000.0
MOST_CONNECTIONS = 64
TOKEN_PURPOSE = b"shoal admin token 1"


class Plane(Protocol):
    """What is needed of `shoal.plane.Plane`."""

    def acked_epoch(self) -> int: ...
    def worker_ages_ms(self) -> list[float]: ...
    def stats(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class PoolFace:
    """A pool as the admin HTTP shows it."""

    name: str
    listen: Endpoint
    shards: tuple[str, ...]
    lease: LeaseRule
    hash: str
    distribution: str


@dataclass(slots=True)
class Subject:
    """The proxy that is asked about."""

    node: str
    pools: Sequence[PoolFace]
    plane: Plane
    view: Callable[[], View]
    now_ns: Callable[[], int]
    password: str | None = field(repr=False)
    draining: bool = False


def admin_token(password: str) -> str:
    """What to send as the bearer token to a proxy whose admin HTTP is not on loopback."""
    return hmac.new(password.encode(), TOKEN_PURPOSE, hashlib.sha256).hexdigest()


# ------------------------------------------------------------------------------------------------------------ answers


async def unhealthy(subject: Subject) -> list[str]:
    """Why this proxy should not be given traffic; empty if it should."""
    reasons = ["the proxy is draining"] if subject.draining else []
    ages = subject.plane.worker_ages_ms()
    stuck = [
        f"worker {n} has not finished a round for {age:.0f} ms" for n, age in enumerate(ages) if age > ROUND_LIMIT_MS
    ]
    pings = await asyncio.gather(*(_ping(pool, subject.password) for pool in subject.pools))
    return [*reasons, *stuck, *(reason for reason in pings if reason)]


async def _ping(pool: PoolFace, password: str | None) -> str | None:
    endpoint = pool.listen
    if is_wildcard(endpoint.host):
        endpoint = endpoint._replace(host="::1" if ":" in endpoint.host else "127.0.0.1")
    try:
        async with asyncio.timeout(PING_LIMIT):
            with await RespConnection.open(endpoint, password=password, timeout=PING_LIMIT) as connection:
                (reply,) = await connection.ask([("PING",)], PING_LIMIT)
    except OSError as error:
        return f'pool "{pool.name}" at {endpoint}: {why(error)}'
    return None if reply == b"PONG" else f'pool "{pool.name}" at {endpoint}: PING was answered with {reply!r:.80}'


def unready(subject: Subject) -> list[str]:
    """Which shards cannot be written to, and why; empty if all can."""
    view, now_ns = subject.view(), subject.now_ns()
    reasons = ["the proxy is draining"] if subject.draining else []
    for pool in subject.pools:
        for shard in pool.shards:
            master = view.masters[shard]
            if master.lease(pool.lease) <= now_ns:
                why_not = master.hold_reason or "its lease has run out"
                reasons.append(f'pool "{pool.name}" shard "{shard}": {why_not}')
    return reasons


def describe(subject: Subject) -> dict[str, Any]:
    """What the proxy serves and knows."""
    view, now_ns, stats = subject.view(), subject.now_ns(), subject.plane.stats()
    return {
        "node": subject.node,
        "pid": os.getpid(),
        "version": version("shoal"),
        "epoch": subject.plane.acked_epoch(),
        "draining": subject.draining,
        "pools": {pool.name: _pool(pool, view, now_ns, stats["pools"].get(pool.name, {})) for pool in subject.pools},
        "sentinels": [
            {
                "endpoint": str(sentinel.endpoint),
                "reachable": sentinel.reachable,
                "subscribed": sentinel.subscribed,
                "tilt": sentinel.tilt,
                "last_seen_ms": None if sentinel.last_seen_ns is None else _ms(now_ns - sentinel.last_seen_ns),
                "why_not": sentinel.why_not,
            }
            for sentinel in view.sentinels.values()
        ],
        "problems": list(view.problems),
    }


def _pool(pool: PoolFace, view: View, now_ns: int, stats: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "listen": str(pool.listen),
        "hash": pool.hash,
        "distribution": pool.distribution,
        "lease": pool.lease.value,
        "clients": stats.get("clients", 0),
        "shards": {
            shard: _shard(
                view, shard, view.masters[shard].lease(pool.lease) - now_ns, stats.get("shards", {}).get(shard)
            )
            for shard in pool.shards
        },
    }


def _shard(view: View, shard: str, lease_ns: int, stats: Mapping[str, Any] | None) -> dict[str, Any]:
    master = view.masters[shard]
    leased = lease_ns > 0
    return {
        "endpoint": None if master.endpoint is None else str(master.endpoint),
        "config_epoch": None if master.endpoint is None else master.config_epoch,
        "state": (stats or {}).get("state", "holding"),
        "connected": bool((stats or {}).get("connected", False)),
        "held_requests": (stats or {}).get("held_requests", 0),
        "lease_ms": None if lease_ns > FOREVER_NS // 2 else max(0, _ms(lease_ns)),
        "writable": leased,
        "hold_reason": None if leased else master.hold_reason,
        "candidate": None if master.candidate is None else str(master.candidate.endpoint),
        "votes": {str(at): vote.why_not or "vouches" for at, vote in master.votes.items()},
    }


def _ms(span_ns: int) -> int:
    return span_ns // NS_PER_MS


# ------------------------------------------------------------------------------------------------------------ serving


def application(subject: Subject, bind: Endpoint) -> Starlette:
    """The routes, for this subject behind this address."""

    async def healthz(_request: Request) -> JSONResponse:
        return _verdict("healthy", await unhealthy(subject))

    async def readyz(_request: Request) -> JSONResponse:
        return _verdict("ready", unready(subject))

    async def topology(request: Request) -> JSONResponse:
        if not _allowed(request, bind, subject.password):
            return JSONResponse({"error": "this needs the bearer token"}, 401, {"WWW-Authenticate": "Bearer"})
        return JSONResponse(describe(subject))

    paths = {"/healthz": healthz, "/readyz": readyz, "/api/v1/topology": topology}
    return Starlette(routes=[Route(path, answer, methods=["GET"]) for path, answer in paths.items()])


def _verdict(word: str, reasons: list[str]) -> JSONResponse:
    return JSONResponse({word: not reasons, "reasons": reasons}, 503 if reasons else 200)


def _allowed(request: Request, bind: Endpoint, password: str | None) -> bool:
    if is_loopback(bind.host):
        return True
    sent = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
    return password is not None and hmac.compare_digest(sent, admin_token(password).encode())


class _Server(uvicorn.Server):
    """uvicorn inside a loop that is not its own: signals stay the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class AdminServer:
    """Listens from the moment it is made; `run` serves until `stop`."""

    def __init__(self, subject: Subject, bind: Endpoint) -> None:
        self._socket = _listen(bind)
        config = uvicorn.Config(
            application(subject, bind),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        self._server = _Server(config)

    async def run(self) -> None:
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Let `run` answer what it has been asked, and end."""
        self._server.should_exit = True

    def close(self) -> None:
        """Stop listening, when `run` was never called or has ended."""
        self._socket.close()


def _listen(bind: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(bind)
        listener.listen(MOST_CONNECTIONS)
    except OSError as error:
        listener.close()
        hint = "stop what uses the port, or give the proxy another one"
        raise PortInUseError(f"the admin HTTP cannot listen: {error.strerror}", where=str(bind), hint=hint) from error
    listener.setblocking(False)
    return listener
