"""Every key that a pool of a nutcracker.yml may have, declared once.

From this table come the parser, its messages, the reference page and the lines of `-h`. Rule: whoever needs a key's
default or rule reads it here. Called by `file` and `reference`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from shoal.nutcracker import kinds
from shoal.nutcracker.kinds import Kind
from shoal.topology.model import MOST_DATABASES, Hash

HASHES: Final = get_args(Hash)
DISTRIBUTIONS: Final = ("ketama", "modula", "random")
MOST_CONNECTIONS: Final = 1024


class Required:
    """The default of a key that has none."""


REQUIRED: Final = Required()


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its name and the Pool's field, what may stand there, what holds without it, and what it does.

    `note` says where Shoal differs from nutcracker 0.5.0. `secret` values are never shown.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    note: str = ""
    field: str = ""
    secret: bool = False

    @property
    def attribute(self) -> str:
        return self.field or self.name


def _one_of(names: Sequence[str]) -> str:
    *most, last = (f"`{name}`" for name in names)
    return f"{', '.join(most)} or {last}"


NUMBER = Kind("a number", kinds.number())
MILLISECONDS = Kind("milliseconds", kinds.number())
BOOLEAN = Kind("`true` or `false`", kinds.boolean)

_TABLE = (
    Key(
        "listen",
        Kind("`host:port`, or `/path [octal mode]`", kinds.listen),
        REQUIRED,
        "Where clients connect: an address and port, or a unix socket and its mode.",
        "Two pools that would take the same port or socket are refused here, not when the second one binds.",
    ),
    Key(
        "client_connections",
        NUMBER,
        0,
        "How many clients may be connected at once; 0 is no limit.",
        "Enforced here; nutcracker reads it and does nothing with it.",
    ),
    Key("hash", Kind(_one_of(HASHES), kinds.choice("hash", HASHES)), "fnv1a_64", "Which hash of the key."),
    Key(
        "hash_tag",
        Kind("two characters", kinds.hash_tag),
        None,
        "Two characters: only what stands between them in a key is hashed.",
    ),
    Key(
        "distribution",
        Kind(_one_of(DISTRIBUTIONS), kinds.choice("distribution", DISTRIBUTIONS)),
        "ketama",
        "How a hash finds its server.",
    ),
    Key(
        "timeout",
        MILLISECONDS,
        0,
        "How long a request waits for its server; 0 is for ever.",
        "Each request is timed on its own here; nutcracker closes the server's connection and fails all that wait.",
        field="timeout_ms",
    ),
    Key("backlog", NUMBER, 512, "How many connections the kernel may keep waiting to be accepted."),
    Key("tcpkeepalive", BOOLEAN, False, "Ask the kernel to probe idle client connections."),
    Key(
        "reuseport",
        BOOLEAN,
        False,
        "Let other processes listen on the same port.",
        "Later than nutcracker 0.5.0, which refuses the key.",
    ),
    Key("preconnect", BOOLEAN, False, "Open one connection to every server at the start."),
    Key(
        "redis",
        BOOLEAN,
        False,
        "The pool speaks Redis's protocol; it must be true.",
        "Shoal serves Redis pools only.",
    ),
    Key(
        "redis_auth",
        Kind("text", kinds.password),
        None,
        "The password that clients give and that the servers get.",
        "Sent before the database is selected, so that both may be given together.",
        secret=True,
    ),
    Key(
        "redis_db",
        Kind(f"a number, at most {MOST_DATABASES}", kinds.number(most=MOST_DATABASES, why="no Redis has so many")),
        0,
        "The database that is selected on every server.",
        "A client that selects another one gets it; nutcracker closes such a client.",
    ),
    Key(
        "server_connections",
        Kind(
            f"a number from 1 to {MOST_CONNECTIONS}",
            kinds.number(least=1, most=MOST_CONNECTIONS, zero="cannot be 0", why="one pipelined connection is enough"),
        ),
        1,
        "How many connections each server gets.",
        "So many of each worker. A client keeps its own, and so its order; nutcracker lets its requests take turns. "
        "A reload to fewer closes none: clients keep theirs, and what is left over goes when its server does.",
    ),
    Key(
        "auto_eject_hosts",
        BOOLEAN,
        False,
        "A server that fails leaves the ring for a while, and its keys go to the others.",
        "Off in a pool that has `sentinels`: there its requests wait for the failover.",
    ),
    Key(
        "server_retry_timeout",
        MILLISECONDS,
        30000,
        "How long an ejected server stays out of the ring.",
        field="server_retry_timeout_ms",
    ),
    Key(
        "server_failure_limit",
        NUMBER,
        2,
        "How many failures in a row eject a server.",
        "Connections that end together are one failure, for each worker has its own; nutcracker counts each of them.",
    ),
    Key(
        "servers",
        Kind("a list of `host:port:weight [name]` or `/path:weight [name]`", kinds.server, listed=True),
        REQUIRED,
        "The shards. The name, or else the address without its weight, is the place on the ring.",
    ),
    Key(
        "sentinels",
        Kind("a list of `host:port`", kinds.sentinel, listed=True),
        (),
        "The sentinels that say who is master; the pool then follows every failover.",
        "Shoal's own: nutcracker refuses the key. A weight after the port is ignored.",
    ),
)

KEYS: Final = {key.name: key for key in _TABLE}
