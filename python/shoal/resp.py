"""One connection to a server that speaks RESP: requests with a time limit, or a stream of what is published.

Rule: replies are matched to requests by their order, so a connection on which anything went wrong (a time limit, a
protocol error) is closed and never used again; a late reply must not pass for the answer to a later question. Every
failure is an OSError (TimeoutError, ConnectionError, PermissionError). Called by `watch` and by the ROLE check.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Self

import hiredis

from shoal.topology.values import UnixSocket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.topology import Endpoint

READ_SIZE = 1 << 16
REPLY_LIMIT = 16 << 20

Command = tuple[str | bytes, ...]


class RespConnection:
    """An authenticated connection. Use it as a context manager; leaving it drops the connection at once."""

    def __init__(
        self, endpoint: Endpoint | UnixSocket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.endpoint = endpoint
        self._reader = reader
        self._writer = writer
        self._replies = hiredis.Reader(notEnoughData=self)

    @classmethod
    async def open(cls, endpoint: Endpoint | UnixSocket, *, password: str | None, timeout: float) -> Self:  # noqa: ASYNC109
        """Connect and authenticate within `timeout` seconds."""
        async with asyncio.timeout(timeout):
            if isinstance(endpoint, UnixSocket):
                reader, writer = await asyncio.open_unix_connection(endpoint.path)
            else:
                reader, writer = await _connect(endpoint)
            connection = cls(endpoint, reader, writer)
            try:
                if password is not None:
                    await connection._authenticate(password)
            except BaseException:
                connection.close()
                raise
        return connection

    async def _authenticate(self, password: str) -> None:
        self.send([("AUTH", password)])
        reply = await self.receive()
        if isinstance(reply, hiredis.ReplyError) and "without any password configured" not in str(reply):
            raise PermissionError(f"AUTH was refused: {reply}")

    async def ask(self, commands: Sequence[Command], timeout: float) -> list[Any]:  # noqa: ASYNC109
        """The replies to some commands sent together; an error among them is a PermissionError or ConnectionError."""
        async with asyncio.timeout(timeout):
            self.send(commands)
            replies = [await self.receive() for _ in commands]
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                refused = str(reply).startswith(("NOAUTH", "NOPERM", "WRONGPASS"))
                raise PermissionError(str(reply)) if refused else ConnectionError(str(reply))
        return replies

    def send(self, commands: Sequence[Command]) -> None:
        """Write commands; nothing waits, since a few hundred bytes always fit the socket's buffer."""
        self._writer.write(b"".join(hiredis.pack_command(command) for command in commands))  # type: ignore[arg-type] # its stub says 1-tuple

    async def receive(self) -> Any:
        """The next reply, or what is published next."""
        unread = 0
        while True:
            try:
                reply = self._replies.gets()
            except hiredis.ProtocolError as error:
                raise ConnectionError(f"broken reply: {error}") from None
            if reply is not self:
                return reply
            data = await self._reader.read(READ_SIZE)
            unread += len(data)
            if not data:
                raise ConnectionError("the connection was closed")
            if unread > REPLY_LIMIT:
                raise ConnectionError(f"a reply of more than {REPLY_LIMIT >> 20} MB")
            self._replies.feed(data)

    def close(self) -> None:
        self._writer.transport.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_connection(endpoint.host, endpoint.port)
    except UnicodeError:  # such as a label of 64 signs
        raise ConnectionError("its host is not a name") from None


def why(error: OSError) -> str:
    """An OSError in a few words, for logs and views."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    known = error.errno is not None and error.errno > 0  # those of a name server are below
    return (os.strerror(error.errno or 0) if known else error.strerror or str(error)) or type(error).__name__
