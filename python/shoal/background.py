"""A program that goes on in the background, and the one that waits on the terminal until it serves.

    terminal ── start ──► fork ──► session ──► fork ──► the program     no terminal, no parent, umask 0
        │ waits                                            │ serves            ──► exit 0
        └─────────────── pipe ─────────────────────────────┘ ends before that  ──► its error and exit code

Rule: the process that serves is what nutcracker's -d makes (twice forked, not the leader of its session, the same
directory, nothing on its three streams), so what it opens has modes of its own and must not count on a umask. Nobody
waits for longer than the patience. A pid file is the running process's: only who is named in it removes it.
Called by `shoal-nutcracker`. No thread may run yet.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from shoal.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Program = Callable[["Waiting"], int]

PID_FILE_MODE = 0o644
LONGEST_TOLD = 65536
FAILED = 1


class Outcome(NamedTuple):
    """What the start came to: an exit code, and what to say on the terminal."""

    code: int
    text: str


class Waiting:
    """Whoever waits on the terminal, as the program in the background sees it."""

    def __init__(self, descriptor: int) -> None:
        self._pipe: int | None = descriptor

    def ready(self) -> None:
        """The program serves."""
        self._tell(Outcome(0, ""))

    def failed(self, text: str) -> None:
        """It ends; after `ready` nobody hears of that."""
        self._tell(Outcome(FAILED, text))

    def _tell(self, outcome: Outcome) -> None:
        if self._pipe is None:
            return
        with contextlib.suppress(OSError):  # who waited has gone
            os.write(self._pipe, json.dumps(outcome).encode()[:LONGEST_TOLD])
        os.close(self._pipe)
        self._pipe = None


def start(program: Program, patience: float) -> Outcome:
    """Run `program` in the background, and return once it serves or has ended, or patience has."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _leave(program, Waiting(theirs))
    os.close(theirs)
    os.waitpid(pid, 0)
    try:
        return _outcome(ours, patience)
    finally:
        os.close(ours)


def _outcome(pipe: int, patience: float) -> Outcome:
    deadline, told = time.monotonic() + patience, b""
    while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        more = os.read(pipe, LONGEST_TOLD)
        if not more:
            break
        told += more
    else:
        return Outcome(0, "")  # as nutcracker, which never waits
    try:
        return Outcome(*json.loads(told))
    except ValueError:
        return Outcome(FAILED, "it ended before it served")


def _leave(program: Program, waiting: Waiting) -> NoReturn:
    """The child of the first fork: never back into the parent's program."""
    status = FAILED
    try:
        os.setsid()
        if os.fork() == 0:
            _let_go()
            status = program(waiting)
        else:
            status = 0
    except BaseException:  # noqa: BLE001  the outermost guard of a process: nothing above could say it
        traceback.print_exc()
        waiting.failed(traceback.format_exc())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _let_go() -> None:
    os.umask(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    if nothing > 2:
        os.close(nothing)


# -------------------------------------------------------------------------------------------------------- the pid file


class PidFile:
    """The number of this process, in a file: digits and nothing else, as nutcracker writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def held(self) -> bool:
        """Whether another process that runs is named in it."""
        try:
            pid = int(self._path.read_text("ascii"))
            if pid <= 0 or pid == os.getpid():
                return False
            os.kill(pid, 0)
        except PermissionError:
            return True
        except (OSError, ValueError, OverflowError):
            return False
        return True

    def write(self) -> None:
        try:
            with open(self._path, "w", encoding="ascii", opener=_readable) as file:
                file.write(str(os.getpid()))
        except OSError as error:
            hint = "it must be a file that this user may write, in a directory that is there"
            raise ConfigError(f"opening pid file '{self._path}' failed: {error.strerror}", hint=hint) from error

    def remove(self) -> None:
        """Unless another process has put its own number there since, or nothing can be done about it."""
        with contextlib.suppress(OSError, ValueError):
            if int(self._path.read_text("ascii")) == os.getpid():
                self._path.unlink()


def _readable(name: str, flags: int) -> int:
    return os.open(name, flags, PID_FILE_MODE)
