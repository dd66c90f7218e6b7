"""The parts of a cluster on this machine: what each is, what it is started with, and what it last said.

Rule: redis.conf and sentinel.conf are written once and belong to the servers afterwards; shoal.conf is rendered at each
start. No secret is in an argument: passwords are in files (0600).

    node (topology) ─► Part: record (remembered), process, line (asked), says (last answer), backoff, held
    Launcher: node + decision ─► files, argv ─► host.start

Called by the supervisor.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal import render
from shoal.hosts import Unit
from shoal.process import Backoff
from shoal.state import UnitRecord, node_directory
from shoal.topology import Endpoint, Layout, Node, ProxyNode, RedisNode, SentinelNode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shoal.ask import Line, RedisSays
    from shoal.engine import Engine
    from shoal.hosts import Host
    from shoal.process import Process
    from shoal.rules import Start
    from shoal.sentinel import Report
    from shoal.state import Kind

FRESH = 2.5  # seconds an answer is good for
PRIORITY = 100  # of every replica that may be promoted
DATA_FILES = {"dbfilename": "dump.rdb", "appendfilename": "appendonly.aof", "appenddirname": "appendonlydir"}


def kind_of(node: Node) -> Kind:
    match node:
        case RedisNode():
            return "redis"
        case SentinelNode():
            return "sentinel"
        case ProxyNode():
            return "proxy"


def main_endpoint(node: Node) -> Endpoint:
    """Where the part is asked: a proxy at its admin port."""
    return node.admin if isinstance(node, ProxyNode) else node.endpoint


def listening(node: Node) -> dict[str, Endpoint]:
    """Every endpoint that the node binds, labelled for an error."""
    if isinstance(node, ProxyNode):
        pools = {f"{node.name} (pool {pool})": endpoint for pool, endpoint in node.listens.items()}
        return {**pools, f"{node.name} (admin)": node.admin, f"{node.name} (stats)": node.stats}
    return {node.name: node.endpoint}


@dataclass(eq=False)
class Part:
    """One node as the supervisor follows it. Times are of the monotonic clock."""

    node: Node
    here: bool
    """Whether it is for this machine to run; the others are only looked at."""
    record: UnitRecord
    line: Line | None = None
    process: Process | None = None
    backoff: Backoff = field(default_factory=Backoff)
    started_at: float = 0.0
    died_at: float | None = None
    """None while it runs, and until it has died once."""
    has_run: bool = False
    """Under the eyes of this supervisor."""
    not_before: float = 0.0
    held: str | None = None
    tuned: bool = False
    """A sentinel that has been told its ping period, which it does not save."""
    says: RedisSays | None = None
    words: Mapping[str, Report] | None = None
    says_at: float = 0.0
    silent: str = "was not asked yet"

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def kind(self) -> Kind:
        return self.record.kind

    @property
    def up(self) -> bool:
        return self.process is not None

    def fresh(self) -> bool:
        """Whether it answered a moment ago."""
        return time.monotonic() - self.says_at <= FRESH

    def saying(self) -> RedisSays | None:
        return self.says if self.fresh() else None

    def heard(self, says: RedisSays) -> None:
        self.says, self.says_at, self.silent = says, time.monotonic(), ""

    def heard_words(self, words: Mapping[str, Report]) -> None:
        self.words, self.says_at, self.silent = words, time.monotonic(), ""

    def forget(self, why: str) -> None:
        """It did not answer."""
        self.silent = why

    def remember(self, **changes: object) -> bool:
        """Change the record; say whether that is news."""
        new = self.record.model_copy(update=changes)
        if new == self.record:
            return False
        self.record = new
        return True


class Launcher:
    """Knows what each node is started with."""

    def __init__(self, layout: Layout, directory: Path, engine: Engine, topology_file: Path) -> None:
        self.layout = layout
        self.directory = directory
        self.engine = engine
        self.topology_file = topology_file

    def home(self, node: Node) -> Path:
        return node_directory(self.directory, node.name, kind_of(node))

    def has_data(self, node: RedisNode) -> bool:
        """Whether the node has anything on disk that is worth keeping: files of a server that persists."""
        return self._persists() and any(map(_holds_something, self._data_files(node)))

    def _persists(self) -> bool:
        """Without it (a plain cache), files are what a synchronisation left behind, and old."""
        return self._directive("appendonly", "yes") == "yes" or self._directive("save", "some") != ""

    def _data_files(self, node: RedisNode) -> list[Path]:
        return [self.home(node) / self._directive(name, usual) for name, usual in DATA_FILES.items()]

    def _directive(self, name: str, usual: str) -> str:
        """A directive of redis.conf as the topology gives it (its last line)."""
        return {key.lower(): lines[-1] for key, lines in self.layout.topology.redis.items()}.get(name, usual)

    def digest(self, node: Node) -> str:
        """Of everything that a part would have to be started anew for."""
        topology = self.layout.topology
        if isinstance(node, RedisNode):
            text = render.shoal_conf(node, self.layout)
        elif isinstance(node, SentinelNode):
            settings = topology.sentinel
            text = json.dumps(
                [settings.quorum, settings.down_after, settings.failover_timeout, settings.parallel_syncs]
            )
        else:
            secret = topology.auth.password.get_secret_value() if topology.auth.password else ""
            redis = {one.name: str(one.endpoint) for one in self.layout.redis}
            text = json.dumps([topology.model_dump(mode="json"), str(node), redis, secret])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    async def redis(self, node: RedisNode, start: Start, host: Host) -> Unit:
        """Write its files and give the unit. The decision is in the arguments, so it holds from the first moment."""
        home = self.home(node)
        conf = home / "redis.conf"
        if not conf.exists():
            await host.write(conf, render.redis_conf(node, self.layout, home))
        await host.write(home / "shoal.conf", render.shoal_conf(node, self.layout))
        of = ("no", "one") if start.replica_of is None else (start.replica_of.host, str(start.replica_of.port))
        priority = "0" if start.guarded else str(PRIORITY)
        argv = (*self.engine.server_command(conf), "--replicaof", *of, "--replica-priority", priority)
        return Unit(node.name, argv, home)

    async def sentinel(self, node: SentinelNode, masters: Mapping[str, Endpoint], host: Host) -> Unit:
        conf = self.sentinel_conf(node)
        if not conf.exists():
            text = render.sentinel_conf(node, self.layout, masters) + self._introductions(node, masters)
            await host.write(conf, text)
        return Unit(node.name, self.engine.sentinel_command(conf), conf.parent)

    def sentinel_conf(self, node: SentinelNode) -> Path:
        return self.home(node) / "sentinel.conf"

    def proxy(self, node: ProxyNode) -> Unit:
        argv = (
            *(sys.executable, "-m", "shoal", "proxy", "-f", str(self.topology_file)),
            *("--node", node.name, "--state", str(self.directory), "--log-format", "json"),
        )
        return Unit(node.name, argv, self.home(node))

    def _introductions(self, node: SentinelNode, masters: Mapping[str, Endpoint]) -> str:
        """The other sentinels and the replicas, which would else be found out only within 2 s."""
        cluster = self.layout.topology.cluster
        lines = ["", f"sentinel myid {_sentinel_id(cluster, node)}"]
        for shard, master in masters.items():
            replicas = (one.endpoint for one in self.layout.shard_nodes(shard) if one.endpoint != master)
            lines += [f"sentinel known-replica {shard} {at.host} {at.port}" for at in replicas]
            lines += [
                f"sentinel known-sentinel {shard} {one.endpoint.host} {one.endpoint.port} {_sentinel_id(cluster, one)}"
                for one in self.layout.sentinels
                if one != node
            ]
        return "\n".join(lines) + "\n"


def _sentinel_id(cluster: str, node: SentinelNode) -> str:
    """The id that a sentinel has from its first start: of its cluster, name and address."""
    return hashlib.sha1(f"{cluster} {node.name} {node.endpoint}".encode(), usedforsecurity=False).hexdigest()


def _holds_something(path: Path) -> bool:
    """Whether a data file, or a directory of them, is there and not empty."""
    return any(path.iterdir()) if path.is_dir() else path.exists() and path.stat().st_size > 0
