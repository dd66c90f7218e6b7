"""Runs commands as a user would, and gives what they printed and exited with as one text."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from shoal.cli import app, nutcracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from shoal.log import Log
    from shoal.serving import Service

    Handlers = Mapping[signal.Signals, Callable[[], None]]
    Act = Callable[[Log, Callable[[], Service], Handlers], None]


@pytest.fixture
def run_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[Callable[[Sequence[str]], int], Sequence[str]], str]:
    """Runs a program's `run` in a directory of its own: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    def call(run: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> str:
        status = run(arguments)
        out, err = capfd.readouterr()
        return f"exit {status}\n" + _stream("stdout", out) + _stream("stderr", err)

    return call


@pytest.fixture
def shoal(run_there: Callable[..., str]) -> Callable[..., str]:
    """`shoal("check", "-f", "x.yaml")`."""
    return lambda *arguments: run_there(app.run, arguments)


@pytest.fixture(name="nutcracker")
def shoal_nutcracker(run_there: Callable[..., str]) -> Callable[..., str]:
    """`nutcracker("-t", "-c", "x.yml")`, which is `shoal-nutcracker -t -c x.yml`."""
    return lambda *arguments: run_there(nutcracker.run, arguments)


class Daemon:
    """Stands for `daemon.serve`: keeps what it is to serve, and does what a test puts in `act`."""

    def __init__(self) -> None:
        self.services: list[Service] = []
        self.act: Act = lambda *_: None

    def serve(self, service: Service, log: Log, load: Callable[[], Service], handlers: Handlers | None = None) -> None:
        self.services.append(service)
        self.act(log, load, handlers or {})


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """Nothing is served."""
    fake = Daemon()
    monkeypatch.setattr("shoal.daemon.serve", fake.serve)
    before = signal.getsignal(signal.SIGTERM)
    yield fake
    signal.signal(signal.SIGTERM, before)


def _stream(name: str, text: str) -> str:
    return f"--- {name}\n{text}" if text else ""
