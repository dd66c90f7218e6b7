"""The main job on this machine: a cluster comes up, a master is killed under load, every promise is judged.

Owns: the order of the story and its report. Rule: what is told was measured in this run; the verdict is that of
`promises`, and nothing runs any more when the story ends, however it ends.
Called by `shoal demo`, which shows it.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import redis

from shoal.cluster import Cluster
from shoal.errors import ProcessError
from shoal.hosts import LOG_NAME
from shoal.plane import Ring, ShardSpec
from shoal.promises import Evidence, Promise, gap, judge
from shoal.stalls import StallWatch
from shoal.state import node_directory
from shoal.timeline import Moment, SentinelEars, proxy_moments
from shoal.traffic import Outcome, Traffic, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

DOWN_AFTER = "1000ms"
STEADY = 3.0
"""Seconds of traffic before the kill."""
AFTERWARDS = 2.0
"""And after the shard takes writes again."""
PATIENCE = 20.0
REJOIN_PATIENCE = 20.0
HELD_FOR = 0.15
"""A client that has waited this long for an answer has its request held."""
TELL_AFTER = 1.0
BATCH = 1000


class Audience(Protocol):
    """Whoever watches: gets lines, and the cluster to look at while it runs."""

    def chapter(self, title: str) -> None: ...
    def line(self, text: str) -> None: ...
    def watching(self, cluster: Cluster) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Report:
    """How the story ended."""

    shard: str
    gap_seconds: float
    slowest_elsewhere_ms: float
    acknowledged: Mapping[str, int]
    in_doubt: Sequence[str]
    errors: Mapping[str, int]
    promises: Sequence[Promise]
    left_running: Sequence[int]

    @property
    def kept(self) -> bool:
        return all(promise.kept for promise in self.promises) and not self.left_running


def run(audience: Audience) -> Report:
    """Tell the whole story; the cluster it needs is gone when this returns or raises."""
    started = time.monotonic()
    audience.chapter("A cluster: 2 shards with a replica each, 3 sentinels, 2 proxies")
    with Cluster(shards=["a", "b"], replicas=1, sentinel={"down_after": DOWN_AFTER}) as cluster:
        processes = set(psutil.Process().children(recursive=True))
        audience.line(f"up after {time.monotonic() - started:.1f} s: {len(processes)} processes, all on 127.0.0.1")
        host, port = cluster.address
        audience.line(f"clients connect to {host}:{port}, as to one Redis")
        with audience.watching(cluster):
            evidence = _Story(cluster, audience).tell()
        processes |= set(psutil.Process().children(recursive=True))
        audience.chapter("Stopping")
    left = [process.pid for process in processes if _runs(process)]
    audience.line("nothing is left running" if not left else f"still running: {left}")
    return _report(evidence, left)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class _Story:
    """One run over one cluster."""

    def __init__(self, cluster: Cluster, audience: Audience) -> None:
        self.cluster = cluster
        self.audience = audience
        topology = cluster.layout.topology
        (pool,) = topology.pools.values()
        specs = [ShardSpec(name, shard.weight) for name, shard in topology.shards.items()]
        ring = Ring(specs, pool.hash, pool.distribution, pool.hash_tag)
        self.shards = list(topology.shards)
        self.victim = self.shards[0]
        self.masters = {shard: cluster.master_of(shard) for shard in self.shards}
        self.traffic = Traffic(cluster.address, self.shards, lambda key: ring.locate(key).shard, password=None)

    def tell(self) -> Evidence:
        sentinels = {node.name: node.endpoint for node in self.cluster.layout.sentinels}
        other = self.masters[self.shards[1]].endpoint
        names = [self.cluster.layout.proxies[0].name, self.masters[self.shards[1]].name]
        pids = [os.getpid(), *(pid for name in names if (pid := self.cluster.pid(name)))]
        with SentinelEars(sentinels, None) as ears, StallWatch((other.host, other.port), pids) as stalls:
            self.traffic.start()
            try:
                self._steady()
                killed_at = self._kill()
                self._wait_for_writes(killed_at)
                time.sleep(AFTERWARDS)
                self._timeline(killed_at, ears.moments())
                self._rejoin()
            finally:
                self.traffic.stop()
        self.audience.chapter("Reading every acknowledged key back, from the master of its shard")
        return Evidence(
            self.victim,
            killed_at,
            {shard: self.traffic.attempts(shard) for shard in self.shards},
            self._homes(),
            stalls.seen,
        )

    def _steady(self) -> None:
        self.audience.chapter("Traffic: ordinary redis-py clients write and read through proxy1")
        time.sleep(STEADY)
        for shard in self.shards:
            slowest = max((one.took for one in self.traffic.attempts(shard)), default=0.0)
            count = self.traffic.acknowledged(shard)
            self.audience.line(f'shard "{shard}": {count} writes acknowledged, slowest request {slowest * 1000:.1f} ms')
        if not all(self.traffic.acknowledged(shard) for shard in self.shards):
            first = next((one for shard in self.shards for one in self.traffic.attempts(shard) if one.error), None)
            message = "no write was acknowledged before anything was killed"
            raise ProcessError(message, where=first.error if first else None)

    def _kill(self) -> float:
        node = self.masters[self.victim].name
        self.audience.chapter(f'kill -9 of {node}, the master of shard "{self.victim}", while traffic flows')
        killed_at = time.monotonic()
        self.cluster.kill(node)
        return killed_at

    def _wait_for_writes(self, killed_at: float) -> None:
        other = self.shards[1]
        told, before = False, self.traffic.acknowledged(other)
        while not self._wrote_since(killed_at + HELD_FOR):
            if not told and time.monotonic() > killed_at + TELL_AFTER:
                told = True
                waiting, written = (
                    self.traffic.waiting(self.victim, HELD_FOR),
                    self.traffic.acknowledged(other) - before,
                )
                self.audience.line(f'{TELL_AFTER:g} s later: clients of shard "{self.victim}" that wait: {waiting}')
                self.audience.line(f'             writes acknowledged by shard "{other}" meanwhile: {written}')
            if time.monotonic() > killed_at + PATIENCE:
                message = f'shard "{self.victim}" took no write for {PATIENCE:.0f} s after its master was killed'
                raise ProcessError(message)
            time.sleep(0.02)

    def _wrote_since(self, moment: float) -> bool:
        writes = (one for writer in self.traffic.writers if writer.shard == self.victim for one in writer.attempts[-3:])
        return any(one.outcome is Outcome.OK and one.ended > moment for one in writes)

    def _timeline(self, killed_at: float, heard: list[Moment]) -> None:
        self.audience.chapter("What happened, in seconds since the kill")
        directory = self.cluster.state_directory
        logs = {
            node.name: node_directory(directory, node.name, "proxy") / LOG_NAME for node in self.cluster.layout.proxies
        }
        moments = [*heard, *proxy_moments(logs), *self._own_moments(killed_at)]
        seen: set[tuple[str, str]] = set()
        for moment in sorted(moments):
            kind = (moment.what, "sentinel" if moment.who.startswith("sentinel") else moment.who)
            if moment.shard != self.victim or moment.at < killed_at - 0.01 or kind in seen:
                continue
            seen.add(kind)  # of the sentinels, the first one to say so
            self.audience.line(f"{moment.at - killed_at:7.3f}  {moment.who:<10} {moment.what}")

    def _own_moments(self, killed_at: float) -> list[Moment]:
        """What the clients saw."""
        attempts = self.traffic.attempts(self.victim)
        done = [one for one in attempts if one.write and one.outcome is Outcome.OK and one.ended > killed_at + HELD_FOR]
        moments = [Moment(killed_at, "demo", "kill -9", self.victim)]
        if done:
            first = min(done, key=lambda one: one.ended)
            moments.append(
                Moment(first.ended, "client", f"first write acknowledged (waited {first.took:.2f} s)", first.shard)
            )
        moments += [
            Moment(one.ended, "client", f"told that {one.key} is in doubt: sent, not confirmed", one.shard)
            for one in attempts
            if one.outcome is Outcome.IN_DOUBT
        ]
        return moments

    def _rejoin(self) -> None:
        """The supervisor starts the killed redis again, as a replica of the new master."""
        self.cluster.wait_until_well(REJOIN_PATIENCE)
        node, master = self.masters[self.victim].name, self.cluster.master_of(self.victim).name
        self.audience.line(f"{node} was started again as a replica of {master}: the cluster is whole")

    def _homes(self) -> dict[str, frozenset[str]]:
        """For each acknowledged key, the shards whose master, asked directly, has its value."""
        keys = [key for writer in self.traffic.writers for key in writer.acknowledged]
        homes: dict[str, set[str]] = {key: set() for key in keys}
        for shard in self.shards:
            master = self.cluster.master_of(shard).endpoint
            with redis.Redis(host=master.host, port=master.port, socket_timeout=10) as direct:
                for start in range(0, len(keys), BATCH):
                    batch = keys[start : start + BATCH]
                    values: Any = direct.mget(batch)
                    for key, value in zip(batch, values, strict=True):
                        if value == value_of(key).encode():
                            homes[key].add(shard)
        return {key: frozenset(where) for key, where in homes.items()}


def _report(evidence: Evidence, left: Sequence[int]) -> Report:
    after = [
        one.took for shard in evidence.others() for one in evidence.attempts[shard] if one.ended >= evidence.killed_at
    ]
    attempts = evidence.attempts
    bad = {Outcome.FAILED, Outcome.REFUSED, Outcome.WRONG}
    return Report(
        shard=evidence.shard,
        gap_seconds=gap(evidence)[1],
        slowest_elsewhere_ms=max(after, default=0.0) * 1000,
        acknowledged={shard: len(evidence.acknowledged(shard)) for shard in attempts},
        in_doubt=[one.key for many in attempts.values() for one in many if one.outcome is Outcome.IN_DOUBT],
        errors={shard: sum(one.outcome in bad for one in many) for shard, many in attempts.items()},
        promises=judge(evidence),
        left_running=left,
    )
