"""What a nutcracker.yml says: pools and their servers, in the order that nutcracker keeps them.

Rule: the order is part of the ring. nutcracker sorts pools and servers by the length of their name, then by its
bytes; modula counts servers in that order, and the stats list them in it. `file` sorts; nobody sorts again.
Defaults stand in `keys`, not here. Used by everything that serves, imports or compares such a file.
"""

from dataclasses import dataclass, field
from typing import Final

from shoal.topology.values import Endpoint, UnixSocket

RELEASE: Final = "0.5.0"
"""The nutcracker that Shoal stands in for."""

Listen = Endpoint | UnixSocket
"""Where a socket is; the host of an endpoint may be a name, which is resolved when it is used."""


@dataclass(frozen=True, slots=True)
class Server:
    """One place on a pool's ring. The `label` is what is hashed and what the stats call it."""

    address: Listen
    weight: int
    alias: str | None
    label: str
    line: int


@dataclass(frozen=True, slots=True)
class Pool:
    """One listening address and the ring behind it. Times are milliseconds; 0 is off, and for counts no limit."""

    name: str
    listen: Listen
    client_connections: int
    hash: str
    hash_tag: str | None
    distribution: str
    timeout_ms: int
    backlog: int
    tcpkeepalive: bool
    reuseport: bool
    preconnect: bool
    redis_auth: str | None = field(repr=False)
    redis_db: int
    server_connections: int
    auto_eject_hosts: bool
    server_retry_timeout_ms: int
    server_failure_limit: int
    servers: tuple[Server, ...]
    sentinels: tuple[Endpoint, ...]
    line: int


@dataclass(frozen=True, slots=True)
class NutcrackerFile:
    """All pools of a file."""

    pools: tuple[Pool, ...]


def rank(name: str) -> tuple[int, bytes]:
    """What nutcracker sorts names by."""
    text = name.encode()
    return len(text), text
