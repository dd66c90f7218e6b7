"""A network of a test's own: addresses as a deployment has them, which nobody outside sees.

Owns: the network namespace. Rule: only the thread that enters it moves there, with the processes, threads and sockets
that it makes inside; it has the addresses it is given, loopback, and no way out. Nothing is named and nothing has to
be removed: the kernel does that when the last process in it has ended. It takes root.
Used by: tests of whole deployments, whose addresses and ports are not for us to choose.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness import have

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000  # os.unshare and os.setns are there from Python 3.12 on
HERE = Path("/proc/thread-self/ns/net")


def why_no_network() -> str | None:
    """Why this process cannot have a network of its own; None if it can."""
    if os.geteuid() != 0:
        return "a network namespace of its own takes root"
    return None if have("ip") else "no ip: as root on Debian, `make test` installs iproute2"


@contextlib.contextmanager
def private_network(*addresses: str) -> Iterator[None]:
    """Be in a network of our own that has these addresses, all in one /24 on a bridge."""
    outside = os.open(HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", CLONE_NEWNET)
        try:
            _furnish(addresses)
            yield
        finally:
            _call("setns", outside, CLONE_NEWNET)
    finally:
        os.close(outside)


def _furnish(addresses: tuple[str, ...]) -> None:
    _ip("link set lo up")
    _ip("link add hosts type bridge")
    for address in addresses:
        _ip(f"address add {address}/24 dev hosts")
    _ip("link set hosts up")


def _ip(words: str) -> None:
    subprocess.run([str(have("ip")), *words.split()], check=True, timeout=10)


def _call(name: str, *arguments: int) -> None:
    """A system call that Python 3.11 has no name for."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
