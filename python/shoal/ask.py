"""One look at one part: what a redis, a sentinel or a proxy says of itself, within a second.

Rule: every question is bounded in time and every failure is an answer (`Silent` says why), since `status` must work
while things are down. Connections are kept by whoever keeps the `Line`. Called by the supervisor (again and again) and
by `status` (once).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from shoal.errors import SentinelError
from shoal.sentinel import MastersReply, Report
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from typing import TypeVar

    T = TypeVar("T")

PATIENCE = 1.0


class Silent(Exception):  # noqa: N818  it is an answer: the part did not say anything
    """A part that did not answer, and why."""


@dataclass(frozen=True, slots=True)
class ReplicaSeen:
    """A replica as its master sees it."""

    endpoint: Endpoint
    offset: int
    lag_seconds: int


@dataclass(frozen=True, slots=True)
class RedisSays:
    """A redis server about itself (INFO)."""

    role: str
    """"master" or "replica"."""
    loading: bool
    keys: int
    offset: int
    priority: int
    master: Endpoint | None = None
    link_up: bool = False
    link_down_seconds: int = 0
    """Since when a replica is without its master; -1 if it has not been with it since it started."""
    replicas: tuple[ReplicaSeen, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class ProxySays:
    """A proxy about itself (its admin HTTP)."""

    healthy: bool
    ready: bool
    why_not: tuple[str, ...] = ()
    topology: Mapping[str, Any] = field(default_factory=dict)

    def routes(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Each pool's shards, by Sentinel's name of the master, with what the proxy says of them."""
        pools: Mapping[str, Any] = self.topology.get("pools", {})
        shards = (shard for pool in pools.values() for shard in pool.get("shards", {}).items())
        return [(str(route.get("master", label)), route) for label, route in shards]

    def readers(self) -> tuple[int, int]:
        """Replicas that reads may go to, and how many of them reads go to now."""
        replicas = [one for _, route in self.routes() for one in route.get("replicas", {}).values()]
        return len(replicas), sum(bool(one.get("reads")) for one in replicas)

    def clients(self) -> int:
        pools: Mapping[str, Any] = self.topology.get("pools", {})
        return sum(int(pool.get("clients", 0)) for pool in pools.values())


class Line:
    """A connection to one redis or sentinel, opened when first needed and again when lost."""

    def __init__(self, endpoint: Endpoint, password: str | None) -> None:
        from redis.asyncio import Redis  # here: it takes longer to import than all of `shoal key`
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self.endpoint = endpoint
        self._client = Redis(
            host=endpoint.host,
            port=endpoint.port,
            password=password,
            protocol=2,
            socket_connect_timeout=PATIENCE,
            socket_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=False,
            max_connections=4,
        )
        self._masters = MastersReply()

    async def close(self) -> None:
        from redis.exceptions import RedisError

        with contextlib.suppress(OSError, RedisError):
            await self._client.aclose()

    async def info(self) -> RedisSays:
        return _redis_says(await _within(self._client.info()))

    async def masters(self) -> dict[str, Report]:
        """A sentinel about each shard."""
        reply = await _within(self._client.execute_command("SENTINEL", "MASTERS"))
        try:
            return {shard: said.report for shard, said in self._masters.read(reply).items()}
        except SentinelError as error:
            raise Silent(error.what) from None

    async def command(self, *words: str | int) -> Any:
        """Anything else; a refusal is Silent too."""
        return await _within(self._client.execute_command(*words))


async def _within(answer: Awaitable[T]) -> T:
    from redis.exceptions import AuthenticationError, RedisError

    try:
        async with asyncio.timeout(PATIENCE):
            return await answer
    except TimeoutError:
        raise Silent(f"did not answer within {PATIENCE:g} s") from None
    except AuthenticationError as error:
        raise Silent(f"does not accept the password: {error}") from None
    except (OSError, RedisError) as error:
        raise Silent(_reason(error)) from None


def _reason(error: Exception) -> str:
    text = str(error)
    return "refuses connections" if "refused" in text else text


def _redis_says(info: Mapping[str, Any]) -> RedisSays:
    replica = info.get("role") == "slave"
    databases = [value for name, value in info.items() if name.startswith("db") and isinstance(value, dict)]
    return RedisSays(
        role="replica" if replica else "master",
        loading=bool(int(info.get("loading", 0))),
        keys=sum(int(database.get("keys", 0)) for database in databases),
        offset=int(info.get("slave_repl_offset" if replica else "master_repl_offset", 0)),
        priority=int(info.get("slave_priority", 100)),
        master=Endpoint(str(info["master_host"]), int(info["master_port"])) if replica else None,
        link_up=info.get("master_link_status") == "up",
        link_down_seconds=int(info.get("master_link_down_since_seconds", 0)),
        replicas=tuple(_replicas(info)),
        version=str(info.get("valkey_version") or info.get("redis_version") or ""),
    )


def _replicas(info: Mapping[str, Any]) -> list[ReplicaSeen]:
    seen = (value for name, value in info.items() if name.removeprefix("slave").isdigit() and isinstance(value, dict))
    return [
        ReplicaSeen(Endpoint(str(one["ip"]), int(one["port"])), int(one["offset"]), int(one["lag"])) for one in seen
    ]


async def ask_proxy(admin: Endpoint) -> ProxySays:
    """Whether a proxy is healthy and ready, and what it routes."""
    health, readiness, topology = await asyncio.gather(
        http_get(admin, "/healthz"), http_get(admin, "/readyz"), http_get(admin, "/api/v1/topology")
    )
    healthy, ready = health[0] == HTTPStatus.OK, readiness[0] == HTTPStatus.OK
    reasons = _object(health[1] if not healthy else readiness[1]).get("reasons", [])
    return ProxySays(healthy, ready, tuple(str(reason) for reason in reasons), _object(topology[1]))


def _object(text: str) -> Mapping[str, Any]:
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    return {}


async def http_get(endpoint: Endpoint, path: str) -> tuple[int, str]:
    """Status and body of one GET."""
    return await http_ask(endpoint, "GET", path)


async def http_ask(endpoint: Endpoint, method: str, path: str) -> tuple[int, str]:
    """Status and body of one answer; the request has the header that a proxy wants before it changes anything."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(*endpoint)
            try:
                head = f"{method} {path} HTTP/1.0\r\nHost: {endpoint}\r\nShoal-Request: 1\r\nContent-Length: 0\r\n\r\n"
                writer.write(head.encode())
                status = await reader.readuntil(b"\r\n\r\n")
                body = await reader.read()  # to the end: the proxy closes
            finally:
                writer.close()
            return int(status.split(b" ", 2)[1]), body.decode(errors="replace")
    except TimeoutError:
        raise Silent(f"did not answer within {PATIENCE:g} s") from None
    except (OSError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
        raise Silent(_reason(error)) from None
