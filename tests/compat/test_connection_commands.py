"""What a client says about its own connection, and what it types by hand: the proxy answers as the servers do.

Owns the scripts that are played to a server and to the proxy before it, with a password and without. Rule: an answer
may differ only where the engines differ among themselves, and that stands here; what each server says of itself in
the answer to HELLO is masked.
"""

from __future__ import annotations

import re
import socket
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import pytest

from tests.harness import Servers
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import EngineProgram

PASSWORD = "sesame"
SCRIPTS = {
    "ping": ("PING", "ping", "PiNg", "PING x", 'PING ""', 'PING "a b"', "PING x y", "MULTI", "PING", "PING x", "EXEC"),
    "echo": ("ECHO", "ECHO a", 'ECHO ""', "ECHO a b", "MULTI", "ECHO a", "EXEC"),
    "quit": ("PING", "QUIT", "PING"),
    "quit with words": ("QUIT now", "PING"),
    "quit in a transaction": ("MULTI", "SET k v", "QUIT", "PING"),
    "quit before others are answered": ("SET k v", "GET k", "QUIT", "SET k w"),
    "select": ("SET k 0", "SELECT 3", "SET k 3", "GET k", "SELECT 0", "GET k", "SELECT 15", "GET k"),
    "select nonsense": ("SELECT", "SELECT 1 2", "SELECT 16", "SELECT -1", "SELECT x", 'SELECT ""', "SELECT 01"),
    "select more nonsense": ("SELECT +1", 'SELECT " 1"', "SELECT 1.0", "SELECT 99999999999999999999", "SELECT -0"),
    "reset": ("SELECT 3", "CLIENT SETNAME me", "SET k 3", "RESET", "GET k", "CLIENT GETNAME", "RESET now"),
    "reset a transaction": ("MULTI", "SET k v", "RESET", "EXEC", "GET k", "DISCARD"),
    "reset what is watched": ("WATCH k", "RESET", "SET k v", "MULTI", "GET k", "EXEC"),
    "reset the protocol": ("HELLO 3", "GET none", "RESET", "GET none"),
    "hello": ("HELLO", "HELLO 2", "GET none", "HELLO 3", "GET none", "HELLO", "HELLO 2", "GET none"),
    "hello nonsense": ("HELLO x", "HELLO 1", "HELLO 4", "HELLO -1", "HELLO 2.0", "HELLO 2 FOO", "HELLO 3 SETNAME"),
    "hello with a name": ("HELLO 2 SETNAME me", "CLIENT GETNAME", 'HELLO 2 SETNAME "a b"', 'HELLO 2 SETNAME ""'),
    "hello with a password": ("HELLO 2 AUTH default", "HELLO 2 AUTH nobody x", f"HELLO 2 AUTH default {PASSWORD}"),
    "auth": (f"AUTH {PASSWORD}", f"AUTH default {PASSWORD}", "AUTH x", "AUTH default x", "PING"),
    "auth nonsense": ("AUTH", "AUTH a b c", "AUTH nobody x", 'AUTH nobody ""', f"AUTH nobody {PASSWORD}"),
    "reset forgets the password": (f"AUTH {PASSWORD}", "PING", "RESET", "PING"),
    "reset first": ("RESET", "PING"),
    "hello brings the password": (f"HELLO 3 AUTH default {PASSWORD} SETNAME me", "PING", "GET none", "CLIENT GETNAME"),
    "hello brings a wrong password": ("HELLO 3 AUTH default wrong", "HELLO 9 AUTH default wrong", "GET none"),
    "client names": ("CLIENT GETNAME", "CLIENT SETNAME me", "CLIENT GETNAME", 'CLIENT SETNAME "a b"', "CLIENT GETNAME"),
    "no client name": (
        "CLIENT SETNAME me",
        'CLIENT SETNAME ""',
        "CLIENT GETNAME",
        "CLIENT SETNAME",
        "CLIENT GETNAME x",
    ),
    "client words": ("CLIENT", "CLIENT NOSUCH", "CLIENT NOSUCH x y", "client id x", "CLIENT KILL", "CLIENT INFO x"),
    "client list": (
        "CLIENT LIST TYPE nosuch",
        "CLIENT LIST ID 0 99999",
        "CLIENT LIST NOSUCH",
        "CLIENT LIST TYPE master",
    ),
    "client kill": ("CLIENT KILL 1.2.3.4:5", "CLIENT KILL ID", "CLIENT KILL ID 0", "CLIENT KILL ID 99999", "PING"),
    "client kill nonsense": ("CLIENT KILL TYPE nosuch", "CLIENT KILL USER nobody", "CLIENT KILL SKIPME maybe"),
    "client kill many": ("CLIENT KILL NOSUCH x", "CLIENT KILL ID 99999 ADDR 1.2.3.4:5", "CLIENT KILL TYPE slave"),
    "client reply": ("CLIENT REPLY OFF", "PING", "SET k v", "NOSUCH", "CLIENT REPLY ON", "GET k", "CLIENT REPLY x"),
    "client reply skip": ("CLIENT REPLY SKIP", "PING a", "PING b", "CLIENT REPLY SKIP", "NOSUCH", "GET k", "PING"),
    "client reply skip what a shard says": ("SET k v", "CLIENT REPLY SKIP", "GET k", "SET k w", "GET k"),
    "client reply skip twice": ("CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING a", "PING b"),
    "client reply skip and on": ("CLIENT REPLY SKIP", "CLIENT REPLY ON", "PING a", "CLIENT REPLY SKIP", "QUIT"),
    "client reply skip and off": (
        "CLIENT REPLY SKIP",
        "CLIENT REPLY OFF",
        "PING",
        "CLIENT REPLY SKIP",
        "CLIENT REPLY ON",
    ),
    "client reply skip around a transaction": ("CLIENT REPLY SKIP", "MULTI", "SET k x", "EXEC", "GET k"),
    "client reply skip what changes the lane": (
        "CLIENT REPLY SKIP",
        "SELECT 1",
        "SET k 1",
        "GET k",
        "SELECT 0",
        "GET k",
    ),
    "client reply skip a watch": ("CLIENT REPLY SKIP", "WATCH k", "MULTI", "GET k", "EXEC", "PING"),
    "client reply skip a list": ("CLIENT REPLY SKIP", "CLIENT KILL ID 99999", "PING", "GET k"),
    "client reply off for good": ("PING", "CLIENT REPLY OFF", "PING", "QUIT"),
    "reset speaks again": ("CLIENT REPLY OFF", "PING", "RESET", "PING"),
    "client switches": ("CLIENT NO-EVICT OFF", "CLIENT NO-EVICT x", "CLIENT NO-EVICT", "CLIENT GETREDIR"),
    "client tracks nothing": ("CLIENT TRACKINGINFO", "HELLO 3", "CLIENT TRACKINGINFO"),
    "inline": ("  PING  ", "", "   ", "PING\t\tx", "SET k 'its'", r'ECHO "\x41\n\"\\"', r"ECHO 'a\'b'", 'ECHO a"b'),
    "inline that breaks": ("PING", 'ECHO "open', "PING"),
    "unknown": ("NOSUCH", "NOSUCH a b", 'NOSUCH "a b" c', "GET", "GET a b", "DEL", "GET k", "SELECT 1", "COMMAND x"),
}
# What stands behind a closing quote is an error in Redis 7.0; Valkey takes both for one word.
ONLY_REDIS = {
    "inline with something behind a quote": ("PING", "ECHO 'a'b", "PING"),
    "inline with a quote behind a quote": ("SET k 'it''s'", "GET k"),
}
# Where the engines differ, the proxy says what the other one says: engine, its words, the proxy's, and why.
AS_THE_OTHER = (
    ("redis", r"-ERR (wrong number|unknown) .*", r"-NOAUTH Authentication required\.", "no password, no information"),
    ("redis", r"-NOAUTH HELLO .*", r"-NOAUTH HELLO .*", "7.2 names another example"),
    ("valkey", r"-ERR client-id should be greater than 0", r"\$0 \r\n", "an id that nobody has, as in 7.0"),
)


