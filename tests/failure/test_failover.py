"""A master is killed under load: what clients of its shard and of the other one see, on real servers.

The servers are not supervised here: the dead master stays dead, so that what is measured is the failover alone.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.harness import link_up, wait_until
from tests.proxies import start_proxy
from tests.trials import KillTrial, assert_every_promise, ping_as_supervised, shard_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.promises import Evidence
    from tests.harness import Servers, Stack

SHARDS = ("a", "b")


def kill_under_load(servers: Servers, stack: Stack, kill: Callable[[], None]) -> Evidence:
    """Traffic on both shards, `kill` on shard a, traffic until a takes writes again; what was seen."""
    ping_as_supervised(stack)
    proxy = start_proxy(servers, stack)
    return KillTrial(proxy, stack.masters, shard_of(SHARDS)).run("a", kill, promoted=stack.replicas["a"][0])


@pytest.mark.timeout(90)
def test_a_killed_master_is_latency_and_not_errors(servers: Servers) -> None:
    stack = servers.stack(SHARDS, down_after_ms=1000)
    assert_every_promise(kill_under_load(servers, stack, stack.masters["a"].kill))


@pytest.mark.timeout(90)
def test_a_frozen_master_is_replaced_like_a_dead_one(servers: Servers) -> None:
    stack = servers.stack(SHARDS, down_after_ms=1000)
    evidence = kill_under_load(servers, stack, stack.masters["a"].pause)
    assert_every_promise(evidence)


@pytest.mark.timeout(90)
def test_a_revived_master_gets_no_write(servers: Servers) -> None:
    """A master that comes back still believes that it is one, and would take writes for ten seconds."""
    stack = servers.stack(SHARDS, down_after_ms=1000)
    old = stack.masters["a"]

    def count() -> int:
        with old.client() as direct:
            size: Any = direct.dbsize()
            return int(size)

    proxy = start_proxy(servers, stack)
    with contextlib.ExitStack() as context:
        client = context.enter_context(proxy.client())
        key = next(f"{n}:k" for n in range(100) if shard_of(SHARDS)(f"{n}:k".encode()) == "a")
        client.set(key, "before")
        wait_until(lambda: link_up(stack.replicas["a"][0]), 5, "the replica")
        old.pause()
        with pytest.raises(redis.ResponseError, match=r"^INDOUBT"):
            client.set(
                key, "sent"
            )  # its lease still held, so it went to the frozen master; nobody knows what became of it
        client.set(key, "after")
        old.resume()
        before = count()
        for number in range(300):
            client.set(f"{{{key}}}:{number}", "x")
        assert count() <= before
        assert client.get(key) == b"after"


@pytest.mark.timeout(90)
def test_one_sentinel_less_changes_nothing(servers: Servers) -> None:
    stack = servers.stack(SHARDS, down_after_ms=1000)

    def kill() -> None:
        stack.sentinels[0].kill()
        stack.masters["a"].kill()

    assert_every_promise(kill_under_load(servers, stack, kill))
