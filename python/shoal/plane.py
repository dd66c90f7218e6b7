"""The data plane, for the control plane: start it, apply snapshots, renew leases, read its counters.

Owns the border to the native module, which nothing else imports: endpoints become IP addresses here, and the
module's errors become Shoal's. The rule it keeps: a snapshot is whole (a route for every shard of every pool) and
its epoch only grows. Called by `daemon` (the running proxy), for `Ring` by `moves` and `check`, `key` and `diff`, and
for the command table by `commands`.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal import _native
from shoal.errors import PlaneError, PortInUseError, ShoalError
from shoal.topology.values import Endpoint, UnixSocket

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NO_LEASE_NEEDED: int = _native.NO_LEASE_NEEDED
"""A `Route.lease_until_ns` that never ends."""


@dataclass(frozen=True)
class ShardSpec:
    """A shard's place on the ring: the name is what is hashed."""

    name: str
    weight: int = 1


@dataclass(frozen=True)
class Ejection:
    """A server leaves the ring after so many failures in a row, for so long."""

    failures: int
    retry_ms: int


@dataclass(frozen=True)
class Fixed:
    """The servers of a pool are where its file says, and nowhere else: nothing waits for another one.

    Errors are then passed on as they are, and connections opened when they are needed, or at the start with
    `preconnect`.
    """

    preconnect: bool = False
    ejection: Ejection | None = None


@dataclass(frozen=True)
class ModuleCommand:
    """A command that only the servers know: where its keys stand, its name being 0, as COMMAND INFO says it.

    A `last_key` below 0 counts from the end. A command without keys has 0 as first and last.
    """

    name: str
    first_key: int
    last_key: int
    key_step: int
    writes: bool

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class PoolSpec:
    """What the workers need to know of a pool; sizes in bytes, times in milliseconds.

    `listen` is IP:PORT or an absolute path, which gets `socket_mode`; with `share_port`, a port that
    another process shares may be listened on too. `password` is what clients must send, `backend_password` what the
    servers ask for, `database` what a client has that selects none. Each worker has `connections` to every server, for
    each database and protocol in use. `hold_bytes` counts for the whole process. A `timeout_ms` or `client_connections`
    of 0 is no limit. With a `max_lag_ms` reads go to replicas that have a lease. `fixed` is None where sentinels are
    followed.
    `twemproxy_words` answers AUTH in nutcracker's words. `allow` and `deny` name commands ("command|subcommand" where
    it matters): what is dangerous is refused unless it is allowed, what is denied always. `modules` are commands that
    Shoal does not know.
    """

    name: str
    listen: str
    shards: tuple[ShardSpec, ...]
    hash: str = "fnv1a_64"
    distribution: str = "ketama"
    hash_tag: str | None = None
    fixed: Fixed | None = None
    twemproxy_words: bool = False
    password: str | None = field(default=None, repr=False)
    backend_password: str | None = field(default=None, repr=False)
    database: int = 0
    connections: int = 1
    hold_timeout_ms: int = 4000
    hold_bytes: int = 64 * 1024 * 1024
    timeout_ms: int = 0
    client_connections: int = 0
    max_inflight: int = 256
    max_lag_ms: int | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    modules: tuple[ModuleCommand, ...] = ()
    backlog: int = 1024
    share_port: bool = False
    keepalive: bool = False
    socket_mode: int | None = None


@dataclass(frozen=True)
class Route:
    """Where a shard's requests go, and until when writes may (CLOCK_BOOTTIME, ns; 0 is no lease)."""

    pool: str
    shard: str
    endpoint: Endpoint | UnixSocket | None
    lease_until_ns: int = 0


class ReadLease(NamedTuple):
    """Until when connections that were there before a replica was asked may read from it (CLOCK_BOOTTIME, ns)."""

    replica: Endpoint
    sampled_ns: int
    until_ns: int


class CommandRow(NamedTuple):
    """What the workers know of a command, their words for it as they print them; `name` may be "command|subcommand"."""

    name: str
    arity: int
    keys: str
    access: str
    repeat: str
    route: str
    guarded: bool


def command_table() -> list[CommandRow]:
    """Every command, and behind each family its subcommands."""
    return [CommandRow(*row) for row in _native.command_table()]


class Located(NamedTuple):
    """Why a key is where it is: the part of the key that was hashed, its hash, and the point that owns it."""

    shard: str
    hash: int
    point: int | None
    tagged: bytes


class Ring:
    """The ring of a pool, with the same arithmetic as the workers use."""

    def __init__(
        self,
        shards: Sequence[ShardSpec],
        hash: str,  # noqa: A002 - the word of the topology file
        distribution: str,
        hash_tag: str | None,
    ) -> None:
        self._ring = _native.Ring(shards, hash, distribution, hash_tag)

    def locate(self, key: bytes) -> Located:
        """Which shard has `key`."""
        shard, hashed, point, tagged = self._ring.locate(key)
        return Located(shard, hashed, point, bytes(tagged))

    def owners(self, keys: Iterable[bytes]) -> list[str]:
        """The shard of each of many keys."""
        return self._ring.owners(keys)

    def moves(self, new: Ring) -> dict[tuple[str, str], float] | None:
        """Where the hashes go if `new` takes this ring's place: the share, 0 to 1, for each shard here and there.

        Every hash is counted, those that stay included, and a pair without any is left out: what is not there is
        exactly 0. None where hashes cannot be counted: the rings differ in hash or hash tag, the hash does not give
        all values equally often (crc16; unless none moves), a distribution is random, or it would take too long.
        """
        moves = self._ring.moves(new._ring)
        return None if moves is None else {(old, there): share for old, there, share in moves}

    def shares(self) -> dict[str, float]:
        """The part of the hash space, 0 to 1, that each shard owns."""
        return dict(self._ring.shares())


