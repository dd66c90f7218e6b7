"""Applications that wait for work, or for messages, while their master is killed: they go on at the new one.

What is asked for after the loss is done: it is held until there is a master, or comes back to the application's own
way of dealing with an error. Celery is not among them: docs/reference/applications.md says why.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients import builds
from tests.clients.applications.test_applications import servers
from tests.harness import wait_until
from tests.proxies import start_proxy
from tests.trials import ping_as_supervised

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Servers
    from tests.proxies import ProxyServer

__all__ = ["servers"]  # a fixture

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


def begins_anew(proxy: ProxyServer) -> bool:
    """Nothing is waited for: what the application asks for meets a shard without a master."""
    return True


def hears_again(proxy: ProxyServer) -> bool:
    """What is published before both servers subscribe at the new master may be lost, as with any Redis."""
    with proxy.client() as client:
        heard_by: Any = client.pubsub_numsub("socketio")
        return bool(heard_by == [(b"socketio", 2)])


WAITING = [
    ("bullmq.js", builds.NODE_APPLICATIONS, begins_anew),
    ("huey_tasks", builds.APPLICATIONS, begins_anew),
    ("socketio_rooms", builds.APPLICATIONS, hears_again),
]


@pytest.mark.parametrize(("program", "build", "ready"), WAITING, ids=[program for program, _, _ in WAITING])
def test_it_goes_on_after_its_master_was_killed(
    servers: Servers, program: str, build: builds.Build, ready: Callable[[ProxyServer], bool]
) -> None:
    stack = servers.stack(("a",))
    ping_as_supervised(stack)
    proxy = start_proxy(servers, stack)
    built = builds.ready(build)
    child = subprocess.Popen(
        [*built.command(program), str(proxy.port)], env={**os.environ, **built.environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        stack.masters["a"].kill()
        wait_until(lambda: ready(proxy), 20, "the application to be heard at the new master")
        rest, _ = child.communicate("again\n", timeout=90)
    finally:
        child.kill()
        child.communicate()
    assert (rest, child.returncode) == ("done\n", 0)
    assert stack.replicas["a"][0].role() == "master"
