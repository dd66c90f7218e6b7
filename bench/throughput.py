"""One Shoal proxy beside one Twemproxy (nutcracker), over the same two servers, measured in turn.

Run it with `make bench`, or `python -m bench.throughput --quick` for a first impression.

Owns: how the two are compared. Rule: single runs scatter by 20 % and more, so only medians over at least nine
repetitions count, and the two take turns (A B, B A, A B, ...) so that a drift of the machine meets both alike.
Printed together, because each alone misleads: throughput, CPU of the proxy per request (all its threads, from
/proc/PID/task/*/schedstat), CPU of the servers per request, and how often the proxy slept.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.harness import LOOPBACK, Process, Servers, free_port, have, redis_engine, wait_until
from tests.proxies import start_proxy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.harness import Stack

SHARDS = ("a", "b")
SUBJECTS = ("shoal", "nutcracker")
QUICK_REPETITIONS = 3


class Load(NamedTuple):
    """What redis-benchmark sends."""

    test: str
    pipeline: int
    clients: int
    requests: int
    size: int

    def __str__(self) -> str:
        return f"{self.test.upper()} -P {self.pipeline}, {self.clients} clients, {self.size} B"


class Cpu(NamedTuple):
    """What a process has used so far: nanoseconds on a processor, and times it went to sleep, over all threads."""

    nanoseconds: int
    sleeps: int


@dataclass(frozen=True)
class Sample:
    """One run of the load through one subject."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    proxy_us: float
    servers_us: float
    sleeps_per_thousand: float


@dataclass(frozen=True)
class Subject:
    """A proxy under test."""

    name: str
    port: int
    pid: int


def cpu_of(pid: int) -> Cpu:
    nanoseconds = sleeps = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds += int((task / "schedstat").read_text().split()[0])
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                sleeps += int(line.split()[1])
    return Cpu(nanoseconds, sleeps)


def measure(subject: Subject, load: Load, server_pids: Sequence[int]) -> Sample:
    proxy_before, servers_before = cpu_of(subject.pid), [cpu_of(pid) for pid in server_pids]
    answer = run_load(subject.port, load)
    proxy_after, servers_after = cpu_of(subject.pid), [cpu_of(pid) for pid in server_pids]
    servers_ns = sum(
        after.nanoseconds - before.nanoseconds for before, after in zip(servers_before, servers_after, strict=True)
    )
    return Sample(
        requests_per_second=float(answer["rps"]),
        p50_ms=float(answer["p50_latency_ms"]),
        p99_ms=float(answer["p99_latency_ms"]),
        proxy_us=(proxy_after.nanoseconds - proxy_before.nanoseconds) / 1000 / load.requests,
        servers_us=servers_ns / 1000 / load.requests,
        sleeps_per_thousand=(proxy_after.sleeps - proxy_before.sleeps) * 1000 / load.requests,
    )


