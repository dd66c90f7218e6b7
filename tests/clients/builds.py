"""Brings the libraries and compiles the programs in tests/clients, each language when it is first needed.

Owns: target/clients, where all of it goes, the downloads' caches included: nothing is left in anybody's home. What was
built is known by its stamp, which names the files it was built from, and costs nothing again.
Rules: versions stand in the lock files here and nowhere else; a download is bounded in time and tried three times; a
tool that is missing or too old is a skip that names it, anything else that fails is a failure that shows the output.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import have

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILT = ROOT / "target" / "clients"
CACHE = BUILT / "cache"
TRIES = 3


@dataclass(frozen=True)
class Build:
    """One way to get programs ready. `inputs` are files here; `make` brings the parts and puts them into a folder."""

    name: str
    source: Path
    tools: Mapping[str, tuple[int, ...]]  # program -> oldest version that will do
    inputs: tuple[str, ...]
    make: Callable[[Path], None]
    command: Callable[[Path, str], list[str]]
    environment: Callable[[Path], dict[str, str]] = lambda _: {}

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class Ready:
    """A build that is done."""

    build: Build
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return self.build.environment(self.folder)

    def command(self, file: str) -> list[str]:
        return self.build.command(self.folder, file)


class NotReadyError(AssertionError):
    """A step of a build failed; the message shows which, and what it said."""


def ready(build: Build) -> Ready:
    """Make what is not made yet. Skips the test if this machine lacks a tool for it."""
    for tool, oldest in build.tools.items():
        _require(tool, oldest)
    outcome = _outcome(build)
    if isinstance(outcome, NotReadyError):
        pytest.fail(str(outcome), pytrace=False)
    return outcome


@functools.cache
def _outcome(build: Build) -> Ready | NotReadyError:
    """Cached, also if it fails: the next test need not wait for the same downloads again."""
    try:
        return _made(build)
    except NotReadyError as error:
        return error


def _made(build: Build) -> Ready:
    folder = BUILT / build.name
    stamp = BUILT / f"{build.name}.done"
    wanted = _fingerprint(build)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        build.make(folder)
        stamp.write_text(wanted)
    return Ready(build, folder)


def _fingerprint(build: Build) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for pattern in build.inputs for path in build.source.glob(pattern)):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    tools = " ".join(f"{tool}-{'.'.join(map(str, _version(tool)))}" for tool in build.tools)
    return f"{digest.hexdigest()} {tools}\n"


def _require(tool: str, oldest: tuple[int, ...]) -> None:
    if have(tool) is None:
        pytest.skip(f"no {tool}: `make test` installs it as root on Debian")
    if _version(tool) < oldest:
        pytest.skip(f"{tool} {_version(tool)} is older than {oldest}, which this client needs")


@functools.cache
def _version(tool: str) -> tuple[int, ...]:
    ask = [tool, "version" if tool == "go" else "--version"]
    text = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False).stdout
    return tuple(map(int, re.findall(r"\d+", re.sub(r"\x1b\[\d*m", "", text))[:2]))  # Maven's is in colour


def _run(
    argv: Sequence[str], seconds: float, *, tries: int = 1, cwd: Path = HERE, places: Mapping[str, str] | None = None
) -> None:
    """Run a step of a build. `tries` above 1 is for downloads, `places` are more environment."""
    said = ""
    for _ in range(tries):
        try:
            done = subprocess.run(
                argv, cwd=cwd, env={**os.environ, **(places or {})}, timeout=seconds,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            said = f"nothing after {seconds:g} s"
            continue
        if done.returncode == 0:
            return
        said = done.stdout[-3000:]
    times = f" {tries} times" if tries > 1 else ""
    message = f"cannot make the clients ready: `{' '.join(argv)}` failed{times}:\n{said}"
    raise NotReadyError(message)


# ----------------------------------------------------------------------------------------------------------- Python

PYTHON_SOURCE = HERE / "python"


def _nothing(folder: Path) -> None:
    """The libraries are in the virtual environment anyway."""


def _install_python(source: Path, requirements: str, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
    where = ["--cache-dir", str(CACHE / "pip"), "--target", str(folder)]
    _run([*pip, *where, "--requirement", requirements], 120, tries=TRIES, cwd=source)


def _python(source: Path, folder: Path, module: str) -> list[str]:
    return [sys.executable, "-m", f"tests.clients.{source.name}.{module}"]


def _python_path(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}:{folder}"}


def _installed(name: str, source: Path, requirements: str = "requirements.txt") -> Build:
    """Programs in a folder here, with the libraries that a file of it names."""
    install, command = functools.partial(_install_python, source, requirements), functools.partial(_python, source)
    return Build(name, source, {}, (requirements,), install, command, _python_path)


PYTHON = Build("python", PYTHON_SOURCE, {}, (), _nothing, functools.partial(_python, PYTHON_SOURCE), _python_path)
PYTHON_MORE = _installed("python-more", PYTHON_SOURCE)
APPLICATIONS = _installed("applications", HERE / "applications")
ARQ = _installed("arq", HERE / "applications", "arq.txt")


# ---------------------------------------------------------------------------------------------------------- Node.js


def _install_node(source: Path, folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, folder)
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund"]
    _run(["npm", "ci", *quiet, "--cache", str(CACHE / "npm")], 120, tries=TRIES, cwd=folder)


def _node(source: Path, folder: Path, file: str) -> list[str]:
    return ["node", str(source / file)]


def _node_path(folder: Path) -> dict[str, str]:
    return {"NODE_PATH": str(folder / "node_modules")}


def _npm(name: str, source: Path, oldest: int) -> Build:
    """Programs in a folder here, with the packages that its package-lock.json names; for this Node.js and newer."""
    tools = {"node": (oldest, 0), "npm": (7, 0)}
    install, command = functools.partial(_install_node, source), functools.partial(_node, source)
    return Build(name, source, tools, ("package*.json",), install, command, _node_path)


NODE = _npm("node", HERE / "node", 18)
NODE_20 = replace(NODE, tools={"node": (20, 0), "npm": (7, 0)})
NODE_APPLICATIONS = _npm("node-applications", HERE / "applications", 20)


# --------------------------------------------------------------------------------------------------------------- Go

GO_SOURCE = HERE / "go"


def _build_go(folder: Path, *, newest: bool) -> None:
    """The newest go-redis wants a Go that Debian 12 does not have; an older one does with what there is."""
    modules = "newest.mod" if newest and _version("go") >= (1, 26) else "go.mod"
    places = {
        "GOMODCACHE": str(CACHE / "go-mod"),
        "GOCACHE": str(CACHE / "go-build"),
        "GOFLAGS": f"-modcacherw -modfile={modules}",  # writable, so that `make clean` can remove it
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    quick = ["-gcflags=all=-N -l", "-ldflags=-s -w"]  # half the time; most of it is Go's own library
    _run(["go", "mod", "download"], 60, tries=TRIES, cwd=GO_SOURCE, places=places)
    _run(["go", "build", *quick, "-o", f"{folder}/", "."], 300, cwd=GO_SOURCE, places=places)


def _go(folder: Path, file: str) -> list[str]:
    return [str(folder / file)]


GO_INPUTS = ("*.go", "*.mod", "*.sum")
GO = Build("go", GO_SOURCE, {"go": (1, 18)}, GO_INPUTS, functools.partial(_build_go, newest=True), _go)
GO_OLDER = Build("go-older", GO_SOURCE, {"go": (1, 18)}, GO_INPUTS, functools.partial(_build_go, newest=False), _go)


# ------------------------------------------------------------------------------------------------------------- Java

JAVA_SOURCE = HERE / "java"


def _build_java(folder: Path) -> None:
    """Maven only brings the libraries: javac alone saves the downloads that Maven's own compiler would need."""
    maven = ["mvn", "--batch-mode", "--quiet", f"-Dmaven.repo.local={CACHE / 'maven'}"]
    copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder / 'lib'}"]
    _run([*maven, *copy], 120, tries=TRIES, cwd=JAVA_SOURCE)
    sources = [str(path) for path in sorted(JAVA_SOURCE.glob("*.java"))]
    _run(["javac", "-cp", f"{folder / 'lib'}/*", "-d", str(folder / "classes"), *sources], 120)


def _java(folder: Path, name: str) -> list[str]:
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{folder / 'classes'}:{folder / 'lib'}/*", name]


JAVA = Build(
    "java", JAVA_SOURCE, {"mvn": (3, 6), "javac": (17, 0)}, ("*.java", "pom.xml"), _build_java, _java
)  # fmt: skip
