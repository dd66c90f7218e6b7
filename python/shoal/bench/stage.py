"""Everything that a benchmark needs, started and ended together: servers, sentinels, Shoal and its peers.

Rule: whatever was started is gone when the stage closes, also after an error or Ctrl-C. Shoal is a whole cluster of its
own making, with three sentinels; the others are configured over that cluster's servers. Called by `run`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from shoal import ports
from shoal.bench import loads, meter
from shoal.bench.figures import Mode
from shoal.bench.peers import Site
from shoal.bench.subjects import Direct, PeerProxy, ShoalProxy
from shoal.bench.wire import Wire
from shoal.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.bench.loads import Load
    from shoal.bench.peers import Peer
    from shoal.bench.subjects import Subject

SERVERS = {"save": "", "appendonly": "no"}
BATCH_BYTES = 1 << 20
BATCH_KEYS = 200


@dataclass(frozen=True, order=True)
class Setting:
    """What a cluster to measure over looks like; `workers` 0 is as many as the proxy takes by itself."""

    shards: int = 2
    replicas: int = 0
    workers: int = 0


class Stage:
    """Servers and subjects of one setting. Use it as a context manager."""

    def __init__(self, peers: Sequence[Peer], setting: Setting) -> None:
        self._peers = peers
        self._end = contextlib.ExitStack()
        self._cores = sorted(os.sched_getaffinity(0))
        self._loaded: tuple[int, int] | None = None
        proxy = {"nodes": 1, "workers": setting.workers} if setting.workers else {"nodes": 1}
        self.cluster = Cluster(setting.shards, setting.replicas, redis=SERVERS, proxy=proxy)
        self.subjects: list[Subject] = []

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._end.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def _open(self) -> None:
        self._take_descriptors()
        self.scratch = Path(self._end.enter_context(tempfile.TemporaryDirectory(prefix="shoal-bench-")))
        self._end.callback(os.sched_setaffinity, 0, self._cores)
        self._end.enter_context(self.cluster)
        self.subjects.append(ShoalProxy(self.cluster))
        for peer in self._peers:
            self.subjects.append(self._start(peer))
        self.subjects.append(Direct(next(iter(self.servers.values()))))

    def _take_descriptors(self) -> None:
        """All that the hard limit allows: ten thousand clients are sockets of this process, and of the peers'."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
        self._end.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)

    def _start(self, peer: Peer) -> PeerProxy:
        program = peer.find()
        assert program is not None, "only peers that were found come to the stage"
        directory = self.scratch / peer.name
        directory.mkdir()
        taken = [*self.servers.values(), *(subject.port for subject in self.subjects)]
        port, stats = ports.choose((peer.name, "stats"), taken).values()
        site = Site(directory, port, stats, self.servers)
        proxy = PeerProxy(peer.name, [str(program), *peer.arguments(site)], directory, port)
        self._end.callback(proxy.end)
        proxy.start()
        return proxy

    # ------------------------------------------------------------------------------------------------------ servers

    @property
    def servers(self) -> Mapping[str, int]:
        """The port of each shard's server, by the shard's name, in the order of the file."""
        layout = self.cluster.layout
        return {shard: layout.shard_nodes(shard)[0].endpoint.port for shard in layout.topology.shards}

    @property
    def server_pids(self) -> list[int]:
        return [pid for node in self.cluster.layout.redis if (pid := self.cluster.pid(node.name)) is not None]

    def load_values(self, load: Load) -> None:
        """Let every server have every key of the load, so that whoever asks, by whatever ring, gets a value."""
        wanted = (load.keys, load.size)
        if self._loaded == wanted:
            return
        value = b"x" * load.size
        batch = max(1, min(BATCH_KEYS, BATCH_BYTES // load.size))
        for port in self.servers.values():
            with Wire(port) as wire:
                wire.ask([("FLUSHALL",)])
                for start in range(0, load.keys, batch):
                    numbers = range(start, min(start + batch, load.keys))
                    wire.ask([("SET", loads.key(number), value) for number in numbers])
        self._loaded = wanted

    # -------------------------------------------------------------------------------------------------------- cores

    @property
    def can_pin(self) -> bool:
        return len(self._cores) > 1

    def arrange(self, mode: Mode, subject: Subject) -> None:
        """Put everybody where the mode wants them; what this thread starts from now on is with the servers."""
        others, own = (self._cores[:-1], self._cores[-1:]) if mode is Mode.PINNED else (self._cores, self._cores)
        os.sched_setaffinity(0, others)
        meter.pin(self.server_pids, others)
        if subject.pid is not None:
            meter.pin([subject.pid], own)


def versions(peers: Sequence[Peer]) -> Mapping[str, str]:
    """What each says of its version, in its own words."""
    return {peer.name: _first_line([str(peer.find()), *peer.version]) for peer in peers}


def _first_line(argv: Sequence[str]) -> str:
    said = subprocess.run(argv, capture_output=True, text=True, check=False)
    return next((line.strip() for line in (said.stdout + said.stderr).splitlines() if line.strip()), "")
