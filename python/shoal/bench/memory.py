"""Scenarios of memory: what clients cost who wait, who ask for much at once, and who do not read.

Rule: each sample is of a process that has just begun, since memory that was taken once is not taken a second time. What
grows is resident memory; the peak is the kernel's own high-water mark. Called by `rows`.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import TYPE_CHECKING, Any

from shoal.bench import loads, meter
from shoal.bench.wire import HOST, PATIENCE, READ_SIZE, pack
from shoal.errors import ProcessError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.bench.figures import Sample
    from shoal.bench.subjects import Subject

LARGE = loads.LOADS["get-64k"]
SMALL = loads.LOADS["get"]
BURST_CLIENTS, BURST_REQUESTS = 200, 20
UNREAD_REQUESTS = 4000
LATER = 5.0
STILL = 0.5
"""Memory that has not changed for so long has settled."""
SETTLING = 20.0


def idle_clients(subject: Subject, *, count: int) -> Sample:
    """Memory for each of many clients that have connected, and then for each when all have asked once."""
    pid = _afresh(subject)
    before = meter.memory(pid).now
    with contextlib.ExitStack() as clients:
        crowd = [clients.enter_context(_connect(subject.port)) for _ in range(count)]
        idle = _settled(pid)
        for number, client in enumerate(crowd):
            client.sendall(_get(number % SMALL.keys))
            _read(client, _reply_size(SMALL.size))
        asked = _settled(pid)
    each = count * meter.KIB
    return {"idle_kib": (idle - before) / each, "asked_kib": (asked - before) / each}


def burst(subject: Subject) -> Sample:
    """Growth while many clients ask for large values all at once and read them, and some time after that."""
    pid = _afresh(subject)
    before = meter.memory(pid).now
    with contextlib.ExitStack() as clients:
        crowd = [clients.enter_context(_connect(subject.port)) for _ in range(BURST_CLIENTS)]
        for place, client in enumerate(crowd):
            client.sendall(b"".join(_get((place + number) % LARGE.keys) for number in range(BURST_REQUESTS)))
        _read_all(crowd, BURST_REQUESTS * _reply_size(LARGE.size))
        peak = meter.memory(pid).most
        time.sleep(LATER)
        later = meter.memory(pid).now
    return {"peak_mb": (peak - before) / meter.MB, "later_mb": (later - before) / meter.MB}


def reads_nothing(subject: Subject) -> Sample:
    """Growth for one client that asks for much more than anybody should keep for it, and reads nothing of it."""
    pid = _afresh(subject)
    before = meter.memory(pid).now
    with _connect(subject.port) as client:
        client.settimeout(STILL)
        with contextlib.suppress(TimeoutError):  # a proxy that does not take all of it does well
            client.sendall(b"".join(_get(number % LARGE.keys) for number in range(UNREAD_REQUESTS)))
        _settled(pid)
        peak = meter.memory(pid).most
    return {"peak_mb": (peak - before) / meter.MB}


def _afresh(subject: Subject) -> int:
    """Begin a new process, let it see some ordinary clients, and forget its peak so far."""
    subject.restart()
    for _ in range(50):
        with _connect(subject.port) as client:
            client.sendall(_get(0))
            client.recv(READ_SIZE)
    pid = subject.pid
    assert pid is not None, "these rows need a proxy"
    _settled(pid)
    meter.forget_most(pid)
    return pid


def _settled(pid: int) -> int:
    """Resident memory once it stays as it is."""
    deadline = time.monotonic() + SETTLING
    last, since = meter.memory(pid).now, time.monotonic()
    while time.monotonic() - since < STILL and time.monotonic() < deadline:
        time.sleep(0.05)
        now = meter.memory(pid).now
        if now != last:
            last, since = now, time.monotonic()
    return last


def _connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), PATIENCE)


def _get(number: int) -> bytes:
    return pack("GET", loads.key(number))


def _reply_size(value: int) -> int:
    return len(f"${value}\r\n") + value + len("\r\n")


def _read(client: socket.socket, size: int) -> None:
    while size > 0:
        data = client.recv(READ_SIZE)
        if not data:
            message = "the connection was closed before the reply had come"
            raise ProcessError(message)
        size -= len(data)


def _read_all(crowd: Sequence[socket.socket], size: int) -> None:
    """Read as much from each, from whichever has something."""
    missing: dict[Any, int] = dict.fromkeys(crowd, size)
    with selectors.DefaultSelector() as ready:
        for client in crowd:
            ready.register(client, selectors.EVENT_READ)
        while missing:
            events = ready.select(PATIENCE)
            if not events:
                raise ProcessError(f"{len(missing)} clients waited {PATIENCE:.0f} s for replies that did not come")
            for event, _ in events:
                reader: Any = event.fileobj
                data = reader.recv(READ_SIZE)
                if not data:
                    message = "a connection was closed before its replies had come"
                    raise ProcessError(message)
                missing[reader] -= len(data)
                if missing[reader] <= 0:
                    del missing[reader]
                    ready.unregister(reader)
