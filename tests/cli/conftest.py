"""Runs commands as a user would, and gives what they printed and exited with as one text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.cli.app import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def shoal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`shoal("check", "-f", "x.yaml")` in a directory of its own: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    def call(*arguments: str) -> str:
        status = run(arguments)
        out, err = capfd.readouterr()
        return f"exit {status}\n" + _stream("stdout", out) + _stream("stderr", err)

    return call


def _stream(name: str, text: str) -> str:
    return f"--- {name}\n{text}" if text else ""
