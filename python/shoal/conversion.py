"""What a nutcracker.yml comes to as a topology, with what its sentinels know if they were asked.

    pools of the file ──┐
    what is known       ├──► convert ──► Draft (shards, sentinels, pools, proxies; what was assumed, what is left out)
    where proxies run ──┘

Rule: a ring stays as it is, or there is no draft: a shard's label is what nutcracker hashed, and what one topology
cannot say (a shard of two weights, two sets of sentinels) is refused. What nobody said is assumed only where it moves
no key, and each assumption is told. Called by `shoal import`, which checks the result.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from shoal.draft import Draft, DraftPool, DraftProxy, DraftSentinels, DraftShard
from shoal.errors import ConfigError
from shoal.nutcracker.keys import KEYS
from shoal.topology import LOCAL, Endpoint, majority
from shoal.topology.layout import ADMIN_PORT, PROXY_PORT, SENTINEL_PORT, STATS_PORT
from shoal.topology.model import DEFAULT_CLUSTER, DEFAULT_SENTINELS
from shoal.topology.values import NAME_PATTERN, is_address, is_loopback, is_wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from shoal.census import Group, Known
    from shoal.nutcracker import Pool, Server
    from shoal.tie import Resolve

LEAST_DOWN_AFTER = 100
LEAST_FAILOVER_TIMEOUT = 1000
MOST_NAME = 63
RESERVED_POOLS = frozenset({"admin", "stats"})

CARRIED_OVER = frozenset(
    {
        "listen",
        "client_connections",
        "hash",
        "hash_tag",
        "distribution",
        "timeout",
        "redis",
        "redis_auth",
        "redis_db",
        "servers",
        "sentinels",
    }
)
WITHOUT_EQUIVALENT: Mapping[str, str] = {
    "backlog": "the kernel keeps up to 1024 connections waiting",
    "tcpkeepalive": "idle clients are not probed",
    "reuseport": "a port that another process has is in use, and the proxy does not start",
    "preconnect": "a worker connects to a master with the first request for it",
    "server_connections": "each worker has a connection to every master",
    "auto_eject_hosts": "no shard leaves the ring: its requests wait for the failover",
    "server_retry_timeout": "no shard leaves the ring",
    "server_failure_limit": "no shard leaves the ring",
}
"""Keys that say something which a shoal.yaml cannot, and what holds instead."""


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to go by. `known` and `ties` are by pool, and empty where no sentinel was asked."""

    file: str
    pools: Sequence[Pool]
    resolve: Resolve
    here: Callable[[Endpoint], str | None]
    """This machine's own address, as a server sees it."""
    known: Mapping[str, Known] = field(default_factory=dict)
    ties: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    proxies: tuple[str, ...] = ()
    """The hosts of the proxies, if somebody says so."""
    password_file: str | None = None


def convert(material: Material) -> Draft:
    """The topology; one ConfigError with all that none can say."""
    return _Conversion(material).draft()


