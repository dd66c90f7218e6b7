"""CLIENT TRACKING over a pool with one shard: what a server says to the same lines, byte by byte."""

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

    Address = tuple[str, int]

# A line is a request, or several that are sent together; one with `!` is another client's, and the client is told of a
# change; with `?` it is another's, too, and nobody is told.
SCRIPTS = {
    "what was read": "CLIENT TRACKING ON|GET a|!SET a 1|?SET a 2|GET a|GET a|!DEL a|?SET b 1|"
    "MGET a b c|!MSET a 1|!SET c 1",
    "commands that read": "CLIENT TRACKING ON|HGETALL h|!HSET h f 1|EXISTS h|!DEL h|LRANGE l 0 -1|!RPUSH l 1|STRLEN s|"
    "!SET s 1|TTL s|!EXPIRE s 100|OBJECT ENCODING s|!SET s 2|XRANGE x - +|!XADD x 1-1 f v|PFCOUNT p|!PFADD p 1|"
    "TYPE t|!SET t 1|GETRANGE t 0 1|!APPEND t 1|DUMP t|!SETRANGE t 0 x",
    "commands that write": "CLIENT TRACKING ON|SET a 1|?SET a 2|GETDEL a|?SET a 3|GETEX a|?SET a 4|INCR n|?INCR n|"
    "SETRANGE a 0 x|?SET a 5|GET z|!SET z 1",
    "its own writes": "CLIENT TRACKING ON|GET a|SET b 1|GET b|?SET x 1|!SET a 1",
    "scripts": "CLIENT TRACKING ON|EVAL return{{redis.call('get',KEYS[1])}} 1 a|!SET a 1|"
    "EVAL_RO return{{redis.call('get',KEYS[1])}} 1 a|!SET a 2|EVALSHA nosuch 1 b|GET z|!SET z 1",
    "a transaction": "CLIENT TRACKING ON|MULTI;GET a;GET b;EXEC|!SET a 1|!SET b 1|MULTI;GET c;DISCARD|?SET c 1|"
    "WATCH d|?SET e 1|GET d|MULTI;GET e;EXEC|!SET e 1|!SET d 2",
    "everything": "CLIENT TRACKING ON|GET a|!FLUSHALL|GET a|!FLUSHDB|?SET a 1",
    "off": "CLIENT TRACKING ON|GET a|CLIENT TRACKING OFF|?SET a 1|CLIENT TRACKINGINFO|CLIENT GETREDIR|"
    "CLIENT TRACKING ON|GET z|!SET z 1|RESET|CLIENT TRACKINGINFO|CLIENT CACHING YES",
    "opt in": "CLIENT TRACKING ON OPTIN|GET a|?SET a 1|CLIENT CACHING YES;CLIENT TRACKINGINFO;GET a|!SET a 2|GET a|"
    "?SET a 3|CLIENT CACHING YES;PING;GET a|?SET a 4|CLIENT CACHING YES;MULTI;GET a;GET b;EXEC|!SET a 5|!SET b 5|"
    "GET a|?SET a 6|CLIENT CACHING NO|CLIENT CACHING x|CLIENT CACHING YES;MGET a b;GET c|?SET c 1|!SET b 6",
    "opt out": "CLIENT TRACKING ON OPTOUT|GET a|!SET a 1|CLIENT CACHING NO;CLIENT TRACKINGINFO;GET a|?SET a 2|GET a|"
    "!SET a 3|CLIENT CACHING YES|CLIENT CACHING NO;MULTI;GET a;EXEC|?SET a 4|GET a|!SET a 5",
    "broadcast": "CLIENT TRACKING ON BCAST|!SET a 1|GET a|!SET b 1|CLIENT TRACKINGINFO|!FLUSHALL|CLIENT TRACKING OFF|"
    "?SET a 1|CLIENT TRACKINGINFO",
    "prefixes": "CLIENT TRACKING ON BCAST PREFIX user: PREFIX item:|!SET user:1 x|?SET other x|!SET item:2 x|"
    "CLIENT TRACKINGINFO|CLIENT TRACKING ON BCAST PREFIX more:|CLIENT TRACKINGINFO|!SET more:1 x|!SET user:2 x",
    "binary": "CLIENT TRACKING ON|GET \x00\xff{{a}}|!SET \x00\xff{{a}} \x01",
    "databases": "CLIENT TRACKING ON|SELECT 1|GET a|!SET a 1|GET a|SELECT 0|GET b|!SET a 2|!SET b 1",
    "modes": "CLIENT TRACKINGINFO|CLIENT TRACKING ON|CLIENT TRACKINGINFO|CLIENT GETREDIR|CLIENT TRACKING OFF;"
    "CLIENT TRACKING ON OPTIN;CLIENT TRACKINGINFO;CLIENT TRACKING OFF;CLIENT TRACKING ON OPTOUT;CLIENT TRACKINGINFO",
    "at once": "CLIENT TRACKING ON;GET a;CLIENT TRACKINGINFO;CLIENT TRACKING OFF;GET b;CLIENT TRACKING ON;GET c|"
    "?SET b 1|!SET c 1",
    "another protocol": "CLIENT TRACKING ON|GET a|RESET|?SET a 1|CLIENT TRACKING ON|GET a|?SET a 2",
}
# Nothing is told: the protocol does not matter.
ERRORS = {
    "words": "CLIENT TRACKING|CLIENT TRACKING x|CLIENT TRACKING ON x|CLIENT TRACKING OFF x|CLIENT TRACKING ON PREFIX|"
    "CLIENT TRACKING ON REDIRECT|CLIENT TRACKING ON REDIRECT x|CLIENT TRACKING ON REDIRECT 987654321|"
    "CLIENT TRACKING ON REDIRECT 0|CLIENT TRACKING ON REDIRECT -1|CLIENT TRACKING x REDIRECT",
    "options": "CLIENT TRACKING ON PREFIX a|CLIENT TRACKING ON OPTIN OPTOUT|CLIENT TRACKING ON BCAST OPTIN|"
    "CLIENT TRACKING ON BCAST OPTOUT|CLIENT TRACKING ON OPTIN PREFIX a",
    "other modes": "CLIENT TRACKING ON|CLIENT TRACKING ON BCAST|CLIENT TRACKING ON OPTIN|CLIENT TRACKING ON OPTOUT|"
    "CLIENT TRACKING OFF|CLIENT TRACKING ON BCAST|CLIENT TRACKING ON|CLIENT TRACKING ON OPTIN|CLIENT TRACKING OFF",
    "overlaps": "CLIENT TRACKING ON BCAST PREFIX a PREFIX ab|CLIENT TRACKING ON BCAST PREFIX a|"
    "CLIENT TRACKING ON BCAST PREFIX ab|CLIENT TRACKING ON BCAST PREFIX a|CLIENT TRACKING ON BCAST|CLIENT TRACKINGINFO",
    "caching": "CLIENT CACHING YES|CLIENT CACHING|CLIENT CACHING x|CLIENT TRACKING ON|CLIENT CACHING YES|"
    "CLIENT CACHING NO|CLIENT CACHING x",
}


