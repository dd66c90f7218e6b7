"""The fixtures that a user's tests get: run in a pytest of its own, as a user would."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import EngineProgram

TESTS = """
import pytest, redis

@pytest.fixture(scope="session")
def shoal_cluster_options():
    return {{"shards": 1, "replicas": 1, "proxies": 1, "engine": {engine!r}, "sentinel": {{"down_after": "1000ms"}}}}

def test_writes_and_kills(shoal_cluster):
    assert redis.Redis(*shoal_cluster.address).set("key", "value")
    shoal_cluster.kill(shoal_cluster.master_of("shard1").name)

def test_is_given_a_whole_and_empty_cluster(shoal_cluster):
    assert shoal_cluster.status().ok
    assert redis.Redis(*shoal_cluster.address).get("key") is None

async def test_works_inside_a_running_loop(shoal_cluster):
    assert shoal_cluster.status().ok
"""


@pytest.mark.timeout(120)
def test_each_test_gets_a_whole_and_empty_cluster(valkey: EngineProgram, tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(TESTS.format(engine=str(valkey.server)))
    plugins = ("-p", "shoal.pytest_plugin", "-p", "no:shoal", "-p", "no:randomly", "-p", "no:valkey", "-p", "no:cov")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", *plugins, "test_user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
