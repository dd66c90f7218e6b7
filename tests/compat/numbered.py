"""Servers that answer with their number, so that a client sees where its keys went.

Owns: those servers, the text of a pool, and how nutcracker orders a pool's servers.
Rule: stdlib only and nothing of Shoal, for what is recorded with this is what Shoal is compared with. One thread serves
all of them: hundreds of pools may be connected at once.
Used by: record_ring and record_stats, which record the real nutcracker, and the tests that run it beside Shoal.
"""

from __future__ import annotations

import selectors
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Place = tuple[str, int] | str
"""A host and port, or the path of a unix socket."""


def rank(label: str) -> tuple[int, bytes]:
    """What nutcracker sorts servers and pools by: the length of the label, then its bytes."""
    text = label.encode()
    return len(text), text


def label_of(place: Place, alias: str | None) -> str:
    """What nutcracker hashes of a server, and calls it in its statistics."""
    if alias is not None:
        return alias
    if isinstance(place, str):
        return f"{place}:"
    host, port = place
    return host if port == 11211 else f"{host}:{port}"


def server_line(place: Place, weight: int = 1, alias: str | None = None) -> str:
    where = place if isinstance(place, str) else f"{place[0]}:{place[1]}"
    return f"{where}:{weight}" + (f" {alias}" if alias else "")


def pool_text(name: str, listen: str, servers: Iterable[str], settings: Mapping[str, object] | None = None) -> str:
    """One pool of a nutcracker.yml; a setting that is None is left out."""
    given = {"listen": listen, "redis": "true", **(settings or {})}
    lines = [f"{name}:", *(f"  {key}: {value}" for key, value in given.items() if value is not None)]
    return "\n".join([*lines, "  servers:", *(f"   - {server}" for server in servers)]) + "\n"


def bulk(payload: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(payload), payload)


def requests_in(data: bytes) -> tuple[list[list[bytes]], bytes]:
    """The whole requests at the front of `data`, and what is left."""
    found: list[list[bytes]] = []
    start = 0
    while (end := data.find(b"\r\n", start)) >= 0:
        arguments, at = [], end + 2
        for _ in range(int(data[start + 1 : end])):
            end = data.find(b"\r\n", at)
            stop = end + 2 + int(data[at + 1 : end]) if end >= 0 else len(data)
            if stop + 2 > len(data):
                return found, data[start:]
            arguments.append(data[end + 2 : stop])
            at = stop + 2
        found.append(arguments)
        start = at
    return found, data[start:]


@dataclass
class Connection:
    """One connection to a server."""

    socket: socket.socket
    number: int
    rest: bytes = b""


class NumberedServers:
    """A server for each of these numbers, while it is entered.

    `landed` has where the keys of MSET, DEL, UNLINK and TOUCH went, which no reply says.
    """

    def __init__(self, places: Mapping[int, Place]) -> None:
        self.landed: dict[tuple[bytes, bytes], list[int]] = {}
        self._places = places
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._ours, theirs = socket.socketpair()
        self._selector.register(theirs, selectors.EVENT_READ, None)
        try:
            for number, place in self._places.items():
                self._selector.register(_listener(place), selectors.EVENT_READ, number)
        except OSError:
            self._close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._thread.join()
        self._close()

    def _close(self) -> None:
        self._ours.close()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if key.data is None:
                    return
                if isinstance(key.data, Connection):
                    self._answer(key.data)
                else:
                    client, _ = key.fileobj.accept()
                    self._selector.register(client, selectors.EVENT_READ, Connection(client, key.data))

    def _answer(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(1 << 16)
            if data:
                found, connection.rest = requests_in(connection.rest + data)
                connection.socket.sendall(b"".join(self._reply(connection.number, one) for one in found))
                return
        except ConnectionError:
            pass
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _reply(self, number: int, arguments: list[bytes]) -> bytes:
        name, *rest = arguments
        mine = bulk(b"%d" % number)
        match name.upper():
            case b"GET":
                return mine
            case b"MGET":
                return b"*%d\r\n" % len(rest) + mine * len(rest)
            case b"MSET":
                self._note(name, rest[::2], number)
                return b"+OK\r\n"
            case _:
                self._note(name, rest, number)
                return b":%d\r\n" % len(rest)

    def _note(self, name: bytes, keys: list[bytes], number: int) -> None:
        for key in keys:
            self.landed.setdefault((name.upper(), key), []).append(number)


def _listener(place: Place) -> socket.socket:
    if isinstance(place, str):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(place)
        listener.listen(512)
        return listener
    return socket.create_server(place, backlog=512)
