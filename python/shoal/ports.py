"""Ports of this machine: free ones for the parts that name none, a check that nobody else is on the others, listeners.

Rule: a port is free if a plain bind succeeds. Proxies listen with SO_REUSEPORT, under which a second one would start
happily and take half of the first one's clients, so the check comes before anything is started. Called by the
supervisor, and by the admin HTTP and the statistics, which listen; `shoal import` asks for this machine's own address.
"""

from __future__ import annotations

import errno
import random
import socket
from typing import TYPE_CHECKING

import psutil

from shoal.errors import ConfigError, PortInUseError, StateError
from shoal.plane import resolve
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIRST, LAST = 10000, 31999  # below the kernel's ephemeral ports: an outgoing connection must not sit on one of ours
LOOPBACK = "127.0.0.1"
ATTEMPTS = 1000


def choose(keys: Iterable[str], avoid: Iterable[int]) -> dict[str, int]:
    """A free port on loopback for each key."""
    chooser = random.SystemRandom()
    taken = set(avoid)
    chosen: dict[str, int] = {}
    for key in keys:
        for _ in range(ATTEMPTS):
            port = chooser.randint(FIRST, LAST)
            if port not in taken and why_not_free(Endpoint(LOOPBACK, port)) is None:
                break
        else:
            raise PortInUseError(f"no free port between {FIRST} and {LAST} for {key}")
        taken.add(port)
        chosen[key] = port
    return chosen


def require_free(wanted: Mapping[str, Endpoint]) -> None:
    """Check that each endpoint can be bound; one error that names the first that cannot, and who is on it."""
    for label, endpoint in wanted.items():
        why = why_not_free(endpoint)
        if why is None:
            continue
        if why == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {endpoint.port} for {label} is in use{_by_whom(endpoint.port)}",
                where=str(endpoint),
                hint="stop that process, or give the node another port in the topology file",
            )
        if why == errno.EADDRNOTAVAIL:
            raise StateError(
                f"{label} is to listen on {endpoint.host}, which is no address of this machine",
                where=str(endpoint),
                hint="mend the host's address, or say which host this is with --host NAME",
            )
        raise PortInUseError(f"{label} cannot listen on {endpoint}: {errno.errorcode.get(why, why)}")


def why_not_free(endpoint: Endpoint) -> int | None:
    """The errno of a plain bind; None if it succeeds."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # past connections in TIME_WAIT do not hinder the real listener either; a listener does, with or without this
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(endpoint)
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EIO
    return None


def listen(bind: Endpoint, what: str, backlog: int) -> socket.socket:
    """A listener that does not block; `what` it is for is named when it cannot be had."""
    found = resolve(bind)
    if found is None:
        raise ConfigError(f"the host of {what} has no address", where=str(bind), hint="use an IP address")
    listener = socket.socket(socket.AF_INET6 if ":" in found.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(found)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        said = f"{what} cannot listen: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            hint = "stop what uses the port, or give it another one"
            raise PortInUseError(said, where=str(bind), hint=hint) from error
        raise ConfigError(said, where=str(bind), hint="use an address of this machine") from error
    listener.setblocking(False)
    return listener


def is_local(address: str) -> bool:
    """Whether this machine has that address on one of its interfaces."""
    try:
        wanted = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        return False
    if address == "::1" or address.startswith("127."):
        return True
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                bare = one.address.partition("%")[0]
                if socket.inet_pton(one.family, bare) == wanted:
                    return True
    return False


def own_address(towards: Endpoint) -> str | None:
    """This machine's address as that endpoint would see it; None where no route leads there. Nothing is sent."""
    family = socket.AF_INET6 if ":" in towards.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(towards)
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _by_whom(port: int) -> str:
    """Who listens there, as far as this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr[1] == port
                and connection.pid
            ):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
