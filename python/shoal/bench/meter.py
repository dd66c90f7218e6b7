"""What the kernel has counted of a process: time on processors, sleeps, memory, system calls.

Rule: all threads count, and what a scheduler tick would miss counts too (schedstat is in nanoseconds). Linux only, as
the proxy is. Called by every row.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KIB = 1024
MB = 1_000_000
SYSCALLS = "raw_syscalls:sys_enter"


class Usage(NamedTuple):
    """Nanoseconds on a processor, and times it went to sleep, over all threads."""

    nanoseconds: int = 0
    sleeps: int = 0

    def __add__(self, other: object) -> Usage:
        assert isinstance(other, Usage)
        return Usage(self.nanoseconds + other.nanoseconds, self.sleeps + other.sleeps)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.nanoseconds - other.nanoseconds, self.sleeps - other.sleeps)


class Memory(NamedTuple):
    """Bytes that a process has in memory now, and had at most."""

    now: int
    most: int


def usage(pids: Iterable[int]) -> Usage:
    """What these processes have used so far, together."""
    return sum((_usage(pid) for pid in pids), Usage())


def usage_of_threads(pid: int, prefix: str) -> Usage:
    """The same of those threads of a process whose names begin so."""
    return _usage(pid, prefix)


def _usage(pid: int, prefix: str = "") -> Usage:
    nanoseconds = sleeps = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if not (task / "comm").read_text().startswith(prefix):
            continue
        nanoseconds += int((task / "schedstat").read_text().split()[0])
        sleeps += _field(task / "status", "voluntary_ctxt_switches")
    return Usage(nanoseconds, sleeps)


def memory(pid: int) -> Memory:
    status = Path(f"/proc/{pid}/status")
    return Memory(_field(status, "VmRSS") * KIB, _field(status, "VmHWM") * KIB)


def forget_most(pid: int) -> None:
    """Let the most that is remembered begin at what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Let all threads of these processes run on these cores only."""
    wanted = set(cores)
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), wanted)


def counting_syscalls(pid: int, report: Path) -> Sequence[str] | None:
    """What to put before a command so that the system calls of `pid` are counted while it runs; None without perf."""
    perf = shutil.which("perf")
    if perf is None:
        return None
    trial = subprocess.run([perf, "stat", "-e", SYSCALLS, "true"], capture_output=True, check=False)
    if trial.returncode != 0:
        return None
    return [perf, "stat", "-x", ",", "-o", str(report), "-e", SYSCALLS, "-p", str(pid), "--"]


def counted_syscalls(report: Path) -> int | None:
    """What perf wrote; None if it could not count."""
    found = re.search(rf"^(\d+),.*{SYSCALLS}", report.read_text(), re.MULTILINE)
    return int(found[1]) if found else None


def _field(status: Path, name: str) -> int:
    for line in status.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    return 0