def frame(request: str) -> bytes:
    words = request.replace("{{", "{").replace("}}", "}").split(" ")
    return command(*(word.encode("latin-1") for word in words))


class Peer:
    """One connection, and all that it was told."""

    def __init__(self, address: Address, protocol: int) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.told, self.said = b"", 0
        self.say(f"HELLO {protocol}")
        self.told = b""

    def say(self, line: str) -> None:
        """Requests, and what is told up to the answer to a PING behind them."""
        self.said += 1
        marker = f"end-{self.said}"
        self.socket.sendall(b"".join(frame(request) for request in [*line.split(";"), f"PING {marker}"]))
        self.hear(marker.encode(), 1)

    def hear(self, words: bytes, times: int) -> None:
        """Everything up to these words for the so many-th time, and the line behind them."""
        while self.told.count(words) < times or not self.told.endswith(b"\r\n"):
            more = self.socket.recv(65536)
            assert more, self.told
            self.told += more


def play(address: Address, script: str, protocol: int) -> bytes:
    """All that a client is told."""
    peer = Peer(address, protocol)
    changes = 0
    with contextlib.closing(peer.socket), Wire(address) as other:
        for line in script.split("|"):
            if line[0] in "!?":
                other.send(frame(line[1:]))
                other.reply()
            if line[0] == "!":
                changes += 1
                peer.hear(b"invalidate\r\n", changes)
            elif line[0] != "?":
                peer.say(line)
        peer.say("ECHO end")
    return peer.told


@pytest.fixture(scope="module")
def lone(engine: EngineProgram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneHost]:
    """A pool with one shard, of two workers."""
    with Servers(engine, tmp_path_factory.mktemp("servers")) as servers:
        host = PlaneHost("lone", [], servers.directory / "lone", servers={"a": servers.redis("a")}, workers=2)
        yield servers.adopt(host).start()


@pytest.fixture
def compare(lone: PlaneHost) -> Iterator[Callable[[Callable[[Address], bytes]], None]]:
    """Plays something to the server and to the proxy."""
    server = lone.servers["a"]
    with contextlib.closing(server.client()) as direct:

        def played(play: Callable[[Address], bytes]) -> None:
            direct.flushall()
            told = play((LOOPBACK, server.port))
            direct.flushall()
            assert play(lone.address) == told

        yield played


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_client_is_told_what_a_server_says(
    compare: Callable[[Callable[[Address], bytes]], None], script: str
) -> None:
    compare(lambda address: play(address, script, 3))


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("script", ERRORS.values(), ids=ERRORS)
def test_errors_are_a_servers(
    compare: Callable[[Callable[[Address], bytes]], None], script: str, protocol: int
) -> None:
    compare(lambda address: play(address, script, protocol))


def play_redirected(address: Address, protocol: int, options: str) -> bytes:
    """All that a client and the one that is told in its place are told; of one protocol, for a server tells everything
    with the null of the first."""
    client, ear = Peer(address, protocol), Peer(address, protocol)
    with contextlib.closing(client.socket), contextlib.closing(ear.socket), Wire(address) as other:
        ear.say("CLIENT ID")
        number = ear.told.split(b"\r\n")[0][1:].decode()
        if protocol == 2:
            ear.say("SUBSCRIBE __redis__:invalidate")
        client.say(f"CLIENT TRACKING ON REDIRECT {number} {options}".strip())
        client.say("CLIENT TRACKINGINFO;CLIENT GETREDIR;GET a;GET b")
        before = ear.told.count(b"invalidate\r\n")
        for times, change in enumerate(["SET a 1", "DEL a" if "BCAST" in options else "SET b 1", "FLUSHALL"], 1):
            other.call(*change.split())
            ear.hear(b"invalidate\r\n", before + times)
        ear.say("PING x")
        client.say(f"CLIENT TRACKING ON REDIRECT {number} REDIRECT {number}")
    return (client.told + ear.told).replace(f":{number}\r\n".encode(), b":ID\r\n")


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("options", ["", "BCAST", "OPTOUT", "BCAST PREFIX a PREFIX b"])
def test_another_client_is_told_what_a_server_says(
    compare: Callable[[Callable[[Address], bytes]], None], options: str, protocol: int
) -> None:
    compare(lambda address: play_redirected(address, protocol, options))