class _Conversion:
    """One pass over the pools, and what was found so far."""

    def __init__(self, material: Material) -> None:
        self.given = material
        self.errors: list[ConfigError] = []
        self.assumed: list[str] = []
        self.left_out: list[str] = []
        self.hosts: dict[str, str] = {}
        self.groups: dict[str, Group] = {}
        self.shards: dict[str, DraftShard] = {}
        self._first: dict[str, tuple[Pool, Server]] = {}
        self._names: dict[Endpoint, str] = {}
        self._ports = {pool.listen.port for pool in material.pools if isinstance(pool.listen, Endpoint)}

    def draft(self) -> Draft:
        members = {pool.name: tuple(self._shard(pool, server) for server in pool.servers) for pool in self.given.pools}
        if self.groups:
            sentinels = self._sentinels()
        self._refuse()
        proxies = self._proxies()
        if not self.groups:
            sentinels = self._sentinels_to_be(proxies)
            self.assumed.append("every server is a master, and its replicas are not known, as no sentinel was asked")
            self.assumed.append("the sentinels will know the masters by the names of the shards")
        names = self._pool_names()
        pools = tuple(self._pool(pool, names[pool.name], members[pool.name], proxies) for pool in self.given.pools)
        self._refuse()
        cluster = pools[0].name if len(pools) == 1 else DEFAULT_CLUSTER
        return Draft(
            origin=self.given.file,
            cluster=cluster,
            shards=tuple(self.shards.values()),
            sentinels=sentinels,
            pools=pools,
            proxies=tuple(self._proxy(number, host) for number, host in enumerate(proxies)),
            watched=bool(self.groups),
            hosts=self.hosts,
            password_file=self.given.password_file,
            insecure=self.given.password_file is None and self._outside_loopback(pools, proxies, sentinels),
            assumed=tuple(self.assumed),
            left_out=tuple(self.left_out),
        )

    def _refuse(self) -> None:
        if self.errors:
            raise ConfigError.together(self.errors, "conversion")

    def _wrong(self, what: str, hint: str, pool: Pool, line: int | None = None) -> None:
        key = "servers" if line else "listen"
        where = f"{self.given.file}:{line or pool.line} {pool.name}.{key}"
        self.errors.append(ConfigError(what, where=where, hint=hint))

    # ---------------------------------------------------------------------------------------------------------- shards

    def _shard(self, pool: Pool, server: Server) -> str:
        """The name of a server's shard, which is in `shards` from then on."""
        master = self.given.ties.get(pool.name, {}).get(server.label)
        if master is not None:
            name, group = master, self.given.known[pool.name].groups[master]
            self._require_name(name, pool, server)
            self.groups.setdefault(name, group)
            places = [self._place(member, pool, server) for member in group.members()]
        elif isinstance(server.address, Endpoint):
            name = self._names.get(server.address) or self._new_name(pool, server)
            self._names[server.address] = name
            places = [self._place(server.address, pool, server)]
        else:
            what = f"{server.address} is a unix socket, and a shard of a shoal.yaml has an address"
            self._wrong(what, "give the server's address, or ask its sentinels with --sentinel", pool, server.line)
            return server.label
        label = None if name == server.label else server.label
        shard = DraftShard(name, label, server.weight, places[0], tuple(places[1:]))
        self._require_one_meaning(name, shard, pool, server)
        return name

    def _require_name(self, name: str, pool: Pool, server: Server) -> None:
        if not re.fullmatch(NAME_PATTERN, name):
            what = f'"{name}", as Sentinel calls the master of server "{server.label}", cannot be a shard\'s name'
            self._wrong(what, "at most 63 characters, and neither . nor - first", pool, server.line)

    def _require_one_meaning(self, name: str, shard: DraftShard, pool: Pool, server: Server) -> None:
        first = self.shards.setdefault(name, shard)
        earlier_pool, earlier = self._first.setdefault(name, (pool, server))
        if (first.label, first.weight) != (shard.label, shard.weight):
            what = (
                f'shard "{name}" is "{earlier.label}" with weight {earlier.weight} in pool "{earlier_pool.name}", '
                f'but "{server.label}" with weight {server.weight} in pool "{pool.name}"'
            )
            hint = "a shard has one label and one weight: write a file for each pool, with --pool"
            self._wrong(what, hint, pool, server.line)

    def _new_name(self, pool: Pool, server: Server) -> str:
        """A name for a shard that has none yet: its label if it can be one, which no other shard has."""
        taken = self.shards.keys() | set(self._names.values())
        if re.fullmatch(NAME_PATTERN, server.label):
            wanted: Iterable[str] = (server.label, as_name(f"{pool.name}-{server.label}"))
        else:
            wanted = ()
        numbered = (f"shard{number}" for number in range(1, len(taken) + 2))
        return next(name for name in (*wanted, *numbered) if name not in taken)

    def _place(self, endpoint: Endpoint, pool: Pool, server: Server) -> str:
        host = self._host(endpoint.host)
        if host is None:
            what = f"the host of {endpoint} has no address now, and a shoal.yaml names each host's address"
            self._wrong(what, "see that the name server knows it, or write its address", pool, server.line)
        return str(Endpoint(host or endpoint.host, endpoint.port))

    def _host(self, host: str) -> str | None:
        """A host as a shoal.yaml calls it: by its name if it has one, which then stands under `hosts`."""
        if is_address(host) or host in self.hosts:
            return host
        address = self._found(host)
        if address is None or is_loopback(address) or host == LOCAL or not re.fullmatch(NAME_PATTERN, host):
            return address
        self.hosts[host] = address
        return host

    def _found(self, host: str) -> str | None:
        """The address of a host's name, IPv4 if it has one; None if it has none now."""
        return min(self._addresses(host), key=lambda address: ":" in address, default=None)

    def _address(self, host: str) -> str:
        return self.hosts.get(host, host)

    # ------------------------------------------------------------------------------------------------------- sentinels

    def _sentinels(self) -> DraftSentinels:
        """As the sentinels say themselves."""
        groups = list(self.groups.values())
        self._require_one_set(groups)
        for group in groups:
            self.assumed += (f'the sentinels disagree about "{group.name}": {one}' for one in group.disagreements)
            self.assumed += (
                f'{replica} is a replica of "{group.name}", though it is down' for replica in sorted(group.down)
            )
        self.assumed += self._silent(groups[0].sentinels)
        nodes = tuple(str(Endpoint(self._host(at.host) or at.host, at.port)) for at in groups[0].sentinels)
        quorum: int | None = self._common("quorum")
        if quorum is not None and not majority(len(nodes)) <= quorum <= len(nodes):
            what = f"the quorum is {majority(len(nodes))}, a majority of {len(nodes)} sentinels; at the sentinels it is"
            self.assumed.append(f"{what} {quorum}, to be changed with `SENTINEL SET`")
            quorum = None
        return DraftSentinels(
            nodes,
            quorum,
            max(self._common("down_after"), LEAST_DOWN_AFTER),
            max(self._common("failover_timeout"), LEAST_FAILOVER_TIMEOUT),
            self._common("parallel_syncs"),
        )

    def _require_one_set(self, groups: Sequence[Group]) -> None:
        for group in groups[1:]:
            if set(group.sentinels) != set(groups[0].sentinels):
                one, other = (", ".join(map(str, sorted(each.sentinels))) for each in (groups[0], group))
                what = f'"{groups[0].name}" is watched by {one}, but "{group.name}" by {other}'
                hint = "a topology has one set of sentinels: write a file for each set, with --pool"
                self.errors.append(ConfigError(what, where=self.given.file, hint=hint))

    def _silent(self, nodes: Iterable[Endpoint]) -> Iterator[str]:
        """The sentinels that did not answer and are not among those that the others know."""
        known = {(address, at.port) for at in nodes for address in self._addresses(at.host)}
        silent = {at: reason for one in self.given.known.values() for at, reason in one.silent.items()}
        for at, reason in silent.items():
            if not any((address, at.port) in known for address in self._addresses(at.host)):
                yield f"{at} is left out: it did not answer ({reason}), and no other sentinel knows it"

    def _addresses(self, host: str) -> Sequence[str]:
        return [host] if is_address(host) else self.given.resolve(host)

    def _common(self, setting: str) -> Any:
        """What the sentinels are told of most masters, as a topology says it once for all."""
        told = {group.name: getattr(group.settings, setting) for group in self.groups.values()}
        counts = Counter(told.values())
        value = max(counts.items(), key=lambda pair: (pair[1], pair[0]))[0]
        if len(counts) > 1:
            each = ", ".join(f'{one} for "{name}"' for name, one in told.items())
            self.assumed.append(f"{setting} is {value} for all; the sentinels have {each}")
        return value

    def _sentinels_to_be(self, proxies: Sequence[str]) -> DraftSentinels:
        """Where sentinels could be, while there are none."""
        hosts = list(dict.fromkeys([*proxies, *map(_host_of, self._places())]))
        if all(host == LOCAL or is_loopback(self._address(host)) for host in hosts):
            self.assumed.append(f"there are to be {DEFAULT_SENTINELS} sentinels, all on this machine")
            return DraftSentinels(DEFAULT_SENTINELS)
        at = [(hosts[number % len(hosts)], number // len(hosts)) for number in range(DEFAULT_SENTINELS)]
        nodes = tuple(str(Endpoint(host, SENTINEL_PORT + round_)) for host, round_ in at)
        self.assumed.append(f"the sentinels are to be at {', '.join(nodes)}")
        return DraftSentinels(nodes)

    def _places(self) -> Iterator[str]:
        return (place for shard in self.shards.values() for place in (shard.master, *shard.replicas))

    # ----------------------------------------------------------------------------------------------- proxies and pools

    def _proxies(self) -> tuple[str, ...]:
        """The host of each proxy: as it was said, as the file listens, else this machine."""
        if self.given.proxies:
            return tuple(self._host(host) or host for host in self.given.proxies)
        if all(is_loopback(self._address(_host_of(place))) for place in self._places()):
            return (LOCAL,)
        for pool in self.given.pools:
            if isinstance(pool.listen, Endpoint) and _names_a_machine(pool.listen.host):
                return (pool.listen.host,)
        master = Endpoint.parse(next(self._places()))
        here = self.given.here(Endpoint(self._address(master.host), master.port))
        self.assumed.append(f"one proxy, on {here or master.host}; say where they run with --proxy HOST")
        return (here or master.host,)

    def _proxy(self, number: int, host: str) -> DraftProxy:
        """On loopback a port that is not given is one that `shoal up` chooses, and these are to run without it."""
        if host != LOCAL and not is_loopback(self._address(host)):
            return DraftProxy(host)
        return DraftProxy(host, ADMIN_PORT + number, STATS_PORT + number)

    def _pool_names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for pool in self.given.pools:
            wanted = as_name(pool.name) + ("-pool" if pool.name in RESERVED_POOLS else "")
            numbered = (f"{wanted[: MOST_NAME - 4]}-{number}" for number in range(2, len(names) + 3))
            names[pool.name] = next(name for name in (wanted, *numbered) if name not in names.values())
            if names[pool.name] != pool.name:
                self.assumed.append(f'pool "{pool.name}" is called "{names[pool.name]}"')
        return names

    def _pool(self, pool: Pool, name: str, shards: tuple[str, ...], proxies: Sequence[str]) -> DraftPool:
        self.left_out += _left_out(pool)
        return DraftPool(
            name=name,
            listen=self._listen(pool, len(proxies)),
            shards=shards,
            hash=pool.hash,
            distribution=pool.distribution,
            hash_tag=pool.hash_tag,
            timeout=pool.timeout_ms,
            database=pool.redis_db,
            client_connections=pool.client_connections,
        )

    def _listen(self, pool: Pool, proxies: int) -> str:
        if not isinstance(pool.listen, Endpoint):
            port = next(port for port in count(PROXY_PORT) if port not in self._ports)
            self._ports.add(port)
            self.left_out.append(f"{pool.name}.listen: {pool.listen}: a proxy listens on a port, here on {port}")
            return str(port)
        address = self._found(pool.listen.host)
        if address is None:
            what = f'the host "{pool.listen.host}" to listen on has no address now'
            self._wrong(what, "see that the name server knows it, or write its address", pool)
            return str(pool.listen)
        if proxies > 1 and _names_a_machine(address):
            self.assumed.append(f'pool "{pool.name}" listens on the address of each proxy\'s host')
            return str(pool.listen.port)
        return str(Endpoint(address, pool.listen.port))

    def _outside_loopback(self, pools: Iterable[DraftPool], proxies: Iterable[str], sentinels: DraftSentinels) -> bool:
        nodes = () if isinstance(sentinels.nodes, int) else sentinels.nodes
        hosts = [_host_of(place) for place in (*self._places(), *nodes)]
        hosts += [host for host in proxies if host != LOCAL]
        listens = [_host_of(pool.listen) for pool in pools if not pool.listen.isdigit()]
        return not all(is_loopback(self._address(host)) for host in (*hosts, *listens))


def _host_of(place: str) -> str:
    return Endpoint.parse(place).host


def _names_a_machine(host: str) -> bool:
    return is_address(host) and not is_wildcard(host) and not is_loopback(host)


def as_name(text: str) -> str:
    """A text as a name that is like it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text).lstrip(".-")[:MOST_NAME] or "pool"


def _left_out(pool: Pool) -> Iterator[str]:
    """What the pool says and a shoal.yaml cannot, and what holds instead."""
    for name, why in WITHOUT_EQUIVALENT.items():
        value = getattr(pool, KEYS[name].attribute)
        if value != KEYS[name].default:
            yield f"{pool.name}.{name}: {str(value).lower()}: {why}"
