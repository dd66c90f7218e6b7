"""What a topology comes to: every node with its name, host and endpoints.

Rule: the layout follows from the topology and the chosen ports alone, so all processes that read the same file and
the same state directory see the same one. A port that the file does not give is chosen at `up` on loopback; on any
other host it is the well-known one (or the next that is not taken there), as other machines must know it unasked.

    slots(topology) ── ports not given ──► ports_to_choose ── chosen at `up` ──► lay_out ──► Layout
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shoal.errors import ConfigError
from shoal.topology.model import LOOPBACK, Topology
from shoal.topology.values import MAX_PORT, Endpoint, Place, is_loopback, is_wildcard, split_listen

Path = tuple[str | int, ...]
"""A key path: ("shards", "a", "replicas", 0)."""

REDIS_PORT = 6379
SENTINEL_PORT = 26379
PROXY_PORT = 22121
ADMIN_PORT = 22180
STATS_PORT = 22222

ANY_ADDRESS = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class RedisNode:
    """One redis server of a shard. `bootstrap_master` is about the very first start only."""

    name: str
    shard: str
    host: str
    endpoint: Endpoint
    bootstrap_master: bool


@dataclass(frozen=True, slots=True)
class SentinelNode:
    """One sentinel."""

    name: str
    host: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class ProxyNode:
    """One proxy: where it listens for each pool, and where it can be asked about itself."""

    name: str
    host: str
    address: str
    listens: Mapping[str, Endpoint]
    admin: Endpoint
    stats: Endpoint

    def reach(self, pool: str) -> Endpoint:
        """Where clients connect: where it listens, with the host's address in place of a wildcard."""
        listen = self.listens[pool]
        return Endpoint(self.address, listen.port) if is_wildcard(listen.host) else listen


Node = RedisNode | SentinelNode | ProxyNode


@dataclass(frozen=True, slots=True)
class Layout:
    """All nodes in the file's order: the shards' (master first), the sentinels, the proxies."""

    topology: Topology
    redis: tuple[RedisNode, ...]
    sentinels: tuple[SentinelNode, ...]
    proxies: tuple[ProxyNode, ...]

    def nodes(self) -> tuple[Node, ...]:
        return (*self.redis, *self.sentinels, *self.proxies)

    def on_host(self, host: str) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes() if node.host == host)

    def shard_nodes(self, shard: str) -> tuple[RedisNode, ...]:
        return tuple(node for node in self.redis if node.shard == shard)

    def proxy(self, name: str) -> ProxyNode:
        """The proxy of that name; KeyError if there is none."""
        for node in self.proxies:
            if node.name == name:
                return node
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Slot:
    """One listening socket: who has it, the key path that asks for it, and its port if the file gives one."""

    key: str
    path: Path
    host: str
    address: str
    bind: str
    port: int | None
    usual: int

    @property
    def machine(self) -> str:
        """Equal for sockets of which one listening on all addresses would take the other's port."""
        return "loopback" if is_loopback(self.address) else self.address

    @property
    def to_choose(self) -> bool:
        return self.port is None and self.machine == "loopback"

    def clashes(self, other: "Slot") -> bool:
        """Whether both cannot have the same port."""
        if self.machine != other.machine:
            return False
        return self.bind == other.bind or is_wildcard(self.bind) or is_wildcard(other.bind)


def redis_name(shard: str, number: int) -> str:
    """The name of a shard's node; number 1 is the master of the first start."""
    return f"{shard}-{number}"


def sentinel_name(number: int) -> str:
    return f"sentinel{number}"


def slots(topology: Topology) -> Iterator[Slot]:
    """Every listening socket, in the order of the layout."""
    for shard, spec in topology.shards.items():
        paths: list[Path] = [("master",), *(("replicas", index) for index in range(len(spec.replicas)))]
        for number, (path, place) in enumerate(zip(paths, (spec.master, *spec.replicas), strict=True), 1):
            yield _placed(topology, redis_name(shard, number), ("shards", shard, *path), place)
    for index, place in enumerate(topology.sentinel.nodes):
        yield _placed(topology, sentinel_name(index + 1), ("sentinel", "nodes", index), place)
    for name in topology.proxy.nodes:
        yield from _proxy_slots(topology, name)