class Rivals(NamedTuple):
    """A server, and the proxy before it."""

    server: tuple[str, int]
    proxy: tuple[str, int]


@pytest.fixture(scope="module", params=[None, PASSWORD], ids=["open", "locked"])
def rivals(
    request: pytest.FixtureRequest, engine: EngineProgram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rivals]:
    directory = tmp_path_factory.mktemp("rivals")
    secret = {"requirepass": request.param} if request.param else {}
    with Servers(engine, directory) as servers:
        server = servers.redis("a", **secret)
        settings = {"password": request.param, "backend_password": request.param}
        host = PlaneHost("proxy", [], directory / "proxy", servers={"a": server}, settings=settings)
        yield Rivals(server.address, servers.adopt(host).start().address)


def told(address: tuple[str, int], requests: tuple[str, ...]) -> list[Any]:
    """All that is answered until the connection is closed."""
    with socket.create_connection(address, timeout=10) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"".join(request.encode() + b"\r\n" for request in (*requests, "QUIT")))
        answers: list[Any] = []
        while line := stream.readline():
            answers.append(masked(answer(stream, line)))
        return answers


def answer(stream: BinaryIO, line: bytes) -> Any:
    """A reply with its type: a line as it is, a string with its length before it, a list with its type in front."""
    kind, text = line[:1].decode(), line.strip().decode()
    if kind in "$=" and text != "$-1":
        return f"{text} {stream.read(int(text[1:]) + 2).decode()}"
    if kind in "*~%" and text != "*-1":
        return [text, *(answer(stream, stream.readline()) for _ in range(int(text[1:]) * (1 + (kind == "%"))))]
    return text


def masked(reply: Any) -> Any:
    """The answer to HELLO without what each server says of itself."""
    if isinstance(reply, list) and reply[1:2] == ["$6 server\r\n"]:
        own = {"$6 server\r\n", "$7 version\r\n", "$2 id\r\n", "$7 modules\r\n"}
        return [part for before, part in pairwise([None, *reply]) if before not in own]
    return reply


@pytest.mark.parametrize("script", [*SCRIPTS, *ONLY_REDIS])
def test_the_proxy_says_what_the_server_says(rivals: Rivals, engine: EngineProgram, script: str) -> None:
    if engine.name != "redis" and script in ONLY_REDIS:
        return
    requests = {**SCRIPTS, **ONLY_REDIS}[script]
    server, proxy = told(rivals.server, requests), told(rivals.proxy, requests)
    assert [both for both in zip_longest(server, proxy) if not agree(engine.name, *both)] == []


def agree(engine: str, server: Any, proxy: Any) -> bool:
    if server == proxy:
        return True
    texts = isinstance(server, str) and isinstance(proxy, str)
    return texts and any(
        engine == of and re.fullmatch(theirs, server) and re.fullmatch(ours, proxy)
        for of, theirs, ours, _ in AS_THE_OTHER
    )
