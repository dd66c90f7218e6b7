"""The loads that redis-benchmark sends: declared once, put into its words, and its report read.

Rule: the same program with the same arguments for every subject. A server that answers an error ends redis-benchmark,
which is an error here too: no refused request is counted as a fast one. Called by `rows`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.errors import ProcessError

if TYPE_CHECKING:
    from collections.abc import Mapping

KIB, MIB = 1 << 10, 1 << 20
VALUE = 64
KEYS = 100_000

_THROUGHPUT = re.compile(r"throughput summary: ([\d.]+) requests per second")
_LATENCY = re.compile(r"avg +min +p50 +p95 +p99 +max\s+([\d. ]+)")
_PERCENTILE = re.compile(r"([\d.]+)% <= ([\d.]+) milliseconds")


@dataclass(frozen=True)
class Load:
    """What is sent: `requests` of one command, each client with `pipeline` of them on their way."""

    command: str
    clients: int = 50
    pipeline: int = 1
    size: int = VALUE
    keys: int = KEYS
    requests: int = 60_000
    keep_alive: bool = True
    """Whether a connection serves more than one request."""

    def __str__(self) -> str:
        words = [self.command, f"{self.clients} clients"]
        if self.pipeline > 1:
            words.append(f"-P {self.pipeline}")
        if self.size != VALUE:
            words.append(f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // KIB} KiB")
        if not self.keep_alive:
            words.append("a connection for each request")
        return ", ".join(words)


LOADS: Mapping[str, Load] = {
    "get": Load("GET"),
    "set": Load("SET"),
    "get-p16": Load("GET", pipeline=16, requests=300_000),
    "set-p16": Load("SET", pipeline=16, requests=250_000),
    "get-p100": Load("GET", pipeline=100, requests=500_000),
    "set-p100": Load("SET", pipeline=100, requests=400_000),
    "mget-10": Load("MGET of 10", requests=40_000),
    "get-4k": Load("GET", size=4 * KIB, keys=10_000, requests=50_000),
    "get-64k": Load("GET", size=64 * KIB, keys=500, requests=15_000),
    "set-64k": Load("SET", size=64 * KIB, keys=500, requests=15_000),
    "get-1m": Load("GET", size=MIB, keys=50, requests=1_000),
    "set-1m": Load("SET", size=MIB, keys=50, requests=1_000),
    "get-1m-10": Load("GET", clients=10, size=MIB, keys=50, requests=1_000),
    "set-1m-10": Load("SET", clients=10, size=MIB, keys=50, requests=1_000),
    "connects": Load("GET", requests=10_000, keep_alive=False),
}
"""By the name of their row, each about a second long on two cores."""


def key(number: int) -> str:
    """The keys that redis-benchmark asks for."""
    return f"key:{number:012}"


def arguments(load: Load, port: int, requests: int) -> list[str]:
    """redis-benchmark's arguments; only its own -t makes SET's values of a size, and only a command of ours an MGET."""
    options = ["-p", str(port), "-n", str(requests), "-c", str(load.clients), "-P", str(load.pipeline)]
    options += ["-r", str(load.keys), "-d", str(load.size), "--precision", "3"]
    if not load.keep_alive:
        options += ["-k", "0"]
    if load.command.startswith("MGET"):
        return [*options, "MGET", *["key:__rand_int__"] * 10]
    return [*options, "-t", load.command.lower()]


def read_report(text: str) -> dict[str, float]:
    """Throughput and latencies as redis-benchmark tells them; ProcessError with its words if it gave up."""
    throughput, latency = _THROUGHPUT.search(text), _LATENCY.search(text)
    if throughput is None or latency is None:
        last = text.replace("\r", "\n").strip().splitlines()[-1:]
        raise ProcessError("redis-benchmark did not finish", where=last[0].strip() if last else None)
    _, _, p50, _, p99, _ = (float(number) for number in latency[1].split())
    return {
        "requests_per_second": float(throughput[1]),
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": _percentile(text, 99.9),
    }


def _percentile(text: str, wanted: float) -> float:
    """The least latency listed that so many percent of the requests stayed below."""
    pairs = [(float(percent), float(ms)) for percent, ms in _PERCENTILE.findall(text)]
    return min(ms for percent, ms in pairs if percent >= wanted)