class Plane:
    """Workers that carry requests between clients and masters.

    Raises `PlaneError` where a configuration or snapshot does not fit, `PortInUseError` where a listen address
    is taken.
    """

    def __init__(self, pools: Sequence[PoolSpec], workers: int) -> None:
        self._order = _order(pools)
        try:
            self._plane = _native.Plane(pools, workers)
        except ValueError as error:
            raise PlaneError(str(error)) from error

    def start(self) -> None:
        """Binds and starts the workers; requests are held until the first snapshot."""
        try:
            self._plane.start()
        except OSError as error:
            raise _cannot_listen(error) from error
        except ValueError as error:
            raise PlaneError(str(error)) from error

    def apply(self, epoch: int, routes: Sequence[Route]) -> None:
        """Makes `routes` the state to serve. Leases of shards whose endpoint changes end at once."""
        try:
            self._plane.apply(epoch, _in_order(self._order, routes))
        except ValueError as error:
            raise PlaneError(str(error)) from error

    def reload(self, pools: Sequence[PoolSpec], epoch: int, routes: Sequence[Route]) -> None:
        """Makes these pools with these routes the state to serve, without losing a client of a pool that stays.

        A pool that listens elsewhere does so when this returns; if it cannot, nothing has changed.
        """
        order = _order(pools)
        try:
            self._plane.reload(pools, epoch, _in_order(order, routes))
        except OSError as error:
            raise _cannot_listen(error) from error
        except ValueError as error:
            raise PlaneError(str(error)) from error
        self._order = order

    def acked_epoch(self) -> int:
        """The epoch that every worker has reached."""
        return self._plane.acked_epoch()

    def renew(self, pool: str, shard: str, lease_until_ns: int) -> None:
        """Extends the lease of the current snapshot's route, or ends it (0)."""
        self._plane.renew(pool, shard, lease_until_ns)

    def read_from(self, epoch: int, pool: str, shard: str, replicas: Sequence[Endpoint]) -> None:
        """Lets reads of a shard go to these replicas of its master, by their IP addresses, each once it has a lease.

        The epoch grows by it. A snapshot with another master ends it, and a reload that changes what replicas may miss.
        """
        try:
            self._plane.read_from(epoch, pool, shard, [str(replica) for replica in replicas])
        except ValueError as error:
            raise PlaneError(str(error)) from error

    def renew_reads(self, pool: str, shard: str, leases: Sequence[ReadLease], *, with_master: bool) -> None:
        """Sets leases of a shard's replicas, and whether its master takes a share of the reads beside them."""
        rows = [(str(lease.replica), lease.sampled_ns, lease.until_ns) for lease in leases]
        self._plane.renew_reads(pool, shard, with_master, rows)

    def worker_ages_ms(self) -> list[float]:
        """How long ago each worker finished a round; an idle one does so four times a second."""
        return self._plane.worker_ages_ms()

    def stats(self) -> dict[str, Any]:
        """Counters: `{"workers": n, "pools": {pool: {..., "shards": {shard: {...}}}}}`."""
        return self._plane.stats()

    def stop(self, drain_ms: int) -> bool:
        """Stops listening, lets unanswered requests finish, ends the workers; whether all ended in time."""
        return self._plane.stop(drain_ms)


def _order(pools: Sequence[PoolSpec]) -> list[tuple[str, str]]:
    return [(pool.name, shard.name) for pool in pools for shard in pool.shards]


def _in_order(order: Sequence[tuple[str, str]], routes: Sequence[Route]) -> list[tuple[str | None, int]]:
    by_shard = {(route.pool, route.shard): route for route in routes}
    try:
        wanted = [by_shard[key] for key in order]
    except KeyError as error:
        raise PlaneError(f"the snapshot has no route for {error}") from error
    return [(_address(route.endpoint), route.lease_until_ns) for route in wanted]


def _cannot_listen(error: OSError) -> ShoalError:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"the proxy cannot listen: {error.strerror}",
            hint="stop what uses the port, or give the proxy another one",
        )
    return PlaneError(f"the proxy cannot start: {error.strerror or error}")


def _address(endpoint: Endpoint | UnixSocket | None) -> str | None:
    if endpoint is None or isinstance(endpoint, UnixSocket):
        return endpoint and endpoint.path
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        found = resolve(endpoint)
        if found is None:
            raise PlaneError(f"the host of {endpoint} has no address", hint="use an IP address") from None
        return str(found)
    return str(endpoint)


def resolve(endpoint: Endpoint, kept: Endpoint | None = None) -> Endpoint | None:
    """The endpoint with an address of its host: `kept` while that is among them, else the first; None if the name has
    none now. Asks the name server: it may wait."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: what cannot even be asked for, such as a label of 64 signs
        return None
    addresses = [str(entry[4][0]) for entry in found]
    return kept if kept is not None and kept.host in addresses else Endpoint(addresses[0], endpoint.port)
