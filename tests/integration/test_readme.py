"""The README's tours: every command of them works, and their Python does too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import free_port
from tests.proxies import SHOAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

README = Path(__file__).parents[2] / "README.md"
NOT_AGAIN = ("make setup", ". .venv/bin/activate")  # these tests run in what they made
PORTS = re.compile(r"\b(?:22121|22122|22222|22180|700[1-7])\b")


def section(title: str) -> str:
    text = README.read_text()
    start = text.index(f"## {title}\n")
    return text[start : text.index("\n## ", start)]


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """A tour's commands as one script, with a directory and ports of our own; stopped again if it breaks off."""
    directory = tmp_path / "tour"
    ports: dict[str, str] = {}

    def written(title: str) -> str:
        text = "".join(blocks(title, "console"))
        for line in NOT_AGAIN:
            text = text.replace(line + "\n", "")
        text = re.sub(r"/tmp/shoal-[a-z]+", str(directory), text)
        text = PORTS.sub(lambda port: ports.setdefault(port[0], str(free_port())), text)
        return text.replace("shoal status\n", "shoal status || true\n")  # 1 while the killed one is on its way back

    yield written
    if directory.exists():
        subprocess.run([SHOAL, "down"], cwd=directory, check=False, capture_output=True, timeout=30)
        with suppress(OSError, ValueError):
            os.kill(int((directory / "pid").read_text()), signal.SIGKILL)


def run(script: str) -> str:
    path = f"{SHOAL.parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script, env={**os.environ, "PATH": path},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    seen = ended.stdout + ended.stderr
    assert ended.returncode == 0, seen
    return seen


def test_what_is_left_out_of_the_tour_is_in_it() -> None:
    assert all(line in section("Five minutes") for line in NOT_AGAIN)


@pytest.mark.timeout(120)
def test_every_command_of_the_tour_works(script: Callable[[str], str]) -> None:
    seen = run(script("Five minutes"))
    assert "['name 1', 'name 500', 'name 999'] 2" in seen
    assert '"user:1000" is on shard a' in seen
    assert re.search(r"^True after [1-4]\.\d s$", seen, flags=re.MULTILINE), seen
    assert "down, in" in seen


@pytest.mark.timeout(120)
def test_every_command_of_the_tour_from_twemproxy_works(script: Callable[[str], str]) -> None:
    seen = run(script("From Twemproxy"))
    assert "configuration file 'nutcracker.yml' syntax is ok" in seen
    assert "pool main: 0 keys move" in seen
    assert "from now on; nothing is ejected any more" in seen
    assert re.search(r"^True after [1-4]\.\d s$", seen, flags=re.MULTILINE), seen
    assert seen.count("1000 of 1000 are there") == 2
    assert "down, in" in seen


@pytest.mark.timeout(60)
@pytest.mark.parametrize("code", blocks("Five minutes", "python"))
def test_the_python_of_the_tour_works(code: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-"],
        input=code, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
