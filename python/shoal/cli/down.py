"""`shoal down`: stops the cluster on this machine, in order, and returns when nothing of it runs."""

import asyncio
import os
import signal
import time
from pathlib import Path

from shoal import config, state
from shoal.cli.options import DEFAULT_FILE, FileOption, StateOption
from shoal.cli.printer import Printer
from shoal.errors import ProcessError

PATIENCE = 120.0  # a big data set is saved first
GLANCE = 0.02


def command(file: FileOption = DEFAULT_FILE, directory: StateOption = None) -> int:
    """Stop the cluster on this machine."""
    from shoal.up import stop_leftovers

    printer = Printer()
    if directory is None:
        config.load(file)  # a mistyped name is an error, not a cluster that is down
        directory = state.beside(file.absolute())
    began = time.monotonic()
    pid = state.lock_holder(directory)
    identity = state.load_identity(directory)
    if pid is not None:
        _stop_supervisor(pid, directory)
        printer.talk(f"down, in {time.monotonic() - began:.1f} s")
    elif identity is not None and (stopped := asyncio.run(stop_leftovers(directory, identity.cluster))):
        printer.talk(f"down: stopped {stopped} parts that a killed supervisor had left")
    else:
        printer.talk("nothing is up here")
    return 0


def _stop_supervisor(pid: int, directory: Path) -> None:
    """Ask it to stop everything, and wait until it has let go of the state directory."""
    try:
        if pid:
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise ProcessError(f"the supervisor (pid {pid}) belongs to another user", hint="use that user") from None
    deadline = time.monotonic() + PATIENCE
    while state.lock_holder(directory) == pid:
        if time.monotonic() > deadline:
            raise ProcessError(
                f"the supervisor (pid {pid}) did not stop within {PATIENCE:g} s",
                where=str(directory / "up.log"),
                hint="its log and `shoal status` say what it waits for",
            )
        time.sleep(GLANCE)
