"""The admin HTTP of a proxy: is it healthy, is it ready, what does it serve.

    GET /healthz           200 if this process can serve: PING through every client port within 400 ms, and every
                           worker finished a round within 1 s; else 503 and the reasons. For the VIP and supervisors:
                           a shard without a master does not make a proxy unhealthy.
    GET /readyz            200 if every shard has an endpoint and a lease; else 503, naming each that has not, and why.
    GET /api/v1/topology   node, epoch, pools, shards, sentinels.
    POST /api/v1/reload    read the file again and serve what it says now: 200 and what changed, 409 and why not.
                           Query, each 0 or 1: `plan` only says what it would change, `allow_remap` lets keys move.
    POST /api/v1/holds/ID  hold the writes of a master, or keep holding them: 200 when none is on its way any more, 409
                           and why not. Query: `master` is Sentinel's name, `ttl_ms`, `owner` is told to others.
    DELETE /api/v1/holds/ID  release them; with `to`, an endpoint, the new master, where requests go at once.

Rule: it can have the proxy's own file read again, and a shard's writes wait for seconds, and nothing else; and it is
bounded (connections, time).
/healthz and /readyz are open. The API is open on loopback; elsewhere it wants `Authorization: Bearer TOKEN`, where
TOKEN is `admin_token(password)`, so whoever has the password file has it and the password itself never travels; without
a password it is refused there. What is no GET needs the header `Shoal-Request`, and on loopback a Host that is an
address or localhost: no web page can make a browser send both, whatever name it has made point here.
Called by the daemon, which runs it in its own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from shoal.errors import HoldError, ShoalError
from shoal.ports import listen
from shoal.resp import RespConnection, why
from shoal.sentinel import FOREVER_NS, NS_PER_MS, LeaseRule
from shoal.topology import Endpoint
from shoal.topology.values import is_address, is_loopback, is_wildcard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

    from starlette.requests import Request

    from shoal.holds import Hold, Holds
    from shoal.sentinel import MasterView, SentinelView, View
    from shoal.staleness import Reading
    from shoal.topology import UnixSocket

PING_LIMIT = 0.4
ROUND_LIMIT_MS = 1000.0
MOST_CONNECTIONS = 64
TOKEN_PURPOSE = b"shoal admin token 1"
REQUEST_HEADER = "Shoal-Request"


class Plane(Protocol):
    """What is needed of `shoal.plane.Plane`."""

    def acked_epoch(self) -> int: ...
    def worker_ages_ms(self) -> list[float]: ...
    def stats(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class PoolFace:
    """A pool as the admin HTTP shows it: Sentinel's name of each shard's master, by the shard's name.

    A pool whose servers are fixed has neither a lease nor a view.
    """

    name: str
    listen: Endpoint | UnixSocket
    masters: Mapping[str, str]
    hash: str
    distribution: str
    lease: LeaseRule | None = None
    view: Callable[[], View] | None = None
    password: str | None = field(default=None, repr=False)
    reading: Callable[[str], Reading | None] = lambda _shard: None
    """Who reads of a shard go to; None where they go to the master."""


class Reload(Protocol):
    """Reads the file again; a ShoalError says why nothing has changed."""

    async def __call__(self, *, plan: bool, allow_remap: bool) -> Sequence[str]: ...


@dataclass(slots=True)
class Subject:
    """The proxy that is asked about."""

    node: str
    pools: Sequence[PoolFace]
    plane: Plane
    now_ns: Callable[[], int]
    password: str | None = field(default=None, repr=False)
    reload: Reload | None = None
    holds: Holds | None = None
    draining: bool = False

    def views(self) -> Sequence[View]:
        """What each set of sentinels says now."""
        views = [pool.view() for pool in self.pools if pool.view is not None]
        return [view for at, view in enumerate(views) if not any(view is other for other in views[:at])]

    def held(self) -> Mapping[str, Hold]:
        """What an operator holds, by Sentinel's name of the master."""
        return {} if self.holds is None else self.holds.living()


