"""A plain blocking connection that sends pipelines: what a benchmark asks itself, outside of what it times.

Rule: no handshake. Client libraries greet with commands that some of the proxies beside us answer by closing the
connection. Called by `answers`, `stage` and the scenarios.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Self

import hiredis

if TYPE_CHECKING:
    from collections.abc import Sequence

    Command = tuple[str | bytes, ...]

HOST = "127.0.0.1"
PATIENCE = 30.0
READ_SIZE = 1 << 18


class Wire:
    """One connection to a port of this machine; closed by leaving it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), PATIENCE)
        self._reader = hiredis.Reader()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send a pipeline and return its replies; errors of the server are among them, a silent one is an OSError."""
        self._socket.sendall(b"".join(pack(*command) for command in commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            if self._reader.has_data():
                reply = self._reader.gets()
                if reply is not False:
                    replies.append(reply)
                    continue
            data = self._socket.recv(READ_SIZE)
            if not data:
                message = "the connection was closed before every reply had come"
                raise ConnectionResetError(message)
            self._reader.feed(data)
        return replies


def pack(*command: str | bytes) -> bytes:
    """A request as it goes over the wire."""
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows tuples of one word only


def answers(port: int) -> bool:
    """Whether a request gets an answer that is no error, on whichever shard: so the proxy serves all of them."""
    try:
        with Wire(port) as wire:
            replies = wire.ask([("GET", f"probe:{number}") for number in range(20)])
    except OSError:
        return False
    return not any(isinstance(reply, hiredis.ReplyError) for reply in replies)
