"""A supervisor in a process of its own: started, waited for until the cluster is ready, and stopped.

The child is `shoal up` with its end of a socket pair: it writes each event as a line of JSON, and at last `ready` or
the error that it ended with. With `tied` it also stops when the other end closes, that is, when this process is gone,
however it went.

Called by `shoal up --detach` and by `Cluster`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Self

from pydantic import ValidationError

from shoal.errors import ProcessError, ShoalError
from shoal.events import Event
from shoal.hosts import tail
from shoal.process import Process, start_time

if TYPE_CHECKING:
    from collections.abc import Callable

LOG_NAME = "up.log"
LOG_TAIL = 5
CLOSING_PATIENCE = 5.0
GLANCE = 0.02


class StartError(ShoalError):
    """The supervisor's own error, as it told it; it has its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code  # type: ignore[misc]  # of the error that it stands for


class Report:
    """The child's side: what it tells its parent."""

    def __init__(self, descriptor: int) -> None:
        self.channel = socket.socket(fileno=descriptor)
        self._awaited = True

    def event(self, event: Event) -> None:
        self._send({"event": event.model_dump()})

    def ready(self) -> None:
        self._send({"ready": True})
        self._awaited = False  # nobody reads any more, and a full socket must not stop supervision

    def failed(self, error: ShoalError) -> None:
        self._send({"failed": str(error), "exit_code": error.exit_code})

    def _send(self, message: dict[str, object]) -> None:
        if not self._awaited:
            return
        with contextlib.suppress(OSError):  # the parent has gone: then nobody waits for it
            self.channel.sendall(json.dumps(message).encode() + b"\n")


class Detached:
    """The parent's side: one supervisor that runs apart."""

    def __init__(self, directory: Path, channel: socket.socket, process: Process) -> None:
        self.directory = directory
        self._channel = channel
        self._process = process

    @classmethod
    def spawn(cls, topology_file: Path, directory: Path) -> Self:
        """A new interpreter, tied to this process."""
        ours, theirs = socket.socketpair()
        with theirs, _open_log(directory) as log:
            child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "shoal", "up", "-f", str(topology_file), "--state", str(directory)),
                    *("--tied", "--report-fd", str(theirs.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return cls(directory, ours, Process(child.pid, start_time(child.pid) or 0.0, child))

    @classmethod
    def fork(cls, directory: Path, supervise: Callable[[int], int]) -> Self:
        """This program itself goes on apart, with all it has imported: a second sooner. No thread may run yet.

        `supervise` gets the descriptor to report on, and returns the exit status.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            pid = os.fork()
            if pid == 0:
                ours.close()
                _become(directory, supervise, theirs.detach())
        return cls(directory, ours, Process(pid, start_time(pid) or 0.0))

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self, tell: Callable[[Event], None], patience: float) -> None:
        """Return once the cluster serves; raise the child's error otherwise."""
        deadline = time.monotonic() + patience
        received = b""
        while True:
            self._channel.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                more = self._channel.recv(65536)
            except TimeoutError:
                raise ProcessError(f"the cluster was not ready within {patience:g} s", where=str(self._log())) from None
            if not more:
                raise self._ended()
            *lines, received = (received + more).split(b"\n")
            for line in lines:
                if self._take(json.loads(line), tell):
                    return

    def _take(self, message: dict[str, Any], tell: Callable[[Event], None]) -> bool:
        if "failed" in message:
            raise StartError(str(message["failed"]), int(message["exit_code"]))
        if "event" in message:
            with contextlib.suppress(ValidationError):
                tell(Event.model_validate(message["event"]))
        return "ready" in message

    def _ended(self) -> ProcessError:
        self._wait(CLOSING_PATIENCE)
        last = tail(self._log(), LOG_TAIL)
        return ProcessError(
            f"the supervisor {self._process.exit()}", where=str(self._log()), hint=f"its log ends: {last}"
        )

    def _log(self) -> Path:
        return self.directory / LOG_NAME

    def running(self) -> bool:
        return self._process.running()

    def stop(self, patience: float) -> None:
        """Have it stop everything and end."""
        self._process.signal(signal.SIGTERM)
        ended = self._wait(patience)
        self._channel.close()
        if not ended:
            what = f"the supervisor (pid {self.pid}) did not stop within {patience:g} s"
            raise ProcessError(what, where=str(self._log()))

    def kill(self) -> None:
        """End only the supervisor, as a crash would; what it started goes on."""
        self._process.signal(signal.SIGKILL)
        self._wait(CLOSING_PATIENCE)
        self._channel.close()

    def _wait(self, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while self._process.running():
            if time.monotonic() >= deadline:
                return False
            time.sleep(GLANCE)
        return True

    def leave(self) -> None:
        """Let it go on without us."""
        self._channel.close()


def _become(directory: Path, supervise: Callable[[int], int], descriptor: int) -> NoReturn:
    """The child of a fork: a session and a log of its own, and never back into the parent's program."""
    status = 1
    try:
        os.setsid()
        with _open_log(directory) as log, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        status = supervise(descriptor)
    except BaseException:  # noqa: BLE001  the outermost guard of a process: nothing above could say it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _open_log(directory: Path) -> BinaryIO:
    return open(directory / LOG_NAME, "ab", opener=_private)


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