def admin_token(password: str) -> str:
    """What to send as the bearer token to a proxy whose admin HTTP is not on loopback."""
    return hmac.new(password.encode(), TOKEN_PURPOSE, hashlib.sha256).hexdigest()


if TYPE_CHECKING:
    Answer = Callable[[Subject, Request], Awaitable[JSONResponse]]


# ------------------------------------------------------------------------------------------------------------ answers


async def unhealthy(subject: Subject) -> list[str]:
    """Why this proxy should not be given traffic; empty if it should."""
    reasons = ["the proxy is draining"] if subject.draining else []
    ages = subject.plane.worker_ages_ms()
    stuck = [
        f"worker {n} has not finished a round for {age:.0f} ms" for n, age in enumerate(ages) if age > ROUND_LIMIT_MS
    ]
    pings = await asyncio.gather(*map(_ping, subject.pools))
    return [*reasons, *stuck, *(reason for reason in pings if reason)]


async def _ping(pool: PoolFace) -> str | None:
    endpoint = pool.listen
    if isinstance(endpoint, Endpoint) and is_wildcard(endpoint.host):
        endpoint = endpoint._replace(host="::1" if ":" in endpoint.host else "127.0.0.1")
    try:
        async with asyncio.timeout(PING_LIMIT):
            with await RespConnection.open(endpoint, password=pool.password, timeout=PING_LIMIT) as connection:
                (reply,) = await connection.ask([("PING",)], PING_LIMIT)
    except OSError as error:
        return f'pool "{pool.name}" at {endpoint}: {why(error)}'
    return None if reply == b"PONG" else f'pool "{pool.name}" at {endpoint}: PING was answered with {reply!r:.80}'


def unready(subject: Subject) -> list[str]:
    """Which shards cannot be written to, and why; empty if all can."""
    now_ns, stats, held = subject.now_ns(), subject.plane.stats()["pools"], subject.held()
    reasons = ["the proxy is draining"] if subject.draining else []
    for pool in subject.pools:
        view = None if pool.view is None else pool.view()
        for shard, name in pool.masters.items():
            if view is None or pool.lease is None:
                why_not = _unreached(stats.get(pool.name, {}).get("shards", {}).get(shard, {}))
            elif name in held:
                why_not = held[name].reason()
            else:
                why_not = _unleased(view.masters[name], pool.lease, now_ns)
            if why_not:
                reasons.append(f'pool "{pool.name}" shard "{shard}": {why_not}')
    return reasons


def _unleased(master: MasterView, rule: LeaseRule, now_ns: int) -> str | None:
    if master.lease(rule) > now_ns:
        return None
    return master.hold_reason or "its lease has run out"


def _unreached(stats: Mapping[str, Any]) -> str | None:
    """Why a fixed server cannot be reached, as far as anybody has tried."""
    if stats.get("endpoint") is None:
        return "its host has no address"
    return None if stats.get("connected") else stats.get("last_error") or None


def describe(subject: Subject) -> dict[str, Any]:
    """What the proxy serves and knows."""
    now_ns, stats, views = subject.now_ns(), subject.plane.stats(), subject.views()
    return {
        "node": subject.node,
        "pid": os.getpid(),
        "version": version("shoal"),
        "epoch": subject.plane.acked_epoch(),
        "draining": subject.draining,
        "pools": {pool.name: _pool(pool, subject, stats["pools"].get(pool.name, {})) for pool in subject.pools},
        "holds": [_hold(hold, now_ns) for hold in subject.held().values()],
        "sentinels": [_sentinel(sentinel, now_ns) for view in views for sentinel in view.sentinels.values()],
        "problems": [problem for view in views for problem in view.problems],
    }


