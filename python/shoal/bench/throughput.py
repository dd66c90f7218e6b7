"""One run of redis-benchmark through a subject, with what it cost everybody.

Rule: throughput, the proxy's CPU, the servers' CPU and the proxy's sleeps are taken of the same run, because each alone
misleads: a leaner proxy sleeps more often, and then others pay for the waking. System calls are counted in a run of
their own, which counting slows down. Called by `rows`, and by `fairness` for its clients.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from typing import TYPE_CHECKING

from shoal.bench import loads, meter
from shoal.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.bench.figures import Sample
    from shoal.bench.loads import Load
    from shoal.bench.stage import Stage
    from shoal.bench.subjects import Subject

PROGRAM = "redis-benchmark"
WORKER = "shoal-worker"
"""How the names of threads begin that serve requests and do nothing else."""
MICROSECOND = 1000  # nanoseconds


def program() -> str:
    """redis-benchmark's path."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise ConfigError(f"there is no {PROGRAM}, which sends the load", hint="apt-get install redis-tools")
    return found


def measure(stage: Stage, subject: Subject, *, load: Load, requests: int) -> Sample:
    """All figures of one run."""
    proxies = [] if subject.pid is None else [subject.pid]
    for pid in proxies:
        meter.forget_most(pid)
    workers_before = [meter.usage_of_threads(pid, WORKER) for pid in proxies]
    before, servers_before, load_before = meter.usage(proxies), meter.usage(stage.server_pids), _children_seconds()
    report = send(load, subject.port, requests)
    proxy, servers = meter.usage(proxies) - before, meter.usage(stage.server_pids) - servers_before
    sample = {
        **loads.read_report(report),
        "servers_us": servers.nanoseconds / MICROSECOND / requests,
        "load_us": (_children_seconds() - load_before) * 1e6 / requests,
    }
    for pid, started in zip(proxies, workers_before, strict=True):
        workers = (meter.usage_of_threads(pid, WORKER) - started).nanoseconds / MICROSECOND / requests
        if workers:
            sample["workers_us"] = workers
        sample["proxy_us"] = proxy.nanoseconds / MICROSECOND / requests
        sample["sleeps"] = proxy.sleeps * 1000 / requests
        sample["rss_mb"], sample["high_water_mb"] = (size / meter.MB for size in meter.memory(pid))
    return sample


def count(stage: Stage, subject: Subject, *, load: Load, requests: int) -> Sample:
    """The same load untimed, which warms everything up; where the kernel allows it with a count of system calls."""
    report = stage.scratch / "syscalls"
    prefix = None if subject.pid is None else meter.counting_syscalls(subject.pid, report)
    loads.read_report(send(load, subject.port, requests, prefix or ()))
    counted = meter.counted_syscalls(report) if prefix else None
    return {} if counted is None else {"syscalls": counted / requests}


def send(load: Load, port: int, requests: int, prefix: Sequence[str] = ()) -> str:
    """Run redis-benchmark to its end and return what it said."""
    argv = [*prefix, program(), *loads.arguments(load, port, requests)]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    ).stdout


def _children_seconds() -> float:
    """CPU of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
