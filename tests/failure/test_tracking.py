"""A master is killed or frozen under clients that cache: they are told that everything has changed, and keep nothing of
the master that was."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from tests.cachers import Cacher, Writers
from tests.harness import wait_until
from tests.proxies import start_proxy

if TYPE_CHECKING:
    from tests.harness import Servers

SHARDS = ("a", "b")
KEYS = [f"{number}:key".encode() for number in range(20)]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_failover_flushes_and_no_value_of_the_old_master_is_kept(servers: Servers, how: str) -> None:
    stack = servers.stack(SHARDS, down_after_ms=1000)
    proxy = start_proxy(servers, stack)
    with contextlib.ExitStack() as clients:
        cachers = [clients.enter_context(Cacher(proxy.address, options)) for options in ("", "", "BCAST")]
        writers = [clients.enter_context(proxy.client(socket_timeout=15)) for _ in range(2)]
        (promoted,) = stack.replicas["a"]
        with Writers(writers, KEYS):
            for cacher in cachers:
                cacher.read(KEYS)
            getattr(stack.masters["a"], how)()
            until = time.monotonic() + 15
            while promoted.role() != "master" and time.monotonic() < until:
                for cacher in cachers:
                    cacher.listen(0.01)
            for _ in range(20):
                for cacher in cachers:
                    cacher.read(KEYS)
                    cacher.listen(0.01)
        truth = writers[0].get
        for cacher in cachers:
            wait_until(lambda cacher=cacher: cacher.has_heard(None), 10, "word that everything has changed")  # type: ignore[misc]
            assert not cacher.errors
            cacher.becomes_true(truth)
            cacher.read(KEYS)
            assert cacher.is_true(truth)
            assert set(cacher.cache) == set(KEYS), "what does not change is kept"
        writers[0].mset(dict.fromkeys(KEYS, b"last"))
        for cacher in cachers:
            cacher.becomes_true(truth)
            assert not cacher.cache
