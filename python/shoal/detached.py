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
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from shoal.errors import ProcessError, ShoalError
from shoal.events import Event
from shoal.hosts import tail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG_NAME = "up.log"
LOG_TAIL = 5


class StartError(ShoalError):
    """The supervisor's own error, as it told it; it has its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code  # type: ignore[misc]  # of the error that it stands for


class Report:
    """The child's side: what it tells its parent."""

    def __init__(self, descriptor: int) -> None:
        self.channel = socket.socket(fileno=descriptor)

    def event(self, event: Event) -> None:
        self._send({"event": event.model_dump()})

    def ready(self) -> None:
        self._send({"ready": True})

    def failed(self, error: ShoalError) -> None:
        self._send({"failed": str(error), "exit_code": error.exit_code})

    def _send(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # the parent has gone: then nobody waits for it
            self.channel.sendall(json.dumps(message).encode() + b"\n")


class Detached:
    """The parent's side: one supervisor that runs apart."""

    def __init__(self, topology_file: Path, directory: Path, *, tied: bool = False, host: str | None = None) -> None:
        self.directory = directory
        ours, theirs = socket.socketpair()
        with theirs, open(self._log(), "ab", opener=_private) as log:
            self._channel = ours
            self._child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "shoal", "up", "-f", str(topology_file), "--state", str(directory)),
                    *("--report-fd", str(theirs.fileno())),
                    *(("--tied",) if tied else ()),
                    *(("--host", host) if host else ()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

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
        status = self._child.wait()
        last = tail(self._log(), LOG_TAIL)
        return ProcessError(f"the supervisor ended with {status}", where=str(self._log()), hint=f"its log ends: {last}")

    def _log(self) -> Path:
        return self.directory / LOG_NAME

    def running(self) -> bool:
        return self._child.poll() is None

    def stop(self, patience: float) -> None:
        """Have it stop everything and end."""
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            raise ProcessError(
                f"the supervisor (pid {self.pid}) did not stop within {patience:g} s", where=str(self._log())
            ) from None
        finally:
            self._channel.close()

    def kill(self) -> None:
        """End only the supervisor, as a crash would; what it started goes on."""
        self._child.kill()
        self._child.wait()
        self._channel.close()

    def leave(self) -> None:
        """Let it go on without us."""
        self._channel.close()


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
