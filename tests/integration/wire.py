"""A raw RESP2 client for tests that care about bytes: what is sent, what comes back, and when the line closes."""

from __future__ import annotations

import socket
from typing import Any, Self


def command(*arguments: bytes | str) -> bytes:
    """One request as its multibulk frame."""
    parts = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def connected(address: tuple[str, int] | str, timeout: float = 10.0) -> socket.socket:
    """To a host and port, or to the path of a unix socket."""
    if isinstance(address, tuple):
        return socket.create_connection(address, timeout=timeout)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


END = b"$7\r\nthe end\r\n"


def frames(script: str) -> bytes:
    """The requests of a script: separated by `|`, their words by blanks."""
    return b"".join(command(*line.split(" ")) for line in script.replace("{{", "{").replace("}}", "}").split("|"))


def talk(address: tuple[str, int], script: str, *, protocol: int = 2, at_once: bool = True) -> bytes:
    """All that is answered to a script, sent in one packet or byte by byte."""
    with socket.create_connection(address, timeout=10) as peer:
        peer.sendall(command("HELLO", str(protocol)) + command("ECHO", "the end"))
        until_the_end(peer)
        sent = frames(script) + command("ECHO", "the end")
        for piece in [sent] if at_once else [sent[at : at + 1] for at in range(len(sent))]:
            peer.sendall(piece)
        return until_the_end(peer)


def until_the_end(peer: socket.socket) -> bytes:
    told = b""
    while not told.endswith(END):
        more = peer.recv(65536)
        assert more, told
        told += more
    return told.removesuffix(END)


class Wire:
    """One connection. Errors come back as `WireError`, not raised: the test compares them."""

    def __init__(self, address: tuple[str, int] | str, timeout: float = 10.0) -> None:
        self.socket = connected(address, timeout)
        self.stream = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.stream.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def call(self, *arguments: bytes | str) -> Any:
        self.send(command(*arguments))
        return self.reply()

    def reply(self) -> Any:
        """The next reply; `EOFError` when the other side has closed."""
        line = self.stream.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError(line)
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            return WireError(rest.decode())
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self._bulk(int(rest))
        assert kind == b"*", f"not RESP2: {line!r}"
        return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]

    def _bulk(self, length: int) -> bytes | None:
        if length < 0:
            return None
        data = self.stream.read(length + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    def closed_by_peer(self) -> bool:
        """Whether nothing but the end of the stream follows."""
        try:
            return self.stream.read(1) == b""
        except ConnectionResetError:
            return True


class WireError(str):
    """An error reply's text, without the leading minus."""

    __slots__ = ()

    @property
    def code(self) -> str:
        return self.split(" ", 1)[0]
