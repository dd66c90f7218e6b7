"""A Redis server of which a test decides every answer.

Rule: a script is a function of one request; what it returns is sent, and what it returns beside bytes is done to the
connection. Requests and connections are kept, so that a test sees what reached the server.
Used by: the tests that play the same scene to the real nutcracker and to Shoal.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.compat.numbered import bulk, requests_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.compat.numbered import Place


class Act(enum.Enum):
    """What is done instead of an answer."""

    CLOSE = enum.auto()
    RESET = enum.auto()
    SILENCE = enum.auto()


class Request(NamedTuple):
    """One request as it reached a server."""

    words: tuple[bytes, ...]
    connection: int
    """Which of the server's connections it came on, counted from 0."""
    number: int
    """How many requests the server had before, on all connections; AUTH and SELECT are not counted."""


Answer = bytes | Act
if TYPE_CHECKING:
    Script = Callable[[Request], Answer]

RESETS = struct.pack("ii", 1, 0)
GREETINGS = (b"AUTH", b"SELECT", b"HELLO")


def echo(request: Request) -> bytes:
    """As a server whose every key holds its own name."""
    name, keys = request.words[0].upper(), request.words[1:]
    match name:
        case b"GET":
            return bulk(keys[0])
        case b"MGET":
            return b"*%d\r\n" % len(keys) + b"".join(map(bulk, keys))
        case b"DEL" | b"UNLINK" | b"TOUCH" | b"EXISTS":
            return b":%d\r\n" % len(keys)
        case _:
            return b"+OK\r\n"


def always(answer: Answer) -> Script:
    return lambda _: answer


def in_turn(*answers: Answer) -> Script:
    """These, and then as `echo` does."""
    return lambda request: answers[request.number] if request.number < len(answers) else echo(request)


@dataclass
class ScriptedServer:
    """One server, listening from the moment it is made unless it is told not to."""

    place: Place
    script: Script = echo
    welcome: bytes = b"+OK\r\n"
    """The answer to AUTH and SELECT."""
    requests: list[Request] = field(default_factory=list)
    greetings: list[bytes] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listener: socket.socket | None = None

    def listen(self) -> None:
        if isinstance(self.place, str):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.place)
            listener.listen(64)
        else:
            listener = socket.create_server(self.place, backlog=64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Stop listening; connections stay."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which would keep the address
            self._listener.close()
            self._listener = None

    def end(self) -> None:
        self.close()
        self.drop()

    def drop(self, act: Act = Act.CLOSE) -> None:
        """Close or reset every connection."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                if act is Act.RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
                connection.shutdown(socket.SHUT_RD if act is Act.RESET else socket.SHUT_RDWR)  # its thread closes it

    def push(self, data: bytes) -> None:
        """Send what nobody asked for on every connection."""
        for connection in self.connections:
            connection.sendall(data)

    def names(self) -> list[bytes]:
        """Each request so far, its words joined by spaces."""
        return [b" ".join(request.words) for request in self.requests]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            number = len(self.connections)
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                found, rest = requests_in(rest + data)
                for words in found:
                    if not self._answer(connection, number, words):
                        return
        connection.close()

    def _answer(self, connection: socket.socket, number: int, words: Sequence[bytes]) -> bool:
        if words[0].upper() in GREETINGS:
            self.greetings.append(b" ".join(words))
            connection.sendall(self.welcome)
            return True
        with self._lock:
            request = Request(tuple(words), number, len(self.requests))
            self.requests.append(request)
        answer = self.script(request)
        if isinstance(answer, bytes):
            connection.sendall(answer)
            return True
        if answer is Act.CLOSE:
            connection.close()
        elif answer is Act.RESET:
            reset(connection)
        return answer is Act.SILENCE


def reset(connection: socket.socket) -> None:
    """Close so that the other side sees a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
    connection.close()
