"""Reads shoal.yaml into a checked Topology, or says all that is wrong with it, each with line, key path and hint.

Owns the words of the messages. Rule: a file gives a Topology or a ConfigError and nothing else, and all of its
problems at once; a problem of one section does not hide those of the others, and brings no second one about.

    text ── document ──► plain values ── models ──► sections that are right ── rules ──► Topology
                │ flaws                    │ errors                              │ problems
                └──────────────────────────┴──── sorted by line ─────────────────┴──────► ConfigError

Called by every command that takes `-f FILE`, and with `parse` by `Cluster`.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shoal import complaints, document
from shoal.complaints import dotted
from shoal.document import Document
from shoal.errors import ConfigError, EngineError
from shoal.topology import Topology, problems

KeyPath = tuple[str | int, ...]

_NAMED = frozenset({"shards", "hosts", "redis", "pools"})
"""Sections of named things, of which one may be broken and the others still be judged."""


@dataclass
class _Findings:
    """What is wrong so far, where it stands, and what must be left out to look for more."""

    source: str
    data: Any
    document: Document | None = None
    errors: list[tuple[tuple[int, int], ConfigError]] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)
    extra: set[KeyPath] = field(default_factory=set)

    def add(self, path: KeyPath, what: str, hint: str | None = None, *, place: tuple[int, int] | None = None) -> None:
        """Note an error at a key path, and that what stands there cannot be relied on."""
        written = self.written(path)
        self.broken.add(written[: 2 if written[:1] and written[0] in _NAMED else 1])
        self._note(path, what, hint, place)

    def add_extra(self, path: KeyPath, what: str, hint: str | None) -> None:
        """Note a key that should not be there; without it, its section is as good as before."""
        self.extra.add(self.written(path))
        self._note(path, what, hint, None)

    def _note(self, path: KeyPath, what: str, hint: str | None, place: tuple[int, int] | None) -> None:
        place = place or self.place(path)
        self.errors.append((place or (0, 0), ConfigError(what, where=self.where(path, place), hint=hint)))

    def place(self, path: KeyPath) -> tuple[int, int] | None:
        """Line and column of a key path; None if the file has nothing of it."""
        written = self.written(path)
        if self.document is None or (path and not written):
            return None
        return self.document.place(written)

    def where(self, path: KeyPath, place: tuple[int, int] | None) -> str:
        """How an error says it: "shoal.yaml:12:5 shards.a.replicas"."""
        source = f"{self.source}:{place[0]}:{place[1]}" if place else self.source
        return f"{source} {dotted(self.written(path)) or self._absent(path)}".rstrip()

    def also(self, path: KeyPath) -> str:
        """Another place that a message speaks of."""
        place, name = self.place(path), dotted(self.written(path)) or self._absent(path)
        return f"line {place[0]}, {name}" if place else name

    def written(self, path: KeyPath) -> KeyPath:
        """The part of a key path that the file has."""
        path = self._as_written(path)
        return path[: _depth(self.data, path)]

    def _as_written(self, path: KeyPath) -> KeyPath:
        """The one pool's name may be the cluster's, and its settings may stand under `proxy`."""
        if path[:1] != ("pools",) or _depth(self.data, path[:1]):
            return path
        return ("proxy", *path[2:]) if len(path) > 2 else ("cluster",)

    def _absent(self, path: KeyPath) -> str:
        """What to call a key path of which the file has nothing: its default is meant."""
        return str(self._as_written(path)[0]) if path else ""

    def raise_if_any(self) -> None:
        if self.errors:
            raise ConfigError.together([error for _, error in sorted(self.errors, key=lambda pair: pair[0])])


def _depth(data: Any, path: KeyPath) -> int:
    """How many parts of a key path lead to something."""
    for depth, part in enumerate(path):
        in_map = isinstance(data, Mapping) and part in data
        in_list = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if not (in_map or in_list):
            return depth
        data = data[part]
    return len(path)


def load(path: Path) -> Topology:
    """Read and check a topology file."""
    read = document.read(_text(path), str(path))
    if read.data is None:
        raise ConfigError("the topology is empty", where=str(path), hint="`shoal init` writes one to begin with")
    findings = _Findings(str(path), read.data, read)
    for flaw in read.flaws:
        findings.add(flaw.path, flaw.what, flaw.hint, place=flaw.place)
    if isinstance(read.data, dict):
        _resolve_engine(read.data, path.parent)
        _take_password(read.data, path.parent, findings)
    return _check(findings)


def parse(data: Mapping[str, Any], source: str = "topology") -> Topology:
    """Check a topology that is data already."""
    return _check(_Findings(source, data))


@contextlib.contextmanager
def located(path: Path) -> Iterator[None]:
    """Let an error about a setting that shows only when it is used (`engine`) say where in the file it stands."""
    try:
        yield
    except EngineError as error:
        if error.where == "engine":
            read = document.read(_text(path), str(path))
            findings = _Findings(str(path), read.data, read)
            error.where = findings.where(("engine",), findings.place(("engine",)))
        raise


def _check(findings: _Findings) -> Topology:
    topology = None
    try:
        topology = Topology.model_validate(findings.data)
    except ValidationError as error:
        for found in complaints.of(error):
            if found.extra:
                findings.add_extra(found.path, found.what, found.hint)
            else:
                findings.add(found.path, found.what, found.hint)
    sound = topology or _sound_part(findings)
    for problem in problems(sound, frozenset(findings.broken)) if sound else ():
        what = f"{problem.what} (see {findings.also(problem.other)})" if problem.other else problem.what
        findings.add(problem.path, what, problem.hint)
    findings.raise_if_any()
    assert topology is not None, "without errors there is a topology"  # noqa: S101
    return topology


def _sound_part(findings: _Findings) -> Topology | None:
    """The topology without what is broken, so that the rules can be asked about the rest."""
    if not isinstance(findings.data, Mapping):
        return None
    if {("proxy",), ("pools",)} & findings.broken:
        findings.broken |= {("proxy",), ("pools",)}
    data = _without(findings.data, findings.broken | findings.extra)
    if not data.get("shards"):
        data["shards"] = {"stand-in": None}
        findings.broken.add(("shards",))
    try:
        return Topology.model_validate(data)
    except ValidationError:
        return None


def _without(data: Any, paths: set[KeyPath]) -> Any:
    """A copy without what stands at these key paths."""
    if isinstance(data, Mapping):
        return {key: _without(item, _below(paths, key)) for key, item in data.items() if (key,) not in paths}
    return data


def _below(paths: set[KeyPath], key: Any) -> set[KeyPath]:
    return {path[1:] for path in paths if path[:1] == (key,)}


# ---------------------------------------------------------------------------------------------------- files beside it


def _text(path: Path) -> str:
    return document.text_of(path, "give it with -f, or write one with `shoal init`")


def _resolve_engine(data: dict[str, Any], directory: Path) -> None:
    """A path is relative to the file; a bare name is looked for on PATH."""
    engine = data.get("engine")
    if isinstance(engine, str) and os.sep in engine:
        data["engine"] = str(directory.absolute() / engine)


def _take_password(data: dict[str, Any], directory: Path, findings: _Findings) -> None:
    """Put the password in its place in the data, from its file."""
    auth = data.get("auth")
    if not isinstance(auth, dict):
        return
    if "password" in auth:
        hint = "write it to a file of mode 0600, and `password_file: ./secret` here"
        findings.add(("auth", "password"), "a password does not belong in the topology", hint)
    name = auth.get("password_file")
    if not isinstance(name, str):
        return
    secret = directory / name
    try:
        content = secret.read_bytes()
        mode = secret.stat().st_mode
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        hint = f"(umask 077; head -c 24 /dev/urandom | base64 > {secret})"
        findings.add(("auth", "password_file"), f"the password cannot be read: {secret}: {why}", hint)
        return
    if stat.S_IMODE(mode) & stat.S_IROTH:
        what = f"everybody on this machine can read the password: {secret} has mode {stat.S_IMODE(mode):04o}"
        findings.add(("auth", "password_file"), what, f"chmod 600 {secret}")
    try:
        data["auth"] = {**auth, "password": content.decode("utf-8").removesuffix("\n").removesuffix("\r")}
    except UnicodeDecodeError:
        findings.add(("auth", "password_file"), f"the password in {secret} is not UTF-8 text")
