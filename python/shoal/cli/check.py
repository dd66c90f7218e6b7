"""`shoal check`: validates a topology file and prints what it means."""

from collections.abc import Iterator, Sequence
from typing import Any

from shoal import commands, config
from shoal.cli.options import DEFAULT_FILE, FileOption, JsonOption
from shoal.cli.printer import Printer
from shoal.cli.ring import ring_of
from shoal.cli.text import table
from shoal.engine import find_engine
from shoal.topology import (
    LOCAL,
    Endpoint,
    Layout,
    Pool,
    ProxyNode,
    Topology,
    lay_out,
    ports_to_choose,
    warnings,
)

TO_CHOOSE = 0
"""Stands for a port that `shoal up` will choose."""


def command(file: FileOption = DEFAULT_FILE, as_json: JsonOption = False) -> int:
    """Validate a topology file and print what it means."""
    topology = config.load(file)
    commands.refuse_unknown(topology)
    layout = lay_out(topology, dict.fromkeys(ports_to_choose(topology), TO_CHOOSE))
    if topology.engine is not None and layout.on_host(LOCAL):
        with config.located(file):
            find_engine(topology.engine)
    printer = Printer()
    if as_json:
        printer.json({"file": str(file), **_meaning(layout), "warnings": warnings(topology)})
        return 0
    for line in _lines(layout):
        printer.data(line)
    for sentence in warnings(topology):
        printer.warning(sentence)
    printer.talk(f"{file}: valid")
    return 0


def _may_be_lost(topology: Topology) -> int:
    """Sentinels that may be lost while a failover still happens."""
    return len(topology.sentinel.nodes) - topology.sentinel.quorum


# ---------------------------------------------------------------------------------------------------------- for people


def _lines(layout: Layout) -> Iterator[str]:
    topology = layout.topology
    yield f"cluster {topology.cluster}"
    yield ""
    yield from table(_without_empty([("shard", "label", "node", "at first", "host", "endpoint"), *_shard_rows(layout)]))
    yield ""
    yield from table([("pool", "shard", "of the ring", "how"), *_pool_rows(topology)])
    yield ""
    yield from table([("sentinel", "host", "endpoint"), *_sentinel_rows(layout)])
    yield _quorum_line(topology)
    yield ""
    pools = [f"clients of {pool}" if len(topology.pools) > 1 else "clients" for pool in topology.pools]
    yield from table([("proxy", "host", *pools, "admin", "statistics"), *map(_proxy_row, layout.proxies)])
    if ports_to_choose(topology):
        yield ""
        yield "* a free port, chosen at the first `shoal up` and kept"


def _shard_rows(layout: Layout) -> Iterator[tuple[str, ...]]:
    for shard in layout.topology.shards:
        name, label = shard, layout.topology.shards[shard].label or ""
        for node in layout.shard_nodes(shard):
            role = "master" if node.bootstrap_master else "replica"
            yield name, label, node.name, role, node.host, _shown(node.endpoint)
            name = label = ""


def _pool_rows(topology: Topology) -> Iterator[tuple[str, ...]]:
    for pool, spec in topology.pools.items():
        name, how = pool, _how(spec)
        for shard, share in _shares(topology, pool).items():
            yield name, shard, f"{share:.1%}", how
            name = how = ""


def _shares(topology: Topology, pool: str) -> dict[str, float]:
    names = topology.labels(pool)
    return {names[label]: share for label, share in ring_of(topology, pool).shares().items()}


def _how(spec: Pool) -> str:
    tag = "" if spec.hash_tag is None else f", hash tag {spec.hash_tag}"
    reads = "" if spec.reads == "master" else f", reads: {spec.reads}, max_lag {_seconds(spec.max_lag)}"
    return f"{spec.hash}, {spec.distribution}{tag}{reads}"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"


def _sentinel_rows(layout: Layout) -> Iterator[tuple[str, ...]]:
    return ((node.name, node.host, _shown(node.endpoint)) for node in layout.sentinels)


def _quorum_line(topology: Topology) -> str:
    count, lost = len(topology.sentinel.nodes), _may_be_lost(topology)
    return f"quorum {topology.sentinel.quorum} of {count}: {lost or 'none'} of them may be lost"


def _proxy_row(node: ProxyNode) -> tuple[str, ...]:
    return node.name, node.host, *map(_shown, (*node.listens.values(), node.admin, node.stats))


def _shown(endpoint: Endpoint) -> str:
    return str(endpoint) if endpoint.port != TO_CHOOSE else str(endpoint).removesuffix(str(TO_CHOOSE)) + "*"


def _without_empty(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """The rows without the columns that have nothing but a heading."""
    kept = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
    return [[row[index] for index in kept] for row in rows]


# -------------------------------------------------------------------------------------------------------- for programs


def _meaning(layout: Layout) -> dict[str, Any]:
    topology = layout.topology
    return {
        "cluster": topology.cluster,
        "shards": [
            {
                "name": name,
                "label": topology.label(name),
                "weight": shard.weight,
                "nodes": [
                    {"name": node.name, "host": node.host, **_endpoint(node.endpoint), "master": node.bootstrap_master}
                    for node in layout.shard_nodes(name)
                ],
            }
            for name, shard in topology.shards.items()
        ],
        "pools": [
            {
                "name": name,
                "hash": spec.hash,
                "distribution": spec.distribution,
                "hash_tag": spec.hash_tag,
                "reads": spec.reads,
                **({} if spec.reads == "master" else {"max_lag_ms": spec.max_lag}),
                "shares": _shares(topology, name),
            }
            for name, spec in topology.pools.items()
        ],
        "sentinels": {
            "nodes": [{"name": node.name, "host": node.host, **_endpoint(node.endpoint)} for node in layout.sentinels],
            "quorum": topology.sentinel.quorum,
            "may_be_lost": _may_be_lost(topology),
        },
        "proxies": [
            {
                "name": node.name,
                "host": node.host,
                "listens": {pool: _endpoint(endpoint) for pool, endpoint in node.listens.items()},
                "admin": _endpoint(node.admin),
                "stats": _endpoint(node.stats),
            }
            for node in layout.proxies
        ],
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {"address": endpoint.host, "port": None if endpoint.port == TO_CHOOSE else endpoint.port}
