"""Processes: known by pid and start time, ended within a bound, and how long to wait before the next start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ProcessError
from shoal.process import Backoff, Exit, Process, is_running, send_signal, start_time
from tests.harness import wait_until

if TYPE_CHECKING:
    from pathlib import Path

FORGETFUL = """
import signal, time
def forget(*_): signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGTERM, forget)
print("begun", flush=True)
while True: time.sleep(60)
"""
STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
)


class TestBackoff:
    def test_it_doubles_up_to_a_limit(self) -> None:
        backoff = Backoff(first=0.2, most=10)
        assert [round(backoff.after(0.1), 1) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]

    def test_it_is_forgotten_after_thirty_good_seconds(self) -> None:
        backoff = Backoff()
        for _ in range(5):
            backoff.after(0.1)
        assert backoff.after(29.9) > 1
        assert backoff.after(30) == 0.2


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "exited with 0"), (3, "exited with 3"), (-9, "was killed by SIGKILL"), (-99, "signal 99"), (None, "ended")],
)
def test_an_exit_is_said_in_words(status: int | None, text: str) -> None:
    assert text in str(Exit(status))


def start(tmp_path: Path, *argv: str) -> Process:
    return Process.start(argv, tmp_path, tmp_path / "log", {})


@pytest.mark.integration
class TestReal:
    async def test_it_ends_and_says_how(self, tmp_path: Path) -> None:
        process = start(tmp_path, "sh", "-c", "echo said; exit 3")
        assert str(await process.wait()) == "exited with 3"
        assert (tmp_path / "log").read_text() == "said\n"
        assert not process.running()

    async def test_it_has_a_session_of_its_own(self, tmp_path: Path) -> None:
        process = start(tmp_path, "sleep", "60")
        assert os.getsid(process.pid) == process.pid
        await process.kill()

    async def test_stop_terminates(self, tmp_path: Path) -> None:
        process = start(tmp_path, "sleep", "60")
        assert str(await process.stop(5)) == "was killed by SIGTERM"

    async def test_stop_kills_what_does_not_listen(self, tmp_path: Path) -> None:
        process = start(tmp_path, sys.executable, "-c", STUBBORN)
        wait_until((tmp_path / "log").read_text, 10, "it to have begun")
        assert str(await process.stop(0.1)) == "was killed by SIGKILL"

    async def test_stop_asks_again_who_forgot_it(self, tmp_path: Path) -> None:
        process = start(tmp_path, sys.executable, "-c", FORGETFUL)
        wait_until((tmp_path / "log").read_text, 10, "it to have begun")
        assert str(await process.stop(10)) == "was killed by SIGTERM"

    async def test_stop_wakes_what_hangs(self, tmp_path: Path) -> None:
        process = start(tmp_path, "sleep", "60")
        process.signal(signal.SIGSTOP)
        assert str(await process.stop(5)) == "was killed by SIGTERM"

    def test_a_program_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ProcessError, match="cannot start /no/such"):
            start(tmp_path, "/no/such")

    async def test_another_ones_process_is_adopted_and_watched_to_its_end(self) -> None:
        child = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220  it does not block
        adopted = Process.adopt(child.pid, start_time(child.pid))
        assert adopted is not None
        waiting = asyncio.create_task(adopted.wait())
        await asyncio.sleep(0)
        child.kill()
        async with asyncio.timeout(5):  # it is a zombie now: nobody has reaped it, and it counts as dead
            assert str(await waiting) == "ended"
        assert not is_running(child.pid, adopted.started)
        child.wait()

    def test_a_later_process_with_the_same_pid_is_left_alone(self) -> None:
        with subprocess.Popen(["sleep", "60"]) as child:
            started = start_time(child.pid)
            assert started is not None
            assert Process.adopt(child.pid, started - 100) is None
            assert not send_signal(child.pid, started - 100, signal.SIGKILL)
            time.sleep(0.05)
            assert child.poll() is None
            assert send_signal(child.pid, started, signal.SIGKILL)

    def test_nothing_runs_that_never_started(self) -> None:
        assert not is_running(None, None)
        assert Process.adopt(None, None) is None
