"""`shoal demo`, as `make demo` runs it: every promise kept, and nothing left behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.harness import ENGINES, WHY_NO_ENGINE, wait_until
from tests.proxies import SHOAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the demo writes goes to `tmp_path`, and its clusters are known by that in their command lines."""
    return {**os.environ, "TMPDIR": str(tmp_path)}


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    wait_until(lambda: not processes(tmp_path), 10, "every process of the cluster to end")


def processes(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if process.pid != os.getpid() and any(str(directory) in word for word in words):
            found.append(process)
    return found


@pytest.mark.timeout(150)
@pytest.mark.parametrize("engine_name", sorted(ENGINES))
def test_the_demo_keeps_every_promise(engine_name: str, environment: dict[str, str], tmp_path: Path) -> None:
    if ENGINES[engine_name]() is None:
        pytest.skip(WHY_NO_ENGINE[engine_name])
    if engine_name == "valkey":
        environment["PATH"] = str(tmp_path)  # no server on PATH: the one in the wheel is used
    run = subprocess.run(
        [SHOAL, "demo", "--json"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr + run.stdout
    report = json.loads(run.stdout)
    assert report["kept"]
    assert len(report["promises"]) == 6
    assert min(report["acknowledged"].values()) > 100
    assert "kill -9" in run.stderr
    assert "names the new master" in run.stderr
    assert "new master committed" in run.stderr
    assert list(tmp_path.glob("shoal-*")) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("chapter", ["A cluster", "Traffic"])
def test_an_interrupted_demo_leaves_nothing(
    chapter: str, number: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    child = subprocess.Popen(
        [SHOAL, "demo"], env={**environment, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert any(chapter in line for line in iter(child.stdout.readline, ""))
        time.sleep(1.0)  # any moment will do: somewhere inside the chapter
        child.send_signal(number)
        child.communicate(timeout=20)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 130
    assert list(tmp_path.glob("shoal-*")) == []
