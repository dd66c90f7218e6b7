"""The harness itself: what every other integration test stands on."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import Servers, free_ports, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import EngineProgram


def test_wait_until_names_what_it_waited_for_and_what_it_saw() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.02 s for the moon; last seen: 0"):
        wait_until(lambda: 0, 0.02, "the moon")


def test_two_processes_never_get_the_same_port() -> None:
    program = "from tests.harness import free_ports; print(*free_ports(40), flush=True); input()"
    others = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        given = [int(port) for other in others for port in (other.stdout.readline() if other.stdout else "").split()]
        given += free_ports(40)
        assert len(given) == 120
        assert len(set(given)) == 120
    finally:
        for other in others:
            other.communicate("\n")


def test_a_stack_settles_and_nothing_is_left_when_it_closes(engine: EngineProgram, tmp_path: Path) -> None:
    with Servers(engine, tmp_path) as servers:
        stack = servers.stack(("a",))
        assert stack.masters["a"].role() == "master"
        assert stack.replicas["a"][0].role() == "slave"
        stack.masters["a"].pause()
    assert not any(process.running() for process in servers.processes)
