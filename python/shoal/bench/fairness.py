"""Scenarios of clients that share a proxy: what one of them costs the others, and what nobody costs.

Called by `rows`.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from shoal.bench import loads, meter, throughput
from shoal.bench.loads import MIB, Load
from shoal.bench.wire import HOST, PATIENCE, pack

if TYPE_CHECKING:
    from shoal.bench.figures import Sample
    from shoal.bench.subjects import Subject

DEEP = Load("GET", clients=1, pipeline=5000)
ORDINARY = Load("GET", requests=10_000)
FOR_EVER = 1_000_000_000
UNDER_WAY = 0.3
"""Seconds until the neighbour has its pipeline full."""
IDLE = 10.0
UPLOAD, PIECE = MIB, 4096
BETWEEN_PIECES = 0.02
"""Seconds: the whole takes five, longer than the others need."""


def beside_a_deep_pipeline(subject: Subject) -> Sample:
    """Latencies of 50 ordinary clients while another one keeps 5000 requests on their way."""
    argv = [throughput.program(), *loads.arguments(DEEP, subject.port, FOR_EVER)]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as neighbour:
        try:
            time.sleep(UNDER_WAY)
            return loads.read_report(throughput.send(ORDINARY, subject.port, ORDINARY.requests))
        finally:
            neighbour.kill()


def beside_a_slow_upload(subject: Subject) -> Sample:
    """Latencies of 50 ordinary clients while another one sends a large value in small pieces."""
    over = threading.Event()
    uploader = threading.Thread(target=_upload_slowly, args=(subject.port, over), name="uploader")
    uploader.start()
    try:
        return loads.read_report(throughput.send(ORDINARY, subject.port, ORDINARY.requests))
    finally:
        over.set()
        uploader.join()


def _upload_slowly(port: int, over: threading.Event) -> None:
    request = pack("SET", "upload", b"x" * UPLOAD)
    with socket.create_connection((HOST, port), PATIENCE) as client:
        for start in range(0, len(request), PIECE):
            if over.wait(BETWEEN_PIECES):
                return
            client.sendall(request[start : start + PIECE])
        over.wait()


def idle_cpu(subject: Subject) -> Sample:
    """What the whole proxy uses while nobody asks it anything."""
    assert subject.pid is not None, "this row needs a proxy"
    before, started = meter.usage([subject.pid]), time.monotonic()
    time.sleep(IDLE)
    used = meter.usage([subject.pid]) - before
    return {"cpu_percent": used.nanoseconds / 1e7 / (time.monotonic() - started)}
