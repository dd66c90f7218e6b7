"""Record one line of the real nutcracker's statistics port: what the tests of `shoal.stats` compare bytes with.

Owns `stats_line.json`. Four pools, whose file has them in another order than the line, with servers that have an
alias, none, memcached's port, a unix socket, and bytes beyond ASCII; and some traffic, so that most figures are not 0.

    python3 -m tests.compat.record_stats     # needs nutcracker (Debian: apt install nutcracker)
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.compat.numbered import NumberedServers, Place, pool_text
from tests.compat.rivals import NUTCRACKER, started
from tests.harness import LOOPBACK, free_ports
from tests.integration.wire import command, connected

RECORDED = Path(__file__).with_name("stats_line.json")
SETTLED = 0.5


def use(listen: Place) -> None:
    """Some requests, one MGET, and one client that breaks the protocol; errors are part of it."""
    for words in (*((b"GET", b"k%d" % n) for n in range(30)), (b"MGET", b"a", b"b", b"c"), (b"NONSENSE",)):
        with contextlib.suppress(OSError), connected(listen, 1.0) as client:
            client.sendall(command(*words))
            client.recv(65536)


def record(directory: Path) -> bytes:
    *ports, live, dead = free_ports(6)
    place = ("127.0.71.1", live)
    here = f"{place[0]}:{live}"
    pools = {
        "zeta": (f"{here}:1 zz", f"{here}:1 a", f"{here}:2", "127.0.0.1:11211:1", "/run/no.sock:1"),
        "b": (f"{here}:1",),
        "aa": (f"{here}:1 é",),
        "B": (f"{here}:1 lives", f"{LOOPBACK}:{dead}:1 dies"),
    }
    config = "".join(
        pool_text(name, f"{LOOPBACK}:{port}", servers, {"auto_eject_hosts": "true"})
        for (name, servers), port in zip(pools.items(), ports, strict=True)
    )
    listens = tuple((LOOPBACK, port) for port in ports)
    with NumberedServers({0: place}), started(NUTCRACKER, config, listens, directory) as nutcracker:
        for listen in listens:
            use(listen)
        with connected(listens[0]):
            time.sleep(SETTLED)
            nutcracker.stats_line()
            return nutcracker.stats_line()


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        text = record(Path(directory)).decode()
    recorded = {"recorded_by": "python3 -m tests.compat.record_stats", "line": text}
    RECORDED.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(f"{RECORDED}: {len(text)} characters\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
