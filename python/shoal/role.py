"""The role that a server says it has: one ROLE over a connection of its own.

Rule: bounded in time, and every failure is an OSError. Whether what a server says of itself is to be believed is for
those who ask: `follow`, `holds` and `switchover`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.resp import RespConnection
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from typing import Self

ROLE_TIMEOUT = 0.25


class Role(NamedTuple):
    """What a server is, and whose replica if it is one."""

    name: str
    """"master", "slave" or "sentinel"."""
    master: Endpoint | None = None

    @classmethod
    def read(cls, reply: Any) -> Self:
        """From the reply to ROLE; ConnectionError if it is none."""
        match reply:
            case [b"slave", bytes() as host, int() as port, *_]:
                return cls("slave", Endpoint(host.decode(), port))
            case [bytes() as name, *_]:
                return cls(name.decode())
        raise ConnectionError(f"ROLE was answered with {reply!r:.80}")

    def __str__(self) -> str:
        return f"a replica of {self.master}" if self.name == "slave" else f"a {self.name}"


async def ask_role(endpoint: Endpoint, password: str | None) -> Role:
    """What the server there says it is."""
    with await RespConnection.open(endpoint, password=password, timeout=ROLE_TIMEOUT) as connection:
        (reply,) = await connection.ask([("ROLE",)], ROLE_TIMEOUT)
    return Role.read(reply)
