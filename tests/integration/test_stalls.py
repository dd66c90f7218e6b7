"""What the stall watch sees, on a real server and a real process that cannot go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shoal.stalls import StallWatch
from tests.harness import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Servers

BLOCKED_FOR = 0.2

# Until somebody writes to the pipe the child waits to open it, and its parent waits for the child as a thread waits
# for the disk: in uninterruptible sleep.
SPAWN = """
import os, sys
os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)])
"""

WATCHED = """
import os, sys, threading
from shoal.stalls import StallWatch
end = threading.Event()
for _ in range(50):  # so that the watch looks at them for as long as it sleeps
    threading.Thread(target=end.wait).start()
with StallWatch(("127.0.0.1", int(sys.argv[1])), [os.getpid()]) as watch:
    print("open", flush=True)
    sys.stdin.read()
end.set()
print(sum(stall.lost for stall in watch.seen))
"""
STOPS, STOPPED_FOR = 20, 0.05


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def blocked(pipe: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", SPAWN, str(pipe)])
    wait_until(lambda: " (python" in stat(process) and ") D " in stat(process), 10, "the process to be blocked")
    yield process
    if process.poll() is None:
        release(pipe)
    process.wait(10)


def stat(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text()


def release(pipe: Path) -> None:
    os.close(os.open(pipe, os.O_WRONLY))


def test_a_process_that_waits_for_the_disk_is_a_stall(
    servers: Servers, pipe: Path, blocked: subprocess.Popen[bytes]
) -> None:
    address = servers.redis().address
    with StallWatch(address, [blocked.pid]) as watch:
        time.sleep(BLOCKED_FOR)
    with StallWatch(address) as idle:
        time.sleep(BLOCKED_FOR)

    assert sum(stall.lost for stall in watch.seen) > BLOCKED_FOR / 2
    assert sum(stall.lost for stall in idle.seen) < sum(stall.lost for stall in watch.seen)


def test_a_stall_is_seen_whatever_the_watch_does_meanwhile(servers: Servers) -> None:
    command = [sys.executable, "-c", WATCHED, str(servers.redis().port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline() == "open\n"
        for _ in range(STOPS):
            watch.send_signal(signal.SIGSTOP)
            time.sleep(STOPPED_FOR)
            watch.send_signal(signal.SIGCONT)
            time.sleep(random.uniform(0.02, 0.06))  # stopped at another step each time
        lost, _ = watch.communicate()
    assert float(lost) > 0.9 * STOPS * STOPPED_FOR
