"""The scenario of a failover: what clients of one shard feel while another shard's master is killed.

Rule: the load stays on one shard by asking for one key only; the shard that loses its master is another. When the
sample is taken, the cluster is whole again. Called by `rows`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from shoal.bench import loads, throughput
from shoal.bench.loads import LOADS
from shoal.plane import Ring, ShardSpec

if TYPE_CHECKING:
    from shoal.bench.figures import Sample
    from shoal.bench.stage import Stage
    from shoal.bench.subjects import Subject
    from shoal.cluster import Cluster

LOAD = replace(LOADS["get"], keys=1, requests=200_000)
"""Long enough to begin with a master and to go on after the failover; keys=1 makes redis-benchmark ask for key 0."""
PATIENCE = 60.0


def beside_a_failover(stage: Stage, subject: Subject) -> Sample:
    """Throughput and latencies of a shard before and during the failover of another one."""
    cluster = stage.cluster
    steady = loads.read_report(throughput.send(LOAD, subject.port, LOAD.requests // 4))
    asked = _shard_of(cluster, loads.key(0))
    victim = next(shard for shard in cluster.layout.topology.shards if shard != asked)
    cluster.kill(cluster.master_of(victim).name)
    during = loads.read_report(throughput.send(LOAD, subject.port, LOAD.requests))
    cluster.wait_until_well(PATIENCE)
    return {**during, "steady_per_second": steady["requests_per_second"]}


def _shard_of(cluster: Cluster, key: str) -> str:
    topology = cluster.layout.topology
    (pool,) = topology.pools.values()
    specs = [ShardSpec(name, shard.weight) for name, shard in topology.shards.items()]
    return Ring(specs, pool.hash, pool.distribution, pool.hash_tag).locate(key.encode()).shard
