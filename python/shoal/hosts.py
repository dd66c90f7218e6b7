"""Where things run: one protocol for a machine, and its first implementation, child processes on this one.

`Host` is what Shoal needs of a machine, whatever it is: write a file, start and kill a unit, read its log. Rule:
a unit is named by its node's name, and a host finds its process by what it recorded at the start (pid and start time),
never by searching for a name.

    local    processes of this machine, recorded in units.json of the state directory

Called by the supervisor (which also follows the processes it started) and by whoever disturbs a unit on purpose.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from shoal import state
from shoal.errors import ProcessError
from shoal.process import Process, send_signal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOG_NAME = "log"


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that runs: what starts it, and where its files and its log are."""

    name: str
    argv: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)


class Host(Protocol):
    """A machine that parts of a cluster run on."""

    name: str

    async def write(self, path: Path, text: str) -> None:
        """Put a file in place, whole, readable by its owner alone."""

    async def start(self, unit: Unit) -> Process:
        """Start a unit."""

    async def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a unit a signal; ProcessError if it does not run."""

    async def log(self, name: str, lines: int) -> str:
        """The last lines that a unit wrote."""


class LocalHost:
    """This machine: units are processes of this user, recorded in the state directory."""

    name = "local"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def write(self, path: Path, text: str) -> None:
        state.write_file(path, text)

    async def start(self, unit: Unit) -> Process:
        return Process.start(unit.argv, unit.directory, unit.directory / LOG_NAME, unit.environment)

    async def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        record = self._record(name)
        if record.pid is None or record.started is None or not send_signal(record.pid, record.started, number):
            raise ProcessError(f"{name} does not run", where=str(self.directory))

    async def log(self, name: str, lines: int) -> str:
        kind = self._record(name).kind
        return tail(state.node_directory(self.directory, name, kind) / LOG_NAME, lines)

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
