"""`shoal up`: what it refuses before it starts anything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from shoal import state

if TYPE_CHECKING:
    from collections.abc import Callable

    Shoal = Callable[..., str]

FILE = Path("shoal.yaml")
ONE = "shards: {a: {}}\n"


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_without_a_file(shoal: Shoal, detach: list[str]) -> None:
    said = shoal("up", *detach)
    assert said.startswith("exit 2\n--- stderr\nerror: ")
    assert "shoal.yaml" in said
    assert "shoal init" in said


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_cluster_that_is_up_already(shoal: Shoal, detach: list[str]) -> None:
    FILE.write_text(ONE)
    with state.locked(Path(".shoal"), "shoal"):
        said = shoal("up", *detach)
    where = Path.cwd() / ".shoal"
    assert said == (
        "exit 1\n--- stderr\n"
        f"error: the cluster in {where} is already up (pid {os.getpid()})\n"
        f"  hint: look with `shoal status`, stop it with `shoal down` (or by ending process {os.getpid()})\n"
    )


def test_a_host_that_the_topology_does_not_have(shoal: Shoal) -> None:
    FILE.write_text(ONE)
    said = shoal("up", "--host", "mars")
    assert said == snapshot("""\
exit 2
--- stderr
error: no part runs on host "mars"
  hint: hosts with parts: local
""")


def test_no_part_is_for_this_machine(shoal: Shoal) -> None:
    hosts = {"far": "203.0.113.9"}
    FILE.write_text(
        json.dumps(
            {
                "hosts": hosts,
                "shards": {"a": {"master": "far", "replicas": []}},
                "sentinel": {"nodes": ["far"]},
                "proxy": {"nodes": {"proxy1": {"host": "far"}}},
                "insecure": True,
            }
        )
    )
    assert shoal("up") == snapshot("""\
exit 2
--- stderr
error: no part of the topology runs on this machine
  at: far = 203.0.113.9
  hint: say which host this is with --host NAME
""")
