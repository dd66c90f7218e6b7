"""A master is killed, or planned to change, under workers that wait for jobs: each job is done once, and nobody fails.

What asynchronous replication cannot keep is judged as such: jobs and their taking in the last second before the master
is lost. A worker whose connection was lost while it waited is in doubt, and may have taken one job that nobody has.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.harness import wait_until
from tests.proxies import start_proxy
from tests.trials import ping_as_supervised

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Servers, Stack
    from tests.proxies import ProxyServer

WORKERS = 8
UNREPLICATED = 1.0  # seconds before the loss of a master of which it may have told no replica


@dataclass
class Seen:
    """What the clients did, by their own clocks."""

    given: dict[bytes, float] = field(default_factory=dict)  # acknowledged jobs → when
    taken: dict[bytes, list[float]] = field(default_factory=dict)
    read: list[bytes] = field(default_factory=list)  # jobs that the reader saw, in order
    indoubt: int = 0
    errors: list[str] = field(default_factory=list)

    def note(self, error: redis.ResponseError) -> None:
        if str(error).startswith("INDOUBT"):
            self.indoubt += 1
        else:
            self.errors.append(str(error))


def give(proxy: ProxyServer, seen: Seen, over: threading.Event) -> None:
    """Give a job every few milliseconds, with pauses in which every worker waits."""
    number = 0
    with proxy.client() as client:
        while not over.wait(0.25 if number % 50 == 0 else 0.002):
            number += 1
            job = b"job %d" % number
            try:
                client.xadd("{jobs}:log", {"job": job})
                client.rpush("{jobs}", job)
                seen.given[job] = time.monotonic()
            except redis.ResponseError as error:
                seen.note(error)


def work(proxy: ProxyServer, seen: Seen, over: threading.Event) -> None:
    with proxy.client() as client:
        while not over.is_set():
            try:
                found: Any = client.blpop(["{jobs}"], timeout=1)
            except redis.ResponseError as error:
                seen.note(error)
                continue
            if found is not None:
                seen.taken.setdefault(found[1], []).append(time.monotonic())


def read(proxy: ProxyServer, seen: Seen, over: threading.Event) -> None:
    """Follow the log of jobs, as it grows."""
    last = "0"
    with proxy.client() as client:
        while not over.is_set():
            found: Any = client.xread({"{jobs}:log": last}, block=500)
            for _stream, entries in found or ():
                for entry, fields in entries:
                    last = entry
                    seen.read.append(fields[b"job"])


def kill(stack: Stack) -> None:
    stack.masters["a"].kill()


def plan(stack: Stack) -> None:
    with stack.sentinels[0].client() as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", "a")


@pytest.mark.timeout(90)
@pytest.mark.parametrize("lose", [kill, plan])
def test_jobs_are_done_once_and_workers_do_not_fail(servers: Servers, lose: Callable[[Stack], None]) -> None:
    stack = servers.stack(("a",))
    ping_as_supervised(stack)
    proxy = start_proxy(servers, stack)
    seen, giving_over, over = Seen(), threading.Event(), threading.Event()
    with ThreadPoolExecutor(WORKERS + 2) as threads:
        giver = threads.submit(give, proxy, seen, giving_over)
        others = [threads.submit(work, proxy, seen, over) for _ in range(WORKERS)]
        others.append(threads.submit(read, proxy, seen, over))
        try:
            wait_until(lambda: len(seen.taken) > 300, 10, "jobs to be done")
            lost_at = time.monotonic()
            lose(stack)
            wait_until(lambda: max(list(seen.given.values())) > lost_at + 2, 25, "jobs to be given to the new master")
            giving_over.set()
            giver.result()
            last = max(seen.given, key=lambda job: seen.given[job])
            wait_until(lambda: last in seen.taken and last in seen.read, 10, "the last job to be done and read")
        finally:
            giving_over.set()
            over.set()
        for other in others:
            other.result()
    assert stack.replicas["a"][0].role() == "master"
    judge(seen, lost_at)


def judge(seen: Seen, lost_at: float) -> None:
    assert seen.errors == []
    assert seen.indoubt <= WORKERS + 1  # those who waited, and the one that gave
    certain = {job for job, at in seen.given.items() if not lost_at - UNREPLICATED < at < lost_at + 0.1}
    assert len(certain - seen.taken.keys()) <= seen.indoubt
    assert certain <= set(seen.read)
    twice = {job: at for job, at in seen.taken.items() if len(at) > 1}
    assert all(lost_at - UNREPLICATED < at[0] < lost_at + 0.1 for at in twice.values()), twice
    order = [int(job.split()[1]) for job in seen.read]
    assert order == sorted(set(order)), "the log was read in order, every entry once"