def run_load(port: int, load: Load) -> dict[str, str]:
    program = have("redis-benchmark")
    if program is None:
        sys.exit("no redis-benchmark: apt-get install redis-tools")
    run = subprocess.run(
        [
            program, "-h", LOOPBACK, "-p", str(port), "-t", load.test, "-n", str(load.requests),
            "-c", str(load.clients), "-P", str(load.pipeline), "-d", str(load.size), "-r", "100000", "--csv",
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (row,) = csv.DictReader(io.StringIO(run.stdout[run.stdout.index('"test"') :]))
    return row


# --------------------------------------------------------------------------------------------------------- subjects


def start_nutcracker(servers: Servers, stack: Stack) -> Subject:
    program = have("nutcracker")
    if program is None:
        sys.exit("no nutcracker: apt-get install nutcracker")
    port, stats, directory = free_port(), free_port(), servers.directory / "nutcracker"
    directory.mkdir()
    lines = ["main:", f"  listen: {LOOPBACK}:{port}", "  hash: fnv1a_64", "  distribution: ketama", "  redis: true"]
    lines += ["  servers:", *(f"   - {LOOPBACK}:{stack.masters[shard].port}:1 {shard}" for shard in SHARDS)]
    (directory / "nutcracker.yml").write_text("\n".join(lines) + "\n")
    argv = [str(program), "-c", str(directory / "nutcracker.yml"), "-a", LOOPBACK, "-s", str(stats), "-v", "3"]
    return start(servers, "nutcracker", argv, port)


def start_shoal(servers: Servers, stack: Stack) -> Subject:
    """The whole proxy, control plane included: it follows three sentinels while it is measured."""
    proxy = start_proxy(servers, stack)
    return Subject("shoal", proxy.port, proxy.pid)


def start(servers: Servers, name: str, argv: Sequence[str], port: int) -> Subject:
    process = servers.adopt(Process(name, argv, servers.directory / name))
    process.launch()
    try:
        wait_until(lambda: run_load(port, Load("set", 1, 1, 10, 8)), 15, f"{name} to answer")
    except (AssertionError, subprocess.CalledProcessError):
        sys.exit(f"{name} did not answer; the end of its log:\n{process.log_tail()}")
    return Subject(name, port, process.pid)


# ----------------------------------------------------------------------------------------------------------- series


def series(
    subjects: Sequence[Subject], load: Load, repetitions: int, server_pids: Sequence[int]
) -> dict[str, list[Sample]]:
    """`repetitions` samples of each subject, in turns whose order alternates."""
    samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
    for subject in subjects:
        measure(subject, load, server_pids)  # warms caches, buffers and connections; not counted
    for turn in range(repetitions):
        for subject in subjects if turn % 2 == 0 else reversed(subjects):
            samples[subject.name].append(measure(subject, load, server_pids))
        sys.stderr.write(f"\r{load}: {turn + 1} of {repetitions} ")
        sys.stderr.flush()
    sys.stderr.write("\r\033[K")
    return samples


def report(load: Load, samples: dict[str, list[Sample]]) -> dict[str, object]:
    """Print medians and ratios of one load, and return them for the JSON document."""
    fields = list(asdict(samples["shoal"][0]))
    medians = {
        name: {field: statistics.median(getattr(sample, field) for sample in many) for field in fields}
        for name, many in samples.items()
    }
    ratios = {field: ratio(medians["shoal"][field], medians["nutcracker"][field]) for field in fields}
    pairs = sorted(
        ours.requests_per_second / theirs.requests_per_second
        for ours, theirs in zip(samples["shoal"], samples["nutcracker"], strict=True)
    )
    print(f"{load}, medians of {len(pairs)}")
    print(f"  {'':22}{'shoal':>12}{'nutcracker':>12}{'ratio':>8}")
    for field in fields:
        print(
            f"  {field.replace('_', ' '):22}{medians['shoal'][field]:12.2f}{medians['nutcracker'][field]:12.2f}"
            f"{ratios[field]:8.2f}"
        )
    print(f"  throughput ratio of single pairs: {pairs[0]:.2f} to {pairs[-1]:.2f}\n", flush=True)
    raw = {name: [asdict(sample) for sample in many] for name, many in samples.items()}
    return {"load": load._asdict(), "medians": medians, "ratios": ratios, "samples": raw}


def ratio(ours: float, theirs: float) -> float:
    return ours / theirs if theirs else float("inf")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Shoal's proxy beside nutcracker, over the same servers.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_REPETITIONS} short repetitions: an impression")
    parser.add_argument("--repetitions", type=int, default=9, help="runs of each proxy and load (default 9)")
    parser.add_argument("--tests", default="get,set", help="redis-benchmark's tests, comma-separated")
    parser.add_argument("--pipeline", default="16", help="pipeline depths, comma-separated")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--size", type=int, default=64, help="bytes of a value")
    parser.add_argument("--json", type=Path, help="also write every sample there")
    return parser.parse_args()


def loads(options: argparse.Namespace) -> list[Load]:
    """Enough requests for about two seconds each; a tenth when quick."""
    chosen = []
    for depth in (int(part) for part in options.pipeline.split(",")):
        requests = {1: 120_000, 16: 700_000}.get(depth, 50_000 * min(depth, 20)) // (5 if options.quick else 1)
        chosen += [Load(test, depth, options.clients, requests, options.size) for test in options.tests.split(",")]
    return chosen


def main() -> None:
    options = arguments()
    engine = redis_engine()
    if engine is None:
        sys.exit("no redis-server: apt-get install redis-server")
    repetitions = QUICK_REPETITIONS if options.quick else options.repetitions
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as directory, Servers(engine, Path(directory)) as servers:
        stack = servers.stack(SHARDS, replicas=0)
        pids = [master.pid for master in stack.masters.values()]
        subjects = [start_shoal(servers, stack), start_nutcracker(servers, stack)]
        results = [report(load, series(subjects, load, repetitions, pids)) for load in loads(options)]
    if options.json:
        machine = {"cores": os.cpu_count(), "kernel": os.uname().release}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
