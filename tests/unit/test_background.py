"""The background: what goes on there, what the terminal hears of it, and whose a pid file is."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shoal.background import PidFile
from shoal.errors import ConfigError
from tests.harness import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import os, sys, time
from pathlib import Path
from shoal.background import PidFile, start
pid_file = PidFile(Path("pid"))
def program(waiting):
    pid_file.write()
    try:
        {body}
    finally:
        pid_file.remove()
    return 0
outcome = start(program, {patience})
print(outcome.text)
sys.exit(outcome.code)
"""
SERVES = "waiting.ready(); time.sleep(60)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pid"


@pytest.fixture(autouse=True)
def nothing_stays(path: Path) -> Iterator[None]:
    yield
    if path.exists():
        os.kill(int(path.read_text()), signal.SIGKILL)


def start(directory: Path, body: str, patience: float = 30) -> tuple[int, str]:
    """The exit code of whoever started `body` in the background, and what it was told."""
    text = PROGRAM.format(body=body, patience=patience)
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=directory, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def test_the_terminal_is_free_once_it_serves(tmp_path: Path, path: Path) -> None:
    assert start(tmp_path, f"time.sleep(0.2); {SERVES}") == (0, "")
    assert path.exists()


def test_it_runs_where_it_was_started_and_has_no_terminal(tmp_path: Path, path: Path) -> None:
    start(tmp_path, SERVES)
    pid = int(path.read_text())
    process = Path(f"/proc/{pid}")
    parent, _, session, terminal = (process / "stat").read_text().rpartition(") ")[2].split()[1:5]
    assert (parent, terminal) == ("1", "0")
    assert session not in (str(pid), str(os.getsid(0)))
    assert (process / "cwd").readlink() == tmp_path
    assert {str((process / f"fd/{stream}").readlink()) for stream in range(3)} == {os.devnull}
    assert "Umask:\t0000" in (process / "status").read_text()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("waiting.failed('the port is taken')", "the port is taken"),
        ("pass", "it ended before it served"),
        ("os._exit(3)", "it ended before it served"),
        ("os.kill(os.getpid(), 9)", "it ended before it served"),
    ],
)
def test_a_start_that_fails_is_told(body: str, told: str, tmp_path: Path, path: Path) -> None:
    assert start(tmp_path, body) == (1, told)
    path.unlink(missing_ok=True)


def test_a_bug_is_told_too(tmp_path: Path) -> None:
    code, told = start(tmp_path, "1 / 0")
    assert code == 1
    assert "ZeroDivisionError" in told


def test_nobody_waits_longer_than_the_patience(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert start(tmp_path, "time.sleep(60)", patience=0.2) == (0, "")
    assert time.monotonic() - begun < 10


def test_what_fails_after_it_served_is_told_to_nobody(tmp_path: Path, path: Path) -> None:
    assert start(tmp_path, "waiting.ready(); waiting.failed('too late')") == (0, "")
    wait_until(lambda: not path.exists(), 10, "the program to end")


# -------------------------------------------------------------------------------------------------------- the pid file


def test_a_pid_file_has_the_digits_and_nothing_else(path: Path) -> None:
    path.write_text("something older and longer\n")
    PidFile(path).write()
    assert path.read_bytes() == str(os.getpid()).encode()
    PidFile(path).remove()
    assert not path.exists()


def test_others_may_read_it_and_not_write_it(path: Path) -> None:
    before = os.umask(0)
    try:
        PidFile(path).write()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    PidFile(path).remove()


@pytest.mark.parametrize("content", ["1", "", "x", "-1", "99999999999999999999"])
def test_what_another_has_written_is_not_removed(content: str, path: Path) -> None:
    path.write_text(content)
    PidFile(path).remove()
    assert path.read_text() == content
    path.unlink()


def test_it_is_held_while_the_process_named_in_it_runs(path: Path) -> None:
    file = PidFile(path)
    assert not file.held()
    with subprocess.Popen(["sleep", "60"]) as other:
        path.write_text(str(other.pid))
        assert file.held()
        other.kill()
    assert not file.held()
    for content in (str(os.getpid()), "0", "-1", "", "x", "9" * 30):
        path.write_text(content)
        assert not file.held()
    path.unlink()


def test_one_that_cannot_be_written_is_said() -> None:
    with pytest.raises(ConfigError) as caught:
        PidFile(Path("/nonexistent/pid")).write()
    assert caught.value.what == "opening pid file '/nonexistent/pid' failed: No such file or directory"
