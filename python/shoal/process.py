"""One process of ours: started with a log file, watched, signalled and stopped; found again after our own crash.

Rules:
- A process is known by its pid and its start time, so a later process with the same pid is never signalled.
- Each has a session of its own: Ctrl-C in the terminal reaches only the supervisor, which then stops all in order.
- Processes outlive a supervisor that is killed: data goes on being served, Sentinel goes on failing over, and the next
  `shoal up` adopts them by pid and start time (`shoal down` stops them). So there is no parent-death signal.
- A zombie is dead: in a pid namespace whose first process does not reap, the adopted ones stay zombies for ever.

Called by the local host; `Backoff` by the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psutil

from shoal.errors import ProcessError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

START_TIME_SLACK = 2.0  # seconds; the kernel's boot time, which start times are counted from, is rounded
TERM_INTERVAL = 1.0
POLL_INTERVAL = 0.1  # where the kernel has no pidfd
LOG_LIMIT = 16 << 20  # bytes; a longer log becomes log.1 at the next start


@dataclass(frozen=True)
class Exit:
    """How a process ended. `status` is subprocess's: minus the signal's number; None for one that was adopted."""

    status: int | None

    def __str__(self) -> str:
        if self.status is None:
            return "ended"
        if self.status >= 0:
            return f"exited with {self.status}"
        try:
            return f"was killed by {signal.Signals(-self.status).name}"
        except ValueError:
            return f"was killed by signal {-self.status}"


def start_time(pid: int) -> float | None:
    """When the process with this pid started; None if it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return float(process.create_time())
    except psutil.Error:
        return None


def is_running(pid: int | None, started: float | None) -> bool:
    """Whether the process that was started then still runs."""
    if pid is None or started is None:
        return False
    now = start_time(pid)
    return now is not None and abs(now - started) <= START_TIME_SLACK


def send_signal(pid: int, started: float, number: int) -> bool:
    """Signal a process if it is still the one that started then; say whether it was."""
    if not is_running(pid, started):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class Process:
    """A running (or ended) process: our child, or one adopted from a supervisor that died."""

    def __init__(self, pid: int, started: float, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.started = started
        self._child = child

    @classmethod
    def start(cls, argv: Sequence[str], directory: Path, log: Path, environment: Mapping[str, str]) -> Self:
        """Start `argv` in a session of its own, its output appended to `log`."""
        _cut(log)
        try:
            with open(log, "ab", opener=_private) as output:
                child = subprocess.Popen(
                    list(argv),
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessError(f"cannot start {argv[0]}: {error.strerror}", where=str(directory)) from error
        return cls(child.pid, start_time(child.pid) or 0.0, child)

    @classmethod
    def adopt(cls, pid: int | None, started: float | None) -> Self | None:
        """The process that an earlier supervisor started, if it still runs."""
        if pid is None or started is None or not is_running(pid, started):
            return None
        return cls(pid, started)

    def running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return is_running(self.pid, self.started)

    def exit(self) -> Exit:
        """How it ended (it must have)."""
        return Exit(None if self._child is None else self._child.poll())

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        if self._child is not None:
            self._child.send_signal(number)
        else:
            send_signal(self.pid, self.started, number)

    async def wait(self) -> Exit:
        """Return once it has ended."""
        while self.running():
            if not await _wait_for_end(self.pid):
                await asyncio.sleep(POLL_INTERVAL)
        return self.exit()

    async def stop(self, patience: float) -> Exit:
        """TERM, and KILL after `patience` seconds. A stopped (SIGSTOP) process is woken so that it can end in order.

        TERM is said again and again: a redis that is just writing its first AOF refuses it once and forgets it.
        """
        try:
            async with asyncio.timeout(patience):
                while True:
                    self.signal(signal.SIGTERM)
                    self.signal(signal.SIGCONT)
                    with contextlib.suppress(TimeoutError):
                        return await asyncio.wait_for(self.wait(), TERM_INTERVAL)
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> Exit:
        self.signal(signal.SIGKILL)
        return await self.wait()


async def _wait_for_end(pid: int) -> bool:
    """Wait on the kernel's handle of the process; False where there is none."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except (AttributeError, OSError):
        return False
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return True


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _cut(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_name(f"{log.name}.1"))


class Backoff:
    """How long to wait before the next start: doubling while a process keeps dying, forgotten once it stayed up."""

    def __init__(self, first: float = 0.2, most: float = 10.0, healthy: float = 30.0) -> None:
        self.first = first
        self.most = most
        self.healthy = healthy
        self._next = first

    def after(self, ran_for: float) -> float:
        """The delay before the next start of something that ran this many seconds."""
        if ran_for >= self.healthy:
            self._next = self.first
        delay = self._next
        self._next = min(self._next * 2, self.most)
        return delay
