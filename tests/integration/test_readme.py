"""The README's tour: every command of it works, and its Python does too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import free_port
from tests.proxies import SHOAL

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).parents[2] / "README.md"
NOT_AGAIN = ("make setup", ". .venv/bin/activate")  # these tests run in what they made


def tour() -> str:
    text = README.read_text()
    return text[text.index("## Five minutes") : text.index("## What there is")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", tour(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[str]:
    """The tour's commands as one script, with a directory and ports of our own; stopped again if it breaks off."""
    text = "".join(blocks("console"))
    for line in NOT_AGAIN:
        assert line in text
        text = text.replace(line + "\n", "")
    directory = tmp_path / "tour"
    text = text.replace("/tmp/shoal-tour", str(directory))
    for port in ("22121", "22122"):
        text = text.replace(port, str(free_port()))
    text = text.replace("shoal status\n", "shoal status || true\n")  # 1 while the killed one is on its way back
    yield text
    if directory.exists():
        subprocess.run([SHOAL, "down"], cwd=directory, check=False, capture_output=True, timeout=30)


@pytest.mark.timeout(120)
def test_every_command_of_the_tour_works(script: str) -> None:
    path = f"{SHOAL.parent}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script, env={**os.environ, "PATH": path},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    seen = run.stdout + run.stderr
    assert run.returncode == 0, seen
    assert "['name 1', 'name 500', 'name 999'] 2" in seen
    assert '"user:1000" is on shard a' in seen
    assert re.search(r"^True after [1-4]\.\d s$", seen, flags=re.MULTILINE), seen
    assert "down, in" in seen


@pytest.mark.timeout(60)
@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_of_the_tour_works(code: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-"],
        input=code, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
