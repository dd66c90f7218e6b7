"""Where things run: one protocol for a machine, and its first implementation, child processes on this one.

`Host` is what `up`, `status`, `drill` and `switchover` need of a machine, whatever it is: write a file, start, stop and
kill a unit, run a command, read a log, reach a port. Rule: a unit is named by its node's name, and a host finds its
process by what it recorded at the start (pid and start time), never by searching for a name.

    local    processes of this machine, recorded in units.json of the state directory

Called by the supervisor (which also follows the processes it started) and by whoever disturbs a unit on purpose.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from shoal import state
from shoal.errors import ProcessError
from shoal.process import Process, send_signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shoal.topology import Endpoint

LOG_NAME = "log"


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that runs: what starts it, and where its files and its log are."""

    name: str
    argv: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str


class Host(Protocol):
    """A machine that parts of a cluster run on."""

    name: str

    async def write(self, path: Path, text: str) -> None:
        """Put a file in place, whole, readable by its owner alone."""

    async def start(self, unit: Unit) -> Process:
        """Start a unit."""

    async def stop(self, name: str, patience: float) -> None:
        """End a unit in order, and by force after `patience` seconds."""

    async def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a unit a signal; ProcessError if it does not run."""

    async def run(self, argv: Sequence[str]) -> Ran:
        """Run a command to its end."""

    async def log(self, name: str, lines: int) -> str:
        """The last lines that a unit wrote."""

    async def reach(self, endpoint: Endpoint) -> Endpoint:
        """Where an endpoint of that machine can be reached from here."""


class LocalHost:
    """This machine: units are processes of this user, recorded in the state directory."""

    name = "local"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def write(self, path: Path, text: str) -> None:
        state.write_file(path, text)

    async def start(self, unit: Unit) -> Process:
        return Process.start(unit.argv, unit.directory, unit.directory / LOG_NAME, unit.environment)

    async def stop(self, name: str, patience: float) -> None:
        record = self._record(name)
        process = Process.adopt(record.pid, record.started)
        if process is not None:
            await process.stop(patience)

    async def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        record = self._record(name)
        if record.pid is None or record.started is None or not send_signal(record.pid, record.started, number):
            raise ProcessError(f"{name} does not run", where=str(self.directory))

    async def run(self, argv: Sequence[str]) -> Ran:
        child = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await child.communicate()
        return Ran(child.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))

    async def log(self, name: str, lines: int) -> str:
        kind = self._record(name).kind
        return tail(state.node_directory(self.directory, name, kind) / LOG_NAME, lines)

    async def reach(self, endpoint: Endpoint) -> Endpoint:
        return endpoint

    def _record(self, name: str) -> state.UnitRecord:
        record = state.load_units(self.directory).get(name)
        if record is None:
            raise ProcessError(f'there is no unit "{name}" here', where=str(self.directory))
        return record


def tail(log: Path, lines: int) -> str:
    """The last lines of a log; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 256 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
