"""The two programs that a comparison runs: the real nutcracker, and `shoal-nutcracker` in its place.

Owns: how each is started on a nutcracker.yml, when it is ready, and how its statistics are read.
Rule: both get the same flags; what one is given that the other lacks (`--workers`) changes nothing that a client sees.
Used by: the tests of compat that compare the two, and the recorders of nutcracker alone.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import LOOPBACK, Process, free_port, have, release_port, wait_until
from tests.integration.wire import connected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.compat.numbered import Place

NUTCRACKER = "nutcracker"
SHOAL = "shoal"
NOWHERE = "no.such.host.invalid"
SHORT_LOOKS = {"RES_OPTIONS": "timeout:1 attempts:1", "LOCALDOMAIN": "invalid"}
"""Where no name server can be reached, nutcracker waits for it in the midst of everything."""
START_LIMIT = 15.0
STATS_INTERVAL_MS = 10


@dataclass
class Rival(Process):
    """One of the two, on a file. Ready once it answers on every one of `listens`."""

    listens: tuple[Place, ...] = ()
    stats_port: int = field(default_factory=free_port)

    def start(self) -> None:
        self.launch()
        wait_until(lambda: all(map(self._answers, self.listens)), START_LIMIT, f"{self.name} to answer everywhere")

    def _answers(self, listen: Place) -> bool:
        assert self.running(), f"{self.name} ended:\n{self.log_tail()}"
        with connected(listen, 2.0) as client:
            client.sendall(b"*1\r\n$4\r\nPING\r\n")
            return client.recv(64).endswith(b"\r\n")

    def stats_line(self) -> bytes:
        with socket.create_connection((LOOPBACK, self.stats_port), timeout=5) as client, client.makefile("rb") as text:
            return text.read()

    def stats(self) -> Any:
        """nutcracker shows what it had counted at the read before: `wait_until` says when to believe it."""
        return json.loads(self.stats_line())

    def kill(self) -> None:
        super().kill()
        release_port(self.stats_port)


def program(name: str) -> list[str]:
    """The command of a rival without its flags."""
    if name == SHOAL:
        return [sys.executable, "-m", "shoal.cli.nutcracker"]
    found = have(NUTCRACKER) or pytest.skip("no nutcracker: `make test` installs it as root on Debian")
    return [str(found)]


@contextlib.contextmanager
def rival(name: str, config: str, listens: tuple[Place, ...], directory: Path, workers: int = 2) -> Iterator[Rival]:
    """A rival on this configuration, which is written to `directory`, not started yet; killed by its pid at the end."""
    here = directory / name
    here.mkdir(parents=True, exist_ok=True)
    file = here / "nutcracker.yml"
    file.write_text(config)
    made = Rival(name, [], here, SHORT_LOOKS, listens=listens)
    flags = ["-c", str(file), "-a", LOOPBACK, "-s", str(made.stats_port), "-i", str(STATS_INTERVAL_MS), "-o", ""]
    made.argv = [*program(name), *flags, *(["--workers", str(workers)] if name == SHOAL else [])]
    try:
        yield made
    finally:
        made.kill()


@contextlib.contextmanager
def started(name: str, config: str, listens: tuple[Place, ...], directory: Path, workers: int = 2) -> Iterator[Rival]:
    """The same, serving."""
    with rival(name, config, listens, directory, workers) as made:
        made.start()
        yield made