def _sentinel(sentinel: SentinelView, now_ns: int) -> dict[str, Any]:
    return {
        "endpoint": str(sentinel.endpoint),
        "reachable": sentinel.reachable,
        "subscribed": sentinel.subscribed,
        "tilt": sentinel.tilt,
        "last_seen_ms": None if sentinel.last_seen_ns is None else _ms(now_ns - sentinel.last_seen_ns),
        "why_not": sentinel.why_not,
    }


def _hold(hold: Hold, now_ns: int) -> dict[str, Any]:
    since_ms, left_ms = _ms(now_ns - hold.since_ns), max(0, _ms(hold.until_ns - now_ns))
    return {"id": hold.id, "master": hold.name, "owner": hold.owner, "since_ms": since_ms, "left_ms": left_ms}


def _pool(pool: PoolFace, subject: Subject, stats: Mapping[str, Any]) -> dict[str, Any]:
    shards: Mapping[str, Any] = stats.get("shards", {})
    now_ns, held = subject.now_ns(), subject.held()
    view = None if pool.view is None else pool.view()
    return {
        "listen": str(pool.listen),
        "hash": pool.hash,
        "distribution": pool.distribution,
        "lease": None if pool.lease is None else pool.lease.value,
        **{name: stats.get(name, 0) for name in ("clients", "accepted", "refused", "protocol_errors", "overflowed")},
        "shards": {
            shard: _fixed(shards.get(shard, {}))
            if view is None or pool.lease is None
            else {
                **_followed(
                    view.masters[name], _lease_ns(view.masters[name], pool.lease, now_ns), shards.get(shard, {})
                ),
                **_readers(pool.reading(shard), now_ns, shards.get(shard, {})),
                **_kept_back(held.get(name)),
            }
            for shard, name in pool.masters.items()
        },
    }


def _fixed(stats: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "endpoint": stats.get("endpoint"),
        "state": stats.get("state", "holding"),
        "connected": bool(stats.get("connected", False)),
        "held_requests": stats.get("held_requests", 0),
        "writable": stats.get("endpoint") is not None,
        "last_error": stats.get("last_error", ""),
        "ejected_at": stats.get("ejected_at", 0),
    }


def _lease_ns(master: MasterView, rule: LeaseRule, now_ns: int) -> int:
    return master.lease(rule) - now_ns


def _kept_back(hold: Hold | None) -> dict[str, Any]:
    return {} if hold is None else {"lease_ms": 0, "writable": False, "hold_reason": hold.reason()}


def _followed(master: MasterView, lease_ns: int, stats: Mapping[str, Any]) -> dict[str, Any]:
    leased = lease_ns > 0
    return {
        "master": master.name,
        "endpoint": None if master.endpoint is None else str(master.endpoint),
        "config_epoch": None if master.endpoint is None else master.config_epoch,
        "state": stats.get("state", "holding"),
        "connected": bool(stats.get("connected", False)),
        "held_requests": stats.get("held_requests", 0),
        "lease_ms": None if lease_ns > FOREVER_NS // 2 else max(0, _ms(lease_ns)),
        "writable": leased,
        "hold_reason": None if leased else master.hold_reason,
        "candidate": None if master.candidate is None else str(master.candidate.endpoint),
        "votes": {str(at): vote.why_not or "vouches" for at, vote in master.votes.items()},
    }


