"""The ring of a pool, as its proxies build it; for the commands that explain where keys are."""

from shoal.plane import Ring, ShardSpec
from shoal.topology import Topology


def ring_of(topology: Topology, pool: str) -> Ring:
    """The ring of a pool: its shards' labels in the one order all processes use, with their weights."""
    spec = topology.pools[pool]
    shards = [ShardSpec(label, topology.shards[name].weight) for label, name in topology.labels(pool).items()]
    return Ring(shards, spec.hash, spec.distribution, spec.hash_tag)
