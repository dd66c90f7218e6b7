"""Before anything is started: which parts are for this machine, on which ports, and does the state directory fit them.

Rule: whatever can be refused is refused here, while nothing runs yet: another cluster's directory, a ring that would
move keys, an address that the sentinels know a node by, a port that somebody else is on.

    topology + ports.json ─► layout ─► fits cluster.json? ─► adopt what still runs (units.json) ─► other ports free?

Called by the supervisor, with the state directory locked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal import ports, state
from shoal.commands import refuse_unknown
from shoal.errors import ConfigError, StateError
from shoal.parts import Part, kind_of, listening, main_endpoint
from shoal.process import Process
from shoal.state import UnitRecord
from shoal.topology import LOCAL, Layout, ProxyNode, Topology, lay_out, ports_to_choose

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.topology import Node


@dataclass(frozen=True)
class Opened:
    """What there is to supervise, and what an earlier supervisor left that is to be stopped."""

    layout: Layout
    parts: dict[str, Part]
    leftovers: dict[str, Process]
    identity: state.Identity
    """To be remembered once everything has started: from then on addresses and rings are fixed."""


def open_cluster(topology: Topology, kept: state.State, host: str | None) -> Opened:
    """Lay the topology out on this machine and check it against what the state directory remembers."""
    refuse_unknown(topology)
    layout = lay_out(topology, _chosen_ports(topology, kept))
    hosts = hosts_here(topology, layout, host)
    identity = state.load_identity(kept.directory) or state.Identity(cluster=topology.cluster)
    require_fit(identity, layout)
    records = state.load_units(kept.directory)
    parts = {node.name: _part(node, node.host in hosts, records.get(node.name)) for node in layout.nodes()}
    return Opened(layout, parts, _adopt(parts, records), identity.model_copy(update=_shape(identity, layout)))


def require_free_ports(parts: Iterable[Part]) -> None:
    """Check every port that is still to be bound on this machine."""
    wanted = (part.node for part in parts if part.here and not part.up)
    ports.require_free({label: endpoint for node in wanted for label, endpoint in listening(node).items()})


def _chosen_ports(topology: Topology, kept: state.State) -> dict[str, int]:
    known = state.load_ports(kept.directory)
    missing = [key for key in ports_to_choose(topology) if key not in known]
    if not missing:
        return known
    given = {port for port in _given_ports(topology) if port}
    known |= ports.choose(missing, avoid={*known.values(), *given})
    kept.remember_ports(known)
    return known


def _given_ports(topology: Topology) -> Iterable[int | None]:
    for shard in topology.shards.values():
        yield from (place.port for place in (shard.master, *shard.replicas))
    yield from (place.port for place in topology.sentinel.nodes)
    for proxy in topology.proxy.nodes.values():
        yield from (proxy.port, proxy.admin, proxy.stats)


def hosts_here(topology: Topology, layout: Layout, host: str | None) -> frozenset[str]:
    """The hosts of the topology that are this machine: the one that is named, or all whose address it has."""
    named = {node.host for node in layout.nodes()}
    if host is not None:
        if host not in named:
            raise ConfigError(f'no part runs on host "{host}"', hint=f"hosts with parts: {', '.join(sorted(named))}")
        return frozenset({host})
    here = frozenset(name for name in named if name == LOCAL or ports.is_local(topology.address(name)))
    if not here:
        raise ConfigError(
            "no part of the topology runs on this machine",
            where=", ".join(f"{name} = {topology.address(name)}" for name in sorted(named)),
            hint="say which host this is with --host NAME",
        )
    return here


# --------------------------------------------------------------------------------------------------------------- fit


def require_fit(identity: state.Identity, layout: Layout) -> None:
    """Refuse a topology under which keys would be looked for elsewhere, or sentinels would look for nodes elsewhere."""
    for node in layout.nodes():
        before = identity.parts.get(node.name)
        if before is not None and not isinstance(node, ProxyNode) and before != str(node.endpoint):
            raise StateError(
                f"{node.name} was at {before}, is to be at {node.endpoint} now, and sentinels know it by its address",
                hint="put the old address back, or start anew with another --state DIR",
            )
    for pool, ring in rings(layout.topology).items():
        kept = identity.rings.get(pool)
        if kept is not None and kept != ring:
            raise StateError(
                f'pool "{pool}" had another ring: {_difference(kept, ring)}; its keys would be looked for elsewhere',
                hint="put it back, or start anew with another --state DIR",
            )


def rings(topology: Topology) -> dict[str, dict[str, Any]]:
    """What decides where each pool's keys are."""
    return {
        name: {
            "hash": pool.hash,
            "distribution": pool.distribution,
            "hash_tag": pool.hash_tag,
            "shards": {label: topology.shards[shard].weight for label, shard in sorted(topology.labels(name).items())},
        }
        for name, pool in topology.pools.items()
    }


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    return "; ".join(f"{key} was {before.get(key)}, is {now[key]}" for key in now if before.get(key) != now[key])


def _shape(identity: state.Identity, layout: Layout) -> dict[str, Any]:
    parts = {node.name: str(main_endpoint(node)) for node in layout.nodes()}
    return {"parts": identity.parts | parts, "rings": identity.rings | rings(layout.topology)}


# ------------------------------------------------------------------------------------------------------------- parts


def _part(node: Node, here: bool, record: UnitRecord | None) -> Part:
    endpoint = str(main_endpoint(node))
    if record is None:
        return Part(node, here, UnitRecord(kind=kind_of(node), endpoint=endpoint))
    part = Part(node, here, record)
    if here and record.endpoint == endpoint:
        part.process = Process.adopt(record.pid, record.started)
    return part


def _adopt(parts: dict[str, Part], records: dict[str, UnitRecord]) -> dict[str, Process]:
    """Processes of an earlier supervisor that no part of the topology stands for any more."""
    leftovers = {}
    for name, record in records.items():
        part = parts.get(name)
        if part is not None and part.up:
            continue
        process = Process.adopt(record.pid, record.started)
        if process is not None:
            leftovers[name] = process
        if part is not None:
            part.remember(pid=None, started=None, endpoint=str(main_endpoint(part.node)))
    return leftovers
