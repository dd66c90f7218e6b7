"""Applications that people run on Redis, unchanged: on one Redis, through a pool of one shard, and of two.

The run on one Redis is the control. What two shards cannot serve is refused with CROSSSLOT, and is said so in
docs/reference/applications.md.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.clients import builds
from tests.harness import WHY_NO_ENGINE, Servers, redis_engine
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

CROSSSLOT = "are on different shards"


@dataclass(frozen=True)
class Application:
    """A program beside this file. `together`: what it is given over two shards, so that its keys are on one of them.

    `refused`: over two shards, without that, it ends with a refusal each time.
    """

    program: str
    build: builds.Build = builds.APPLICATIONS
    together: tuple[str, ...] = ()
    refused: bool = False


APPLICATIONS = [
    Application("arq_jobs", builds.ARQ, refused=True),
    Application("bullmq.js", builds.NODE_APPLICATIONS, together=("{bull}",), refused=True),
    Application("caches", together=("{cache}",), refused=True),
    Application("celery_tasks", together=("{celery}",)),
    Application("channels_groups", together=("{asgi}",)),
    Application("django_site", together=("{django}",), refused=True),
    Application("dramatiq_actors"),
    Application("express_session.js", builds.NODE_APPLICATIONS),
    Application("flask_site"),
    Application("huey_tasks"),
    Application("locks", together=("{lock}",), refused=True),
    Application("rate_limiter.js", builds.NODE_APPLICATIONS),
    Application("rq_jobs", refused=True),
    Application("socket_io.js", builds.NODE_APPLICATIONS),
    Application("socketio_rooms"),
    Application("taskiq_tasks", together=("{taskiq}",)),
]
SERVED_BY_TWO = [one for one in APPLICATIONS if one.together or not one.refused]
REFUSED_BY_TWO = [one for one in APPLICATIONS if one.refused]


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


def run(application: Application, *arguments: str) -> str:
    """What a program prints last."""
    ready = builds.ready(application.build)
    done = subprocess.run(
        [*ready.command(application.program), *arguments], env={**os.environ, **ready.environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("shards", [0, 1])
@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda one: one.program)
def test_it_runs_unchanged_over_one_shard(servers: Servers, application: Application, shards: int) -> None:
    assert run(application, str(through(servers, shards))) == "done"


@pytest.mark.parametrize("application", SERVED_BY_TWO, ids=lambda one: one.program)
def test_it_runs_over_two_shards(servers: Servers, application: Application) -> None:
    assert run(application, str(through(servers, 2)), *application.together) == "done"


@pytest.mark.parametrize("application", REFUSED_BY_TWO, ids=lambda one: one.program)
def test_two_shards_refuse_it_where_its_keys_are_on_both(servers: Servers, application: Application) -> None:
    assert CROSSSLOT in run(application, str(through(servers, 2)))
