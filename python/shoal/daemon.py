"""The process `shoal proxy`: one node's data plane, the watch that steers it, and its admin HTTP, from start to drain.

    start   admin port, client ports (in use: PortInUseError, nothing was started) ─► watch ─► first masters
    run     Watch ─► Follower ─► Plane            requests flow without Python; leases do not outlive it
    end     SIGTERM or SIGINT: no new clients, requests in flight are finished (DRAIN_MS), exit 0

Rule: the daemon only puts parts together and ends them; whatever a part raises ends the process, and its supervisor
starts it anew. With `lease: require` it refuses to serve beside sentinels that are not as the topology says.
Called by `cli.proxy`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from shoal.admin import AdminServer, PoolFace, Subject
from shoal.errors import ConfigError, SentinelError, ShoalError
from shoal.follow import Follower, PoolRule, ask_role
from shoal.plane import Plane, PoolSpec, ShardSpec
from shoal.sentinel import LeaseRule
from shoal.watch import Watch, boot_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.log import Log
    from shoal.topology import Layout, ProxyNode, Topology

DRAIN_MS = 2000
VET_LOOK = 0.02


def serve(layout: Layout, node_name: str, log: Log) -> None:
    """Run one proxy of a layout until a signal ends it."""
    try:
        node = layout.proxy(node_name)
    except KeyError:
        names = ", ".join(proxy.name for proxy in layout.proxies)
        raise ConfigError(f'there is no proxy "{node_name}"', hint=f"the topology has {names}") from None
    asyncio.run(Daemon(layout, node, log).run())


def pool_specs(topology: Topology, node: ProxyNode) -> list[PoolSpec]:
    """What the workers need to know of each pool on this node."""
    secret = topology.auth.password
    password = None if secret is None else secret.get_secret_value()
    return [
        PoolSpec(
            name=name,
            listen=str(node.listens[name]),
            shards=tuple(ShardSpec(shard, topology.shards[shard].weight) for shard in topology.ring_order(name)),
            hash=pool.hash,
            distribution=pool.distribution,
            hash_tag=pool.hash_tag,
            password=password,
            backend_password=password,
            hold_timeout_ms=pool.hold.timeout,
            hold_bytes=pool.hold.bytes,
            timeout_ms=pool.timeout,
            client_connections=pool.client_connections,
            max_inflight=topology.proxy.max_inflight,
        )
        for name, pool in topology.pools.items()
    ]


def strictest(rules: Iterator[LeaseRule]) -> LeaseRule:
    """The rule that sentinels are counted by when pools differ."""
    order = list(LeaseRule)
    return min(rules, key=order.index)


def pool_faces(topology: Topology, node: ProxyNode) -> list[PoolFace]:
    """Each pool as the admin HTTP shows it."""
    return [
        PoolFace(
            name=name,
            listen=node.listens[name],
            shards=topology.ring_order(name),
            lease=LeaseRule(pool.lease),
            hash=pool.hash,
            distribution=pool.distribution,
        )
        for name, pool in topology.pools.items()
    ]


class Daemon:
    """One proxy process. Making it binds the admin port, `run` does the rest."""

    def __init__(self, layout: Layout, node: ProxyNode, log: Log) -> None:
        topology = layout.topology
        specs = pool_specs(topology, node)
        pools = pool_faces(topology, node)
        password = specs[0].password
        self._log = log
        self._node = node
        self._plane = Plane(specs, topology.proxy.workers or os.cpu_count() or 1)
        self._follower = Follower(
            self._plane,
            [PoolRule(pool.name, pool.shards, pool.lease) for pool in pools],
            lambda endpoint: ask_role(endpoint, password),
            log,
        )
        self._watch = Watch(
            [sentinel.endpoint for sentinel in layout.sentinels],
            list(dict.fromkeys(shard for pool in pools for shard in pool.shards)),
            password=password,
            on_change=self._follower.take,
            lease=strictest(pool.lease for pool in pools),
        )
        self._subject = Subject(node.name, pools, self._plane, lambda: self._watch.view, boot_ns, password)
        self._admin = AdminServer(self._subject, node.admin)

    async def run(self) -> None:
        """Start, serve, drain."""
        try:
            self._plane.start()
        except ShoalError:
            self._admin.close()
            raise
        listens = {pool.name: str(pool.listen) for pool in self._subject.pools}
        self._log.event("proxy_started", node=self._node.name, listens=listens, admin=str(self._node.admin))
        try:
            await self._serve()
        except BaseExceptionGroup as group:
            raise _what_a_user_can_mend(group) from None
        finally:
            self._plane.stop(0)
            self._admin.close()
        self._log.event("proxy_stopped", node=self._node.name)

    async def _serve(self) -> None:
        """Serve until a signal, then drain: leases are kept to the end."""
        ended = self._signals()
        async with asyncio.TaskGroup() as group:
            admin = group.create_task(self._admin.run(), name="admin")
            steering = [
                group.create_task(self._watch.run(), name="watch"),
                group.create_task(self._follower.run(self._watch), name="follow"),
                group.create_task(vet(self._watch), name="vet"),
            ]
            await ended.wait()
            self._subject.draining = True
            self._log.event("proxy_draining", node=self._node.name, limit_ms=DRAIN_MS)
            await asyncio.to_thread(self._plane.stop, DRAIN_MS)
            for task in steering:
                task.cancel()
            self._admin.stop()
            await admin

    def _signals(self) -> asyncio.Event:
        """An event that SIGTERM and SIGINT set."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._log.event("reload_ignored", node=self._node.name))
        return ended


async def vet(watch: Watch) -> None:
    """Refuse to start beside sentinels that are not as the topology says; later on that is only reported."""
    if watch.lease is not LeaseRule.REQUIRE:
        return
    while 2 * watch.view.heard <= len(watch.sentinels):  # noqa: ASYNC110  a view is no event
        await asyncio.sleep(VET_LOOK)
    problems = watch.view.problems
    if problems:
        hint = "list every sentinel and use a majority as quorum, or say `lease: unsafe`"
        raise SentinelError(f"the lease would not be safe: {'; '.join(problems)}", hint=hint)


def _what_a_user_can_mend(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of Shoal's own errors in the group; without one it is a bug, and the group says where."""
    found: BaseException | None = group.subgroup(ShoalError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found or group
