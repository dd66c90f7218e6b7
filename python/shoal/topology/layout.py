"""What a topology comes to: every node with its name, host and endpoints.

Rule: the layout follows from the topology and the chosen ports alone, so every process that reads the same file and
the same state directory sees the same one. A port that the file does not give is chosen at `up` on loopback; on any
other host it is the well-known one (offset when taken), since other machines must know it without asking.

    slots(topology) ── given ports ──► ports_to_choose ── chosen at `up` ──► lay_out ──► Layout
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shoal.errors import ConfigError
from shoal.topology.model import LOOPBACK, Topology
from shoal.topology.values import Endpoint, Place, is_loopback, is_wildcard, split_port

Path = tuple[str | int, ...]

REDIS_PORT = 6379
SENTINEL_PORT = 26379
PROXY_PORT = 22121
ADMIN_PORT = 22180
STATS_PORT = 22222


@dataclass(frozen=True, slots=True)
class RedisNode:
    """One redis server of a shard; `bootstrap_master` is only about the very first start."""

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
    listens: Mapping[str, Endpoint]
    admin: Endpoint
    stats: Endpoint
    address: str

    def reach(self, pool: str) -> Endpoint:
        """Where clients connect: the listening endpoint, with the host's address in place of a wildcard."""
        listen = self.listens[pool]
        return Endpoint(self.address, listen.port) if is_wildcard(listen.host) else listen


Node = RedisNode | SentinelNode | ProxyNode


@dataclass(frozen=True, slots=True)
class Layout:
    """All nodes, in the order they are written: shards (master first), sentinels, proxies."""

    topology: Topology
    redis: tuple[RedisNode, ...]
    sentinels: tuple[SentinelNode, ...]
    proxies: tuple[ProxyNode, ...]

    def shard_nodes(self, shard: str) -> tuple[RedisNode, ...]:
        return tuple(node for node in self.redis if node.shard == shard)

    def proxy(self, name: str) -> ProxyNode:
        """The proxy of that name; KeyError if there is none."""
        for node in self.proxies:
            if node.name == name:
                return node
        raise KeyError(name)

    def nodes(self) -> tuple[Node, ...]:
        return (*self.redis, *self.sentinels, *self.proxies)

    def on_host(self, host: str) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes() if node.host == host)


@dataclass(frozen=True, slots=True)
class Slot:
    """One listening socket: who has it, the key path that asks for it, and its port if the file gives one."""

    key: str
    path: Path
    host: str
    bind: str
    port: int | None
    usual: int
    machine: str
    """Equal for two sockets that share port numbers: one address, or any of loopback's."""


def redis_name(shard: str, number: int) -> str:
    """The name of a shard's node; 1 is the master of the first start."""
    return f"{shard}-{number}"


def sentinel_name(number: int) -> str:
    return f"sentinel{number}"


def slots(topology: Topology) -> Iterator[Slot]:
    """Every listening socket of the topology, in the order of the layout."""
    for shard, spec in topology.shards.items():
        paths: list[Path] = [("master",), *(("replicas", index) for index in range(len(spec.replicas)))]
        for number, (path, place) in enumerate(zip(paths, (spec.master, *spec.replicas), strict=True), 1):
            yield _placed(topology, redis_name(shard, number), ("shards", shard, *path), place, REDIS_PORT)
    for index, place in enumerate(topology.sentinel.nodes):
        path = ("sentinel", "nodes", index)
        yield _placed(topology, sentinel_name(index + 1), path, place, SENTINEL_PORT)
    for name in topology.proxy.nodes:
        yield from _proxy_slots(topology, name)


def _placed(topology: Topology, key: str, path: Path, place: Place, usual: int) -> Slot:
    address = topology.address(place.host)
    return Slot(key, path, place.host, address, place.port, usual, _machine(address))


def _proxy_slots(topology: Topology, name: str) -> Iterator[Slot]:
    node = topology.proxy.nodes[name]
    address = topology.address(node.host)
    machine = _machine(address)
    here: Path = ("proxy", "nodes", name)
    for pool, spec in topology.pools.items():
        bind, port = listening(spec.listen) if spec.listen else (None, None)
        path: Path = ("pools", pool, "listen") if port else here
        if node.port is not None and len(topology.pools) == 1:
            port, path = node.port, (*here, "port")
        if bind is None:
            bind = "0.0.0.0" if topology.vip else address  # noqa: S104  the VIP is not on the host at start
        yield Slot(f"{name}.{pool}", path, node.host, bind, port, PROXY_PORT, machine)
    yield Slot(f"{name}.admin", (*here, "admin"), node.host, LOOPBACK, node.admin, ADMIN_PORT, machine)
    yield Slot(f"{name}.stats", (*here, "stats"), node.host, LOOPBACK, node.stats, STATS_PORT, machine)


def listening(listen: str) -> tuple[str | None, int | None]:
    """Split a pool's `listen`: "0.0.0.0:22121", ":22121" or "22121"; ValueError if it is neither."""
    if listen.removeprefix(":").isdigit():
        return None, split_port(f"any:{listen.removeprefix(':')}")[1]
    return split_port(listen)


def _machine(address: str) -> str:
    return "loopback" if is_loopback(address) else address


def ports_to_choose(topology: Topology) -> tuple[str, ...]:
    """The keys of the ports that must be chosen on this machine before the layout is known."""
    return tuple(slot.key for slot in slots(topology) if _must_choose(slot))


def _must_choose(slot: Slot) -> bool:
    return slot.port is None and slot.machine == "loopback"


def _resolve(topology: Topology, chosen: Mapping[str, int]) -> dict[str, Endpoint]:
    """Give every slot its endpoint; two slots that end on one port are an error that names both."""
    wanted = list(slots(topology))
    taken = {(slot.machine, slot.port): slot.key for slot in wanted if slot.port is not None}
    endpoints: dict[str, Endpoint] = {}
    for slot in wanted:
        port = slot.port
        if port is None and _must_choose(slot):
            port = chosen.get(slot.key)
            if port is None:
                raise ConfigError(
                    f'no port is chosen yet for "{slot.key}"',
                    hint="start the cluster once with `shoal up`, or give the port in the file",
                )
        elif port is None:
            port = next(p for p in range(slot.usual, 65536) if (slot.machine, p) not in taken)
        owner = taken.setdefault((slot.machine, port), slot.key)
        if owner != slot.key:
            raise ConfigError(f'"{slot.key}" and "{owner}" would both listen on port {port} of {slot.bind}')
        endpoints[slot.key] = Endpoint(slot.bind, port)
    return endpoints


def lay_out(topology: Topology, chosen: Mapping[str, int]) -> Layout:
    """The layout, with `chosen` for the ports that the file leaves open; ConfigError names one that is missing."""
    at = _resolve(topology, chosen)
    redis = [
        RedisNode(name := redis_name(shard, number), shard, place.host, at[name], number == 1)
        for shard, spec in topology.shards.items()
        for number, place in enumerate((spec.master, *spec.replicas), 1)
    ]
    sentinels = [
        SentinelNode(name := sentinel_name(number), place.host, at[name])
        for number, place in enumerate(topology.sentinel.nodes, 1)
    ]
    proxies = [
        ProxyNode(
            name=name,
            host=node.host,
            listens={pool: at[f"{name}.{pool}"] for pool in topology.pools},
            admin=at[f"{name}.admin"],
            stats=at[f"{name}.stats"],
            address=topology.address(node.host),
        )
        for name, node in topology.proxy.nodes.items()
    ]
    return Layout(topology, tuple(redis), tuple(sentinels), tuple(proxies))
