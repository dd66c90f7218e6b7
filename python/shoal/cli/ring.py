"""The ring of a pool, as its proxies build it; for the commands that explain where keys are."""

from shoal.plane import Ring, ShardSpec
from shoal.topology import Topology


def ring_of(topology: Topology, pool: str) -> Ring:
    """The ring of a pool: its shards in the one order all processes use, with their weights."""
    spec = topology.pools[pool]
    shards = [ShardSpec(name, topology.shards[name].weight) for name in topology.ring_order(pool)]
    return Ring(shards, spec.hash, spec.distribution, spec.hash_tag)
