"""Publish and subscribe over a pool with one shard: what a server says to the same lines, byte by byte."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from tests.harness import LOOPBACK, Servers
from tests.integration.wire import Wire, command
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness import EngineProgram

    Compare = Callable[[str, int], None]

# A line is a request, or several that are sent together; one with `!` is another client's, and its last word comes as
# often as the answer says.
SCRIPTS = {
    "channels": "SUBSCRIBE a b a|!PUBLISH a m1|!PUBLISH b m2|!PUBLISH c m3|UNSUBSCRIBE a|!PUBLISH b m4|UNSUBSCRIBE",
    "patterns": "PSUBSCRIBE n*s h?llo|!PUBLISH news m1|!PUBLISH hello m2|!PUBLISH other m3|PUNSUBSCRIBE n*s h?llo",
    "both": "SUBSCRIBE news|PSUBSCRIBE news* n*|!PUBLISH news m1|UNSUBSCRIBE|PUNSUBSCRIBE n* news*|GET x",
    "shard channels": "SSUBSCRIBE s t|SUBSCRIBE s|!SPUBLISH s m1|!PUBLISH s m2|SUNSUBSCRIBE s|SUNSUBSCRIBE|UNSUBSCRIBE",
    "what was not subscribed to": "UNSUBSCRIBE|UNSUBSCRIBE a b|PUNSUBSCRIBE|SUNSUBSCRIBE x|SUNSUBSCRIBE|GET x",
    "ends of the other kinds": "SUBSCRIBE a|PUNSUBSCRIBE|SUNSUBSCRIBE|UNSUBSCRIBE b|UNSUBSCRIBE a a",
    "other requests": "SUBSCRIBE a|PING|PING hi|PING a b|GET|NOSUCH",
    "unknown subcommands": "SUBSCRIBE a|CONFIG NOSUCH|CONFIG GET",
    "reset": "SUBSCRIBE a|PSUBSCRIBE p*|RESET|GET x|PING|UNSUBSCRIBE",
    "arities": "SUBSCRIBE|PSUBSCRIBE|SSUBSCRIBE|PUBLISH a|SPUBLISH a|PUBSUB|PUBSUB NUMPAT x|PUBSUB X|PUBLISH a b c",
    "questions": "PUBSUB CHANNELS|PUBSUB NUMSUB|PUBSUB NUMSUB a b|PUBSUB NUMPAT|PUBSUB SHARDNUMSUB a|PUBSUB HELP",
    "again": "SUBSCRIBE a|SUBSCRIBE a|UNSUBSCRIBE a|SUBSCRIBE a|!PUBLISH a m1|SUBSCRIBE b a|UNSUBSCRIBE a b",
    "at once": "SUBSCRIBE a;SUBSCRIBE b c;UNSUBSCRIBE a x;PSUBSCRIBE y*;UNSUBSCRIBE b c;PUNSUBSCRIBE;GET x",
    "around other requests": "SET x 1;GET x;SUBSCRIBE a;UNSUBSCRIBE;GET x;PSUBSCRIBE a*|!PUBLISH ab m1",
    "binary": "SUBSCRIBE \x00\xff {tag}x|!PUBLISH \x00\xff m1\x00\xfe|!PUBLISH {tag}x m2",
}
# In RESP3 everything is allowed.
RESP3_ONLY = {
    "all are allowed": "SUBSCRIBE a|SET x 1|GET x|MULTI;INCR x;EXEC|PUBSUB NUMSUB a|PUBSUB CHANNELS|SELECT 1|GET x",
    "a transaction": "SUBSCRIBE b|MULTI;SET x 1;GET x;PUBLISH c y;EXEC|!PUBLISH b m1",
}


def frame(request: str) -> bytes:
    return command(*(word.encode("latin-1") for word in request.split(" ")))


class Peer:
    """One connection, and all that it was told."""

    def __init__(self, address: tuple[str, int], protocol: int) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.told, self.said = b"", 0
        self.say(f"HELLO {protocol}")
        self.told = b""

    def say(self, line: str) -> None:
        """Requests, and what is told up to the answer to a PING behind them."""
        self.said += 1
        marker = f"end-{self.said}"
        self.socket.sendall(b"".join(frame(request) for request in [*line.split(";"), f"PING {marker}"]))
        self.hear(marker.encode())

    def hear(self, words: bytes, times: int = 1) -> None:
        """Everything up to these words for the so many-th time."""
        while self.told.count(words + b"\r\n") < times:
            more = self.socket.recv(65536)
            assert more, self.told
            self.told += more


def play(address: tuple[str, int], script: str, protocol: int) -> tuple[bytes, list[int]]:
    """All that a client is told, and what the other was answered."""
    peer = Peer(address, protocol)
    answers: list[int] = []
    with contextlib.closing(peer.socket), Wire(address) as other:
        for line in script.split("|"):
            if line.startswith("!"):
                other.send(frame(line[1:]))
                answers.append(other.reply())
                peer.hear(line.split(" ")[-1].encode("latin-1"), answers[-1])
            else:
                peer.say(line)
    return peer.told, answers


@pytest.fixture(scope="module")
def lone(engine: EngineProgram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneHost]:
    """A pool with one shard."""
    with Servers(engine, tmp_path_factory.mktemp("servers")) as servers:
        host = PlaneHost("lone", [], servers.directory / "lone", servers={"a": servers.redis("a")})
        yield servers.adopt(host).start()


@pytest.fixture
def compare(lone: PlaneHost) -> Iterator[Compare]:
    """Plays a script to the server and to the proxy."""
    server = lone.servers["a"]
    with contextlib.closing(server.client()) as direct:

        def played(script: str, protocol: int) -> None:
            direct.flushall()
            told = play((LOOPBACK, server.port), script, protocol)
            direct.flushall()
            assert play(lone.address, script, protocol) == told

        yield played


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_subscriber_is_told_what_a_server_says(compare: Compare, script: str, protocol: int) -> None:
    compare(script, protocol)


@pytest.mark.parametrize("script", RESP3_ONLY.values(), ids=RESP3_ONLY)
def test_in_resp3_every_request_is_answered(compare: Compare, script: str) -> None:
    compare(script, 3)


def test_in_resp2_few_requests_are(compare: Compare) -> None:
    compare("SUBSCRIBE a|GET x|SET x 1|CONFIG GET x|MULTI|HELLO 3|PUBLISH a b|EXEC", 2)