def _placed(topology: Topology, key: str, path: Path, place: Place) -> Slot:
    address = topology.address(place.host)
    usual = SENTINEL_PORT if path[0] == "sentinel" else REDIS_PORT
    return Slot(key, path, place.host, address, address, place.port, usual)


def _proxy_slots(topology: Topology, name: str) -> Iterator[Slot]:
    node = topology.proxy.nodes[name]
    address = topology.address(node.host)
    here: Path = ("proxy", "nodes", name)
    for pool, spec in topology.pools.items():
        bind, port = split_listen(spec.listen) if spec.listen else (None, None)
        path: Path = here if port is None else ("pools", pool, "listen")
        if node.port is not None and len(topology.pools) == 1:
            port, path = node.port, (*here, "port")
        if bind is None:
            bind = ANY_ADDRESS if topology.vip else address  # the VIP may be on the other host when a proxy starts
        yield Slot(f"{name}.{pool}", path, node.host, address, bind, port, PROXY_PORT)
    yield Slot(f"{name}.admin", (*here, "admin"), node.host, address, LOOPBACK, node.admin, ADMIN_PORT)
    yield Slot(f"{name}.stats", (*here, "stats"), node.host, address, LOOPBACK, node.stats, STATS_PORT)


def clashes(wanted: Sequence[Slot]) -> Iterator[tuple[Slot, Slot]]:
    """The pairs of slots that were given the same socket, the earlier one first."""
    by_port: dict[int, list[Slot]] = {}
    for slot in wanted:
        if slot.port is not None:
            for earlier in by_port.get(slot.port, ()):
                if slot.clashes(earlier):
                    yield earlier, slot
                    break
            by_port.setdefault(slot.port, []).append(slot)


def ports_to_choose(topology: Topology) -> tuple[str, ...]:
    """The keys of the ports that must be chosen on this machine before there is a layout."""
    return tuple(slot.key for slot in slots(topology) if slot.to_choose)


def lay_out(topology: Topology, chosen: Mapping[str, int]) -> Layout:
    """The layout, with `chosen` for the ports that the file leaves open; ConfigError names one that is missing."""
    at = _endpoints(topology, chosen)
    redis = [
        RedisNode(redis_name(shard, number), shard, place.host, at[redis_name(shard, number)], number == 1)
        for shard, spec in topology.shards.items()
        for number, place in enumerate((spec.master, *spec.replicas), 1)
    ]
    sentinels = [
        SentinelNode(sentinel_name(number), place.host, at[sentinel_name(number)])
        for number, place in enumerate(topology.sentinel.nodes, 1)
    ]
    proxies = [
        ProxyNode(
            name=name,
            host=node.host,
            address=topology.address(node.host),
            listens={pool: at[f"{name}.{pool}"] for pool in topology.pools},
            admin=at[f"{name}.admin"],
            stats=at[f"{name}.stats"],
        )
        for name, node in topology.proxy.nodes.items()
    ]
    return Layout(topology, tuple(redis), tuple(sentinels), tuple(proxies))


def _endpoints(topology: Topology, chosen: Mapping[str, int]) -> dict[str, Endpoint]:
    """Every slot's endpoint: the port that the file gives, the chosen one, or the usual one."""
    wanted = list(slots(topology))
    taken: dict[int, list[Slot]] = {}
    ports: dict[str, int] = {}
    for slot in wanted:
        port = chosen.get(slot.key) if slot.to_choose else slot.port
        if port is not None:
            ports[slot.key] = port
            taken.setdefault(port, []).append(slot)
        elif slot.to_choose:
            raise ConfigError(
                f'no port has been chosen for "{slot.key}"',
                hint="`shoal up` chooses it and keeps it in the state directory; or give it in the file",
            )
    for slot in wanted:
        if slot.key not in ports:
            ports[slot.key] = _next_free(slot, taken)
    return {slot.key: Endpoint(slot.bind, ports[slot.key]) for slot in wanted}


def _next_free(slot: Slot, taken: dict[int, list[Slot]]) -> int:
    port = slot.usual
    while any(slot.clashes(other) for other in taken.get(port, ())):
        port += 1
    if port > MAX_PORT:
        raise ConfigError(f'no port is left for "{slot.key}"', hint="give it in the file")
    taken.setdefault(port, []).append(slot)
    return port
