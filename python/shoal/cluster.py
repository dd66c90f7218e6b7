"""A cluster inside a program: `with shoal.Cluster(shards=2, replicas=1) as c: redis.Redis(*c.address)`.

Rule: whatever it starts is gone when it closes, also after an exception, at the interpreter's exit, and when this
process is killed: the supervisor is a process of its own (`shoal up`) that is tied to this one. Works in notebooks and
in tests with a running event loop, since nothing here needs one.

Called by users' tests, the pytest fixtures and `shoal demo`.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from shoal import config, state
from shoal.ask import Line, Silent
from shoal.detached import Detached
from shoal.errors import ConfigError, ProcessError
from shoal.events import EventLog
from shoal.hosts import LocalHost
from shoal.status import gather
from shoal.topology import lay_out
from shoal.up import stop_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import TracebackType

    from shoal.events import Event
    from shoal.health import Status
    from shoal.topology import Layout, RedisNode

    T = TypeVar("T")

FILE_NAME = "shoal.yaml"
FIRST_LINE = "# Written by shoal.Cluster: another one may overwrite it.\n"
START_PATIENCE = 120.0
STOP_PATIENCE = 60.0
GLANCE = 0.05


class Cluster:
    """Shards with replicas, sentinels and proxies on this machine, on free ports.

    `shards` is how many, their names, or the `shards` section of shoal.yaml; any other section can be given by its
    name: `Cluster(redis={"maxmemory": "100mb"}, sentinel={"down_after": "500ms"}, proxy={"hash_tag": "{}"})`.
    With `directory` the data stays there when the cluster closes, and is there again at the next start.
    """

    def __init__(  # noqa: PLR0913  what a user may choose, by name
        self,
        shards: int | list[str] | Mapping[str, Any] = 2,
        replicas: int = 1,
        *,
        directory: str | Path | None = None,
        password: str | None = None,
        sentinels: int = 3,
        proxies: int = 2,
        **sections: Any,
    ) -> None:
        self._temporary = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="shoal-")).absolute()
        self.password = password
        self.file = self.directory / FILE_NAME
        if isinstance(shards, int):
            shards = [f"shard{number}" for number in range(1, shards + 1)]
        if isinstance(shards, list):
            shards = {name: {"replicas": replicas} for name in shards}
        sections["sentinel"] = {"nodes": sentinels, **sections.get("sentinel", {})}
        sections["proxy"] = {"nodes": proxies, **sections.get("proxy", {})}
        self._write({"shards": dict(shards), **sections})
        self._child: Detached | None = None
        self._layout: Layout | None = None

    # --------------------------------------------------------------------------------------------------- start, stop

    def start(self) -> Self:
        """Bring it up; returns once every proxy serves."""
        if self.running:
            return self
        state.require_usable(self.state_directory, config.load(self.file).cluster)
        atexit.register(self.close)
        self._child = Detached.spawn(self.file, self.state_directory)
        try:
            self._child.wait_until_ready(lambda _event: None, START_PATIENCE)
        except BaseException:
            self.close()
            raise
        return self

    def stop(self) -> None:
        """Stop everything in order; the data stays until `close`."""
        child, self._child = self._child, None
        if child is not None and child.running():
            child.stop(STOP_PATIENCE)
        elif child is not None:
            _run(stop_leftovers(self.state_directory, config.load(self.file).cluster))

    def close(self) -> None:
        """Stop everything, and remove what is temporary."""
        atexit.unregister(self.close)
        try:
            self.stop()
        finally:
            if self._temporary:
                shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running()

    @property
    def state_directory(self) -> Path:
        return state.beside(self.file)

    # ------------------------------------------------------------------------------------------------------ looking

    @property
    def layout(self) -> Layout:
        """Every node with its endpoints; known once it has been started."""
        if self._layout is None:
            self._layout = lay_out(config.load(self.file), state.load_ports(self.state_directory))
        return self._layout

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where each proxy serves the first pool."""
        pool = next(iter(self.layout.topology.pools))
        return [(proxy.reach(pool).host, proxy.reach(pool).port) for proxy in self.layout.proxies]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first proxy: `redis.Redis(*cluster.address)`."""
        return self.addresses[0]

    def status(self) -> Status:
        """Ask every part how it is."""
        return _run(gather(self.layout, self.state_directory))

    def master_of(self, shard: str) -> RedisNode:
        """The node that a majority of sentinels names as the shard's master now."""
        name = self.status().master(shard)
        for node in self.layout.shard_nodes(shard):
            if node.name == name:
                return node
        raise ProcessError(f'no majority of sentinels names a master of shard "{shard}"')

    def events(self) -> list[Event]:
        """What the supervisor told, oldest first."""
        return EventLog(self.state_directory).tail(10_000)

    def log_of(self, node: str, lines: int = 10_000) -> str:
        """The end of what a part wrote to its log."""
        return _run(LocalHost(self.state_directory).log(node, lines))

    def pid(self, node: str) -> int | None:
        """The process of a part; None while it does not run."""
        record = state.load_units(self.state_directory).get(node)
        return None if record is None else record.pid

    def pids(self) -> set[int]:
        """All processes of the cluster, the supervisor among them."""
        parts = {record.pid for record in state.load_units(self.state_directory).values() if record.pid is not None}
        return parts | ({self._child.pid} if self._child is not None else set())

    # ---------------------------------------------------------------------------------------------------- disturbing

    def kill(self, node: str, number: int = signal.SIGKILL) -> None:
        """Send a part a signal: SIGKILL ends it, SIGSTOP hangs it until SIGCONT."""
        _run(LocalHost(self.state_directory).kill(node, number))

    def kill_supervisor(self) -> None:
        """End the supervisor as a crash would: the parts go on, `start` adopts them, `stop` stops them."""
        if self._child is not None:
            self._child.kill()

    def flush(self) -> None:
        """Remove all keys from every master."""
        _run(self._flush())

    async def _flush(self) -> None:
        status = await gather(self.layout, self.state_directory)
        masters = {shard.master for shard in status.shards}
        nodes = [node for node in self.layout.redis if node.name in masters]
        await asyncio.gather(*(self._flush_one(node) for node in nodes))

    async def _flush_one(self, node: RedisNode) -> None:
        line = Line(node.endpoint, self.password)
        try:
            await line.command("FLUSHALL")
        except Silent as silent:
            raise ProcessError(f"{node.name} {silent}", where=str(node.endpoint)) from None
        finally:
            await line.close()

    def wait_until(self, met: Callable[[Status], bool], patience: float, what: str) -> Status:
        """Return the first status that meets the condition; ProcessError, with the last problems, after `patience`."""
        deadline = time.monotonic() + patience
        while True:
            status = self.status()
            if met(status):
                return status
            if time.monotonic() >= deadline:
                problems = "; ".join(status.problems) or "none"
                raise ProcessError(f"waited {patience:g} s for {what}", hint=f"problems: {problems}")
            time.sleep(GLANCE)

    def wait_until_well(self, patience: float = 60.0) -> Status:
        """Return once nothing is wrong any more."""
        return self.wait_until(lambda status: status.ok, patience, "the cluster to be well")

    # -------------------------------------------------------------------------------------------------------- files

    def _write(self, topology: dict[str, Any]) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.password is not None:
            topology["auth"] = {"password_file": "./password"}
            state.write_file(self.directory / "password", self.password + "\n")
        if self.file.exists() and not self.file.read_text().startswith(FIRST_LINE):
            raise ConfigError(
                f"{self.file} was not written by shoal.Cluster",
                hint="give another directory, or run it with `shoal up`",
            )
        state.write_file(self.file, FIRST_LINE + json.dumps(topology, indent=2) + "\n")


def _run(work: Coroutine[None, None, T]) -> T:
    """Run it to its end in an event loop of its own, also where one runs already."""
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, work).result()
