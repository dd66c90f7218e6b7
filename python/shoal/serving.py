"""What one proxy process serves, whichever file says so: its pools, who says where their servers are, its ports.

    shoal.yaml       ──► of_layout ─────┐
                                        ├──► Service ──► daemon: plane, watches, admin HTTP, statistics
    nutcracker.yml   ──► of_nutcracker ─┘

Rule: pure and comparable. Two services of one proxy tell what a reload changes, so nothing here is resolved, opened
or measured. Called by `cli.proxy` and `cli.nutcracker`, which read the files, and by `reload`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.plane import Ejection, Fixed, ModuleCommand, PoolSpec, ShardSpec
from shoal.sentinel import LeaseRule
from shoal.staleness import ReadRule
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.nutcracker import NutcrackerFile
    from shoal.nutcracker import Pool as NutcrackerPool
    from shoal.topology import Layout, Pool, ProxyNode, Topology
    from shoal.topology.values import UnixSocket

    Address = Endpoint | UnixSocket

FIXED_PATIENCE_MS = 5000
"""Longest wait for a connection to a fixed server in a pool without `timeout`; nutcracker waits for ever."""


@dataclass(frozen=True, slots=True)
class Followed:
    """Sentinels say where the servers are. `masters` is Sentinel's name of each shard's master, by the shard's label;
    None stands for names that are yet to be found out, from the addresses in `servers`."""

    sentinels: tuple[Endpoint, ...]
    lease: LeaseRule
    masters: Mapping[str, str] | None = None
    servers: Mapping[str, Address] = field(default_factory=dict, compare=False)
    where: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The place in the file of each server, for errors."""
    password: str | None = field(default=None, repr=False)
    reads: ReadRule | None = None
    """How replicas are read from, if they are."""


@dataclass(frozen=True, slots=True)
class AtAddresses:
    """The file says where the servers are, by the shard's label."""

    servers: Mapping[str, Address]


@dataclass(frozen=True, slots=True)
class ServedPool:
    """A pool: what the workers are told of it, and who says where its servers are."""

    spec: PoolSpec
    listen: Address
    source: Followed | AtAddresses
    ejection_off: bool = False
    """The file asks for ejection, which the sentinels make needless."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(shard.name for shard in self.spec.shards)


@dataclass(frozen=True, slots=True)
class Service:
    """All that one process serves. A port that is None is not opened."""

    node: str
    pools: tuple[ServedPool, ...]
    workers: int | None
    admin: Endpoint | None
    stats: Endpoint | None
    password: str | None = field(default=None, repr=False)
    """What the admin HTTP asks for outside loopback."""


def of_layout(layout: Layout, node: ProxyNode) -> Service:
    """What shoal.yaml says of one of its proxies."""
    topology = layout.topology
    secret = topology.auth.password
    password = None if secret is None else secret.get_secret_value()
    sentinels = tuple(sentinel.endpoint for sentinel in layout.sentinels)
    pools = tuple(
        ServedPool(
            spec=_pool_of_topology(topology, node, name, password),
            listen=node.listens[name],
            source=Followed(
                sentinels,
                LeaseRule(pool.lease),
                masters=topology.labels(name),
                password=password,
                reads=_reads(pool),
            ),
        )
        for name, pool in topology.pools.items()
    )
    return Service(node.name, pools, topology.proxy.workers, node.admin, node.stats, password)


def _reads(pool: Pool) -> ReadRule | None:
    return None if pool.reads == "master" else ReadRule(pool.max_lag, nearest=pool.reads == "nearest")


def _pool_of_topology(topology: Topology, node: ProxyNode, name: str, password: str | None) -> PoolSpec:
    pool = topology.pools[name]
    return PoolSpec(
        name=name,
        listen=str(node.listens[name]),
        shards=tuple(ShardSpec(label, topology.shards[shard].weight) for label, shard in topology.labels(name).items()),
        hash=pool.hash,
        distribution=pool.distribution,
        hash_tag=pool.hash_tag,
        password=password,
        backend_password=password,
        database=pool.database,
        hold_timeout_ms=pool.hold.timeout,
        hold_bytes=pool.hold.bytes,
        timeout_ms=pool.timeout,
        client_connections=pool.client_connections,
        max_inflight=topology.proxy.max_inflight,
        max_lag_ms=None if pool.reads == "master" else pool.max_lag,
        allow=pool.commands.allow,
        deny=pool.commands.deny,
        modules=tuple(
            ModuleCommand(name, one.first_key, one.last, one.key_step, one.write)
            for name, one in sorted(pool.commands.modules.items())
        ),
    )


@dataclass(frozen=True, slots=True)
class Ports:
    """What nutcracker.yml does not say: where the process can be asked about itself, and how many workers it has."""

    admin: Endpoint | None = None
    stats: Endpoint | None = None
    workers: int | None = None


def of_nutcracker(file: NutcrackerFile, node: str, ports: Ports, name: str = "nutcracker.yml") -> Service:
    """What nutcracker.yml says, for a process called `node`. Host names stay names; errors call the file `name`."""
    pools = tuple(_pool_of_nutcracker(pool, name) for pool in file.pools)
    passwords = {pool.spec.password for pool in pools}
    password = passwords.pop() if len(passwords) == 1 else None
    return Service(node, pools, ports.workers, ports.admin, ports.stats, password)


def _pool_of_nutcracker(pool: NutcrackerPool, file: str) -> ServedPool:
    servers = {server.label: server.address for server in pool.servers}
    source: Followed | AtAddresses = AtAddresses(servers)
    fixed: Fixed | None = Fixed(pool.preconnect, _ejection(pool))
    if pool.sentinels:
        where = {server.label: f"{file}:{server.line} {pool.name}.servers" for server in pool.servers}
        source = Followed(pool.sentinels, LeaseRule.UNSAFE, None, servers, where, pool.redis_auth)
        fixed = None
    hold_ms = PoolSpec.hold_timeout_ms if pool.sentinels else pool.timeout_ms or FIXED_PATIENCE_MS
    spec = PoolSpec(
        name=pool.name,
        listen=str(pool.listen),
        shards=tuple(ShardSpec(server.label, server.weight) for server in pool.servers),
        hash=pool.hash,
        distribution=pool.distribution,
        hash_tag=pool.hash_tag,
        fixed=fixed,
        twemproxy_words=True,
        password=pool.redis_auth,
        backend_password=pool.redis_auth,
        database=pool.redis_db,
        connections=pool.server_connections,
        hold_timeout_ms=hold_ms,
        timeout_ms=pool.timeout_ms,
        client_connections=pool.client_connections,
        backlog=pool.backlog,
        share_port=pool.reuseport,
        keepalive=pool.tcpkeepalive,
        socket_mode=None if isinstance(pool.listen, Endpoint) else pool.listen.mode,
    )
    return ServedPool(spec, pool.listen, source, ejection_off=pool.auto_eject_hosts and bool(pool.sentinels))


def _ejection(pool: NutcrackerPool) -> Ejection | None:
    if not pool.auto_eject_hosts:
        return None
    # nutcracker counts up to the limit after each failure, so that 0 is the same as 1
    return Ejection(max(1, pool.server_failure_limit), pool.server_retry_timeout_ms)
