"""The state directory: what one cluster remembers on this machine between two runs.

    .shoal/
    ├── cluster.json    whose it is, where each part listened, and the rings its keys were written with
    ├── ports.json      the ports that `shoal up` chose, so that they stay the same
    ├── lock            held (flock) by the `shoal up` that runs; its pid is inside
    ├── units.json      name → pid and start time of every process, and how current a redis node's data is
    ├── events.jsonl    what happened, one line each; bounded
    ├── nodes/NAME/     a redis or sentinel: its configuration, data and log
    └── proxies/NAME/   a proxy: its log

Rule: a file is replaced whole (written beside, synced, renamed) or not at all; directories are 0700 and what may hold
a secret is 0600; nothing is written here without holding the lock. Processes are found by pid and start time, never by
name. Called by the supervisor (the only writer) and by all who look: `status`, `down`, the proxies (ports).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from shoal.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = 1
DIRECTORY_NAME = ".shoal"
LOCK_PATIENCE = 0.4  # a `status` that looks holds the lock for a moment

Kind = Literal["redis", "sentinel", "proxy"]
T = TypeVar("T")


class AlreadyUpError(StateError):
    """A second `up` on a running cluster."""

    exit_code = 1


class Record(BaseModel):
    """A file of the state directory, or an entry in one."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Identity(Record):
    """cluster.json. A cluster keeps its parts' addresses (sentinels know each other by them) and its rings."""

    cluster: str
    format: int = FORMAT
    created: str = ""
    parts: dict[str, str] = {}
    rings: dict[str, dict[str, Any]] = {}


class UnitRecord(Record):
    """A part as the supervisor last knew it; `pid` is None once it was stopped."""

    kind: Kind
    endpoint: str
    pid: int | None = None
    started: float | None = None
    """The process's own start time, which tells it from a later process with the same pid."""
    digest: str = ""
    """Of the settings it was started with."""
    role: Literal["master", "replica"] | None = None
    epoch: int | None = None
    """The config epoch in which a redis node was last the master or in sync with it; None if its data is older."""
    guarded: bool = False
    """Started with replica-priority 0, because its data may be older than its peers'."""


PORTS = TypeAdapter(dict[str, int])
UNITS = TypeAdapter(dict[str, UnitRecord])


def beside(topology_file: Path) -> Path:
    """The default state directory of a topology file."""
    return topology_file.parent / DIRECTORY_NAME


def load_ports(directory: Path) -> dict[str, int]:
    """The ports that `shoal up` chose; empty before the first `up`."""
    return _read(directory / "ports.json", PORTS, {})


def load_units(directory: Path) -> dict[str, UnitRecord]:
    return _read(directory / "units.json", UNITS, {})


def load_identity(directory: Path) -> Identity | None:
    return _read(directory / "cluster.json", TypeAdapter(Identity | None), None)


def node_directory(directory: Path, name: str, kind: Kind) -> Path:
    return directory / ("proxies" if kind == "proxy" else "nodes") / name


# ------------------------------------------------------------------------------------------------------------- files


def write_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Put `text` in place of the file: whoever reads it sees the old or the new text, also after a power cut."""
    try:
        make_private(path.parent)
        descriptor, beside_it = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _not_writable(path.parent, error) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(beside_it).replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise _not_writable(path.parent, error) from error
    finally:
        Path(beside_it).unlink(missing_ok=True)


def make_private(path: Path) -> None:
    """Make a directory, and those above it, for its owner alone. What is there stays as it is."""
    if not path.is_dir():
        make_private(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_writable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"state directory {path} cannot be written: {error.strerror}",
        hint="make it writable for this user, or choose another with --state DIR",
    )


def _read(path: Path, shape: TypeAdapter[T], absent: T) -> T:
    try:
        return shape.validate_json(path.read_bytes())
    except FileNotFoundError:
        return absent
    except NotADirectoryError:
        return absent
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}", hint="use the user that started it") from error
    except ValidationError as error:
        raise StateError(
            f"{path.name} does not make sense: {error.errors()[0]['msg']}",
            where=str(path),
            hint="restore it, or remove the state directory (and the data in it) to start anew",
        ) from error


# -------------------------------------------------------------------------------------------------------------- lock


def lock_holder(directory: Path) -> int | None:
    """The pid of the `shoal up` that runs on this directory; None if there is none (0 if it does not say)."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _pid_in(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _take_lock(path: Path) -> int:
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _not_writable(path, error) from error
    patience = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < patience:
                time.sleep(0.02)
                continue
            pid = _pid_in(descriptor)
            os.close(descriptor)
            raise _already_up(path, pid) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor


def _already_up(path: Path, pid: int) -> AlreadyUpError:
    who = pid or "unknown"
    return AlreadyUpError(
        f"the cluster in {path} is already up (pid {who})",
        hint=f"look with `shoal status`, stop it with `shoal down` (or by ending process {who})",
    )


# ------------------------------------------------------------------------------------------------------------- whole


@dataclass(frozen=True)
class State:
    """A state directory that is ours and locked."""

    directory: Path

    def remember_ports(self, ports: Mapping[str, int]) -> None:
        self._write_json("ports.json", dict(ports))

    def remember_units(self, units: Mapping[str, UnitRecord]) -> None:
        self._write_json("units.json", {name: record.model_dump() for name, record in units.items()})

    def remember_identity(self, identity: Identity) -> None:
        self._write_json("cluster.json", identity.model_dump())

    def node_directory(self, name: str, kind: Kind) -> Path:
        """Where a part lives, made if it is not there."""
        path = node_directory(self.directory, name, kind)
        try:
            make_private(path)
        except OSError as error:
            raise _not_writable(path, error) from error
        return path

    def _write_json(self, name: str, value: Any) -> None:
        write_file(self.directory / name, json.dumps(value, indent=1) + "\n")


def require_usable(directory: Path, cluster: str) -> None:
    """Make the directory if need be; refuse one that is another cluster's, or whose cluster is up."""
    _make(directory)
    _require_ours(directory, cluster)
    pid = lock_holder(directory)
    if pid is not None:
        raise _already_up(directory, pid)


@contextlib.contextmanager
def locked(directory: Path, cluster: str) -> Iterator[State]:
    """Own the state directory of `cluster`: made at the first start, refused if it is another's or in use."""
    _make(directory)
    _require_ours(directory, cluster)
    descriptor = _take_lock(directory)
    try:
        state = State(directory)
        if load_identity(directory) is None:
            state.remember_identity(Identity(cluster=cluster, created=datetime.now(UTC).isoformat(timespec="seconds")))
        yield state
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _make(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise StateError(f"state directory {directory} is a file", hint="choose another with --state DIR")
    try:
        make_private(directory)
    except OSError as error:
        raise _not_writable(directory, error) from error


def _require_ours(directory: Path, cluster: str) -> None:
    identity = load_identity(directory)
    if identity is None:
        foreign = sorted(entry.name for entry in directory.iterdir() if entry.name not in ("lock", "up.log"))
        if foreign:
            raise StateError(
                f"{directory} is not a state directory of Shoal: it holds {foreign[0]!r} and no cluster.json",
                hint="choose another with --state DIR",
            )
        return
    if identity.format > FORMAT:
        raise StateError(
            f"state directory {directory} was written by a newer Shoal (format {identity.format})",
            hint="use that version, or another directory with --state DIR",
        )
    if identity.cluster != cluster:
        raise StateError(
            f'state directory {directory} belongs to cluster "{identity.cluster}", not "{cluster}"',
            hint="choose another with --state DIR, or put the name back under `cluster` in the file",
        )
