"""Task queues that people run on Redis, unchanged: on one Redis, through a pool of one shard, and of two.

The run on one Redis is the control. What two shards cannot serve is refused with CROSSSLOT, and is said so in
docs/reference/applications.md.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.clients import builds
from tests.harness import WHY_NO_ENGINE, Servers, redis_engine
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

CELERY, DRAMATIQ, HUEY, RQ = "celery_tasks", "dramatiq_actors", "huey_tasks", "rq_jobs"
KEPT_TOGETHER = "{celery}"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    engine = redis_engine() or pytest.skip(WHY_NO_ENGINE["redis"])
    with Servers(engine, tmp_path) as running:
        yield running


def through(servers: Servers, shards: int) -> int:
    """The port of a proxy over so many shards; of a server itself if there are none."""
    if shards == 0:
        return servers.redis("only").port
    masters = {f"shard{number}": servers.redis(f"shard{number}") for number in range(shards)}
    return servers.adopt(PlaneHost("proxy", [], servers.directory / "proxy", servers=masters)).start().port


def run(program: str, *arguments: str) -> str:
    """What a program prints last."""
    ready = builds.ready(builds.APPLICATIONS)
    done = subprocess.run(
        [*ready.command(program), *arguments], env={**os.environ, **ready.environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("shards", [0, 1])
@pytest.mark.parametrize("program", [CELERY, DRAMATIQ, HUEY, RQ])
def test_it_runs_unchanged_over_one_shard(servers: Servers, program: str, shards: int) -> None:
    assert run(program, str(through(servers, shards))) == "done"


@pytest.mark.parametrize("program", [DRAMATIQ, HUEY])
def test_it_runs_unchanged_over_two_shards(servers: Servers, program: str) -> None:
    assert run(program, str(through(servers, 2))) == "done"


def test_celery_runs_over_two_shards_with_a_prefix_that_keeps_its_keys_together(servers: Servers) -> None:
    assert run(CELERY, str(through(servers, 2)), KEPT_TOGETHER) == "done"


def test_rq_is_refused_over_two_shards(servers: Servers) -> None:
    assert "keys of a transaction are on different shards" in run(RQ, str(through(servers, 2)))
