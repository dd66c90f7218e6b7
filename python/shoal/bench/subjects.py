"""Who is measured: Shoal's proxy, a peer, or nobody between the load and the first server.

Rule: a subject is a port to send to and, if it is a proxy, a process whose counters are read; each can be started
afresh, since memory that was once taken shows at no later look. Called by `stage` and the scenarios.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Protocol

from shoal.bench.wire import answers
from shoal.errors import ProcessError
from shoal.process import Process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shoal.cluster import Cluster

START_PATIENCE = 30.0
GLANCE = 0.02
LOG_NAME = "log"


class Subject(Protocol):
    """One of those that take turns."""

    name: str

    @property
    def port(self) -> int: ...

    @property
    def pid(self) -> int | None:
        """Of the proxy; None where there is none."""

    def restart(self) -> None:
        """Begin again with a new process that serves."""


class Direct:
    """The first server itself."""

    name = "direct"
    pid = None

    def __init__(self, port: int) -> None:
        self.port = port

    def restart(self) -> None:
        """There is nothing between that could begin again."""


class ShoalProxy:
    """The proxy of a cluster, whole: with its control plane, which follows the sentinels while it is measured."""

    name = "shoal"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._node = cluster.layout.proxies[0].name
        self.port = cluster.address[1]

    @property
    def pid(self) -> int | None:
        return self._cluster.pid(self._node)

    def restart(self) -> None:
        """The supervisor starts it again."""
        before = self.pid
        self._cluster.kill(self._node)
        wait_until_it_answers(self, before)


class PeerProxy:
    """A proxy of others, a process of ours."""

    def __init__(self, name: str, argv: Sequence[str], directory: Path, port: int) -> None:
        self.name = name
        self.port = port
        self._argv = argv
        self._directory = directory
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self._process = Process.start(self._argv, self._directory, self._directory / LOG_NAME, {})
        try:
            wait_until_it_answers(self, None)
        except ProcessError as error:
            said = (self._directory / LOG_NAME).read_text(errors="replace").strip().splitlines()[-1:]
            raise ProcessError(error.what, where=said[0] if said else None) from None

    def restart(self) -> None:
        self.end()
        self.start()

    def end(self) -> None:
        """Kill it and wait until it is gone; harmless if it never started."""
        if self._process is None:
            return
        while self._process.running():
            self._process.signal(signal.SIGKILL)
            time.sleep(GLANCE)


def wait_until_it_answers(subject: Subject, before: int | None) -> None:
    """Return once another process than `before` answers; ProcessError if none does in time."""
    deadline = time.monotonic() + START_PATIENCE
    while subject.pid == before or not answers(subject.port):
        if time.monotonic() > deadline:
            message = f"{subject.name} did not answer within {START_PATIENCE:.0f} s"
            raise ProcessError(message, hint="see its log; or leave it out with --peers")
        time.sleep(GLANCE)