def _readers(reading: Reading | None, now_ns: int, stats: Mapping[str, Any]) -> dict[str, Any]:
    """Each replica: whether it is read from, how far it may be behind, and why not."""
    if reading is None:
        return {}
    replicas = {
        str(at): {
            "reads": view.until_ns > now_ns,
            "lag_ms": None if view.current_ns is None else max(0, _ms(now_ns - view.current_ns)),
            "lease_ms": max(0, _ms(view.until_ns - now_ns)),
            "why_not": view.why_not,
        }
        for at, view in reading.replicas.items()
    }
    return {"replicas": replicas, **{name: stats.get(name, 0) for name in ("replica_reads", "replica_losses")}}


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

    def changing(answer: Answer) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def guarded(request: Request) -> JSONResponse:
            if not _allowed(request, bind, subject.password):
                return JSONResponse({"error": "this needs the bearer token"}, 401, {"WWW-Authenticate": "Bearer"})
            if REQUEST_HEADER not in request.headers or (is_loopback(bind.host) and not _meant_for_loopback(request)):
                what = f"this needs the header {REQUEST_HEADER}, and to be asked by an address or as localhost"
                return JSONResponse({"error": what}, 403)
            return await answer(subject, request)

        return guarded

    paths = {"/healthz": healthz, "/readyz": readyz, "/api/v1/topology": topology}
    routes = [Route(path, answer, methods=["GET"]) for path, answer in paths.items()]
    routes += [
        Route("/api/v1/reload", changing(_reloaded), methods=["POST"]),
        Route("/api/v1/holds/{id}", changing(_hold_taken), methods=["POST"]),
        Route("/api/v1/holds/{id}", changing(_hold_released), methods=["DELETE"]),
    ]
    return Starlette(routes=routes)


async def _reloaded(subject: Subject, request: Request) -> JSONResponse:
    if subject.reload is None:
        return JSONResponse({"error": "this proxy cannot reload"}, 409)
    wishes = dict(request.query_params)
    if set(wishes) - {"plan", "allow_remap"} or set(wishes.values()) - {"0", "1"}:
        return JSONResponse({"error": "known are plan and allow_remap, each 0 or 1"}, 400)
    plan, allow_remap = (wishes.get(name) == "1" for name in ("plan", "allow_remap"))
    try:
        changes = await subject.reload(plan=plan, allow_remap=allow_remap)
    except ShoalError as error:
        return _conflict(error)
    return JSONResponse({"node": subject.node, "applied": not plan, "changes": list(changes)})


async def _hold_taken(subject: Subject, request: Request) -> JSONResponse:
    if subject.holds is None:
        return JSONResponse({"error": "this proxy cannot hold"}, 409)
    wishes, ttl = request.query_params, request.query_params.get("ttl_ms", "")
    if "master" not in wishes or not ttl.isdecimal():
        return JSONResponse({"error": "wanted are master and ttl_ms, and an owner"}, 400)
    try:
        owner, keep = wishes.get("owner", "")[:200], wishes.get("keep") == "1"
        await subject.holds.take(request.path_params["id"], wishes["master"], owner, int(ttl), keep=keep)
    except HoldError as error:
        return _conflict(error)
    return JSONResponse({"node": subject.node, "held": wishes["master"]})


async def _hold_released(subject: Subject, request: Request) -> JSONResponse:
    if subject.holds is None:
        return JSONResponse({"error": "this proxy cannot hold"}, 409)
    to = request.query_params.get("to")
    try:
        master = None if to is None else Endpoint.parse(to)
    except ValueError as error:
        return JSONResponse({"error": f"to is not HOST:PORT: {error}"}, 400)
    try:
        await subject.holds.release(request.path_params["id"], master)
    except HoldError as error:
        return _conflict(error)
    return JSONResponse({"node": subject.node, "released": True})


def _conflict(error: ShoalError) -> JSONResponse:
    each = [{"error": one.what, "where": one.where, "hint": one.hint} for one in error.each()]
    return JSONResponse({"errors": each, "exit": error.exit_code}, 409)


def _verdict(word: str, reasons: list[str]) -> JSONResponse:
    return JSONResponse({word: not reasons, "reasons": reasons}, 503 if reasons else 200)


def _meant_for_loopback(request: Request) -> bool:
    """A browser says the name that it was given: one that a web page has made point to loopback is no address."""
    host = request.headers.get("host", "127.0.0.1").rsplit(":", 1)[0].strip("[]")
    return host == "localhost" or is_address(host)


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
        self._socket = listen(bind, "the admin HTTP", MOST_CONNECTIONS)
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
