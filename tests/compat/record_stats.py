"""Record one line of the real nutcracker's statistics port: what the tests of `shoal.stats` compare bytes with.

Owns `stats_line.json`. Four pools, whose file has them in another order than the line, with servers that have an
alias, none, memcached's port, a unix socket, and bytes beyond ASCII; and some traffic, so that most figures are not 0.

    python3 -m tests.compat.record_stats     # needs nutcracker (Debian: apt install nutcracker)
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.compat.record_ring import LOOPBACK, NumberedServer, bulk, free_ports, wait_for_port

RECORDED = Path(__file__).with_name("stats_line.json")
INTERVAL_MS = 50
SETTLED = 0.5


def pool(name: str, listen: int, *servers: str) -> str:
    lines = [f"{name}:", f"  listen: {LOOPBACK}:{listen}", "  redis: true", "  auto_eject_hosts: true"]
    return "\n".join([*lines, "  servers:", *(f"   - {server}" for server in servers)]) + "\n"


def read_line(port: int) -> bytes:
    with socket.create_connection((LOOPBACK, port), timeout=5) as client, client.makefile("rb") as text:
        return text.read()


def use(port: int) -> None:
    """Some requests, one MGET, and one client that breaks the protocol; errors are part of it."""
    for request in (*((b"GET", b"k%d" % n) for n in range(30)), (b"MGET", b"a", b"b", b"c"), (b"NONSENSE",)):
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1) as client:
            client.sendall(b"*%d\r\n" % len(request) + b"".join(map(bulk, request)))
            client.recv(65536)


def record(binary: str, directory: Path) -> bytes:
    *listens, stats, live, dead = free_ports(7)
    server = NumberedServer(0, live)
    server.start()
    here = f"127.0.71.1:{live}"
    path = directory / "nutcracker.yml"
    path.write_text(
        pool("zeta", listens[0], f"{here}:1 zz", f"{here}:1 a", f"{here}:2", "127.0.0.1:11211:1", "/run/no.sock:1")
        + pool("b", listens[1], f"{here}:1")
        + pool("aa", listens[2], f"{here}:1 é")
        + pool("B", listens[3], f"{here}:1 lives", f"{LOOPBACK}:{dead}:1 dies")
    )
    command = [binary, "-c", str(path), "-a", LOOPBACK, "-s", str(stats), "-i", str(INTERVAL_MS)]
    process = subprocess.Popen([*command, "-o", str(directory / "log")])
    try:
        for port in listens:
            wait_for_port(port, process, directory / "log")
            use(port)
        with socket.create_connection((LOOPBACK, listens[0])):
            time.sleep(SETTLED)
            read_line(stats)
            return read_line(stats)
    finally:
        process.kill()
        process.wait()
        server.stop()


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        text = record(shutil.which("nutcracker") or "/usr/sbin/nutcracker", Path(directory)).decode()
    recorded = {"recorded_by": "python3 -m tests.compat.record_stats", "line": text}
    RECORDED.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(f"{RECORDED}: {len(text)} characters\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
