"""What works in a topology but will disappoint: a sentence each, for `shoal check`."""

from collections.abc import Iterator

from shoal.topology.layout import slots
from shoal.topology.model import Topology, majority
from shoal.topology.rules import outside_loopback

CLIENT_TIMEOUT_MS = 5000
SAFE_DOWN_AFTER_MS = 1200
"""Below this a sentinel with its own ping period often takes the master it has just switched to for dead (measured)."""
PROMOTION_MS = 1500
"""From the sentinels' verdict to a proxy that sends to the new master, with a little to spare (0.9 s measured)."""


def warnings(topology: Topology) -> list[str]:
    """What works but will disappoint, a sentence each."""
    return [
        *_sentinel_warnings(topology),
        *_shard_warnings(topology),
        *(line for pool in topology.pools for line in _pool_warnings(topology, pool)),
        *_security_warnings(topology),
    ]


def _sentinel_warnings(topology: Topology) -> Iterator[str]:
    count = len(topology.sentinel.nodes)
    least = majority(count)
    if count < 3:
        yield f"{count} sentinel{'s' * (count > 1)}: none may be lost, or no failover happens; use 3"
    elif count % 2 == 0:
        yield f"{count} sentinels: no more may be lost than with {count - 1}, as a majority is {least}; use {count + 1}"
    hosts = [place.host for place in topology.sentinel.nodes]
    if _several_machines(topology):
        for host in dict.fromkeys(hosts):
            if count - hosts.count(host) < least:
                yield f'losing host "{host}" loses the majority of the sentinels, and no failover happens'
    down_after = topology.sentinel.down_after
    if down_after < 1000:
        yield f"down_after {_seconds(down_after)}: a slow command may look like a dead master"
    elif down_after < SAFE_DOWN_AFTER_MS:
        yield (
            f"down_after {_seconds(down_after)}: a sentinel that `shoal up` does not run may take a new master for "
            f"dead, as it reconnects only once a second; give it {_seconds(SAFE_DOWN_AFTER_MS)} or more"
        )


def _shard_warnings(topology: Topology) -> Iterator[str]:
    for name, shard in topology.shards.items():
        if not shard.replicas:
            yield f'shard "{name}" has no replica: if its master is lost, so is its data until it is back'
        elif _several_machines(topology) and all(place.host == shard.master.host for place in shard.replicas):
            yield f'shard "{name}" is on host "{shard.master.host}" alone, and lost with it'
        if topology.fence_direct_clients and len(shard.replicas) == 1:
            yield f'shard "{name}" has one replica and fence_direct_clients: losing the replica stops its writes'
    if len(topology.proxy.nodes) == 1:
        yield "1 proxy: while it is down, nothing answers"


def _pool_warnings(topology: Topology, pool: str) -> Iterator[str]:
    spec = topology.pools[pool]
    hold, least = spec.hold.timeout, topology.sentinel.down_after + PROMOTION_MS
    if hold >= CLIENT_TIMEOUT_MS:
        yield (
            f'pool "{pool}" holds requests for {_seconds(hold)}, but redis-py gives up after '
            f"{_seconds(CLIENT_TIMEOUT_MS)} by default: its users see timeouts before a failover is over"
        )
    if hold < least:
        yield (
            f'pool "{pool}" holds requests for {_seconds(hold)}, but a failover takes about {_seconds(least)} with '
            f"down_after {_seconds(topology.sentinel.down_after)}: its users see errors"
        )
    if spec.lease != "require":
        yield f'pool "{pool}" has lease: {spec.lease}: a master that was replaced may still take writes, which are lost'
    if spec.reads == "master" and "max_lag" in spec.model_fields_set:
        yield f'pool "{pool}" has a max_lag, but reads: master: nothing reads from replicas'
    if spec.reads != "master" and not any(topology.shards[name].replicas for name in topology.ring_order(pool)):
        yield f'pool "{pool}" has reads: {spec.reads}, but no shard of it has a replica: its masters answer everything'
    if spec.distribution == "random":
        yield f'pool "{pool}" is distributed at random: a key is found again only by chance'
    elif spec.hash == "crc32" and spec.distribution == "ketama" and len(topology.ring_order(pool)) > 1:
        yield f'pool "{pool}" hashes with crc32, which has 15 bits: nearly every key is on one shard; crc32a has 32'


def _security_warnings(topology: Topology) -> Iterator[str]:
    exposed = next(outside_loopback(topology), None)
    if topology.insecure and not topology.auth.enabled and exposed is not None:
        yield f"{exposed.key} listens outside loopback without a password (insecure: true)"
    if topology.vip is not None:
        yield "vip is checked but not used yet in this release"


def _several_machines(topology: Topology) -> bool:
    return len({slot.machine for slot in slots(topology)}) > 1


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"
