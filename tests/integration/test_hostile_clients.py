"""Clients that send what no client should, to a real server and to the proxy: the same errors, the same end.

Rule: the server is the oracle. Each trial is played to both, and what comes back is compared byte for byte; where the
proxy differs on purpose, `DELIBERATE` says what it answers and why. Nobody else may notice: after every trial another
client, connected all the while, is served. test_memory.py looks at the
memory that they cost.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from tests.integration.wire import Wire, command
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Servers

MIB = 1 << 20
PING = command("PING")
# A TLS 1.2 ClientHello as openssl begins it: version, length, random bytes, ciphers.
CLIENT_HELLO = (
    bytes.fromhex("16030100c8010000c40303") + bytes(range(1, 33)) + b"\x20" + bytes(range(40, 72)) + bytes(97)
)
MOST_ARGUMENTS = 1024 * 1024

REFUSED = {
    "a count that is no number": b"*abc\r\n",
    "no count": b"*\r\n",
    "a count with a leading zero": b"*01\r\n$4\r\nPING\r\n",
    "a count with a sign": b"*+1\r\n$4\r\nPING\r\n",
    "a huge count": b"*99999999999\r\n",
    "a count of 64 bits": b"*9223372036854775807\r\n",
    "a count of 65 bits": b"*9223372036854775808\r\n",
    "a million digits of count": b"*" + b"1" * 100_000,
    "a negative length": b"*1\r\n$-1\r\n",
    "the least length": b"*1\r\n$-9223372036854775808\r\n",
    "a length that is no number": b"*1\r\n$abc\r\n",
    "no length": b"*1\r\n$\r\n",
    "a length with a leading zero": b"*1\r\n$04\r\nPING\r\n",
    "a length above 512 MiB": b"*1\r\n$536870913\r\n",
    "a huge length": b"*2\r\n$3\r\nGET\r\n$999999999999\r\n",
    "a million digits of length": b"*1\r\n$" + b"1" * 100_000,
    "no dollar": b"*1\r\n:5\r\n",
    "an empty line for a length": b"*1\r\n\r\n",
    "nested requests": b"*1\r\n*1\r\n$4\r\nPING\r\n",
    "deeply nested requests": b"*1\r\n" * 1_000_000,
    "an endless line": b"a" * 100_000,
    "an unbalanced quote": b'SET "a\r\n',
    "lines that end with LF alone": b"*1\n$4\nPING\n" + PING,
    "a browser that reads": b"GET / HTTP/1.1\r\nHost: shoal\r\n\r\n",
    "a browser that posts": b"POST / HTTP/1.1\r\nHost: shoal\r\n\r\n" + command("SET", "forged", "1"),
    "a request before what is wrong": command("SET", "before", "1") + b"*abc\r\n" + command("SET", "behind", "1"),
}
"""What a server refuses, and closes the connection."""

ANSWERED = {
    "a negative count": b"*-5\r\n",
    "the least count": b"*-9223372036854775808\r\n",
    "a count of none": b"*0\r\n",
    "empty lines": b"\r\n\n  \r\n",
    "an empty command": command(""),
    "a reply": b"+OK\r\n",
    "a map": b"%1\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a command of many lines": command("A\r\n+OK\r\n", "x\r\ny"),
    "a command of a thousand bytes": command("X" * 1000, "y" * 1000, "z"),
    "a subcommand of many lines": command("OBJECT", b"\r\n+OK"),
    "a binary key": command("SET", b"\0\xff\r\n", b"\r\n$3") + command("GET", b"\0\xff\r\n"),
    "a binary name": command("CLIENT", "SETNAME", b"\xff"),
    "a name of two lines": command("CLIENT", "SETNAME", b"a\r\nb"),
    "a name with a blank": command("CLIENT", "SETNAME", "a b"),
    "a name in HELLO": command("HELLO", "2", "SETNAME", b"a\nb"),
}
"""What a server answers, or passes over, and goes on."""

UNFINISHED = {
    "a count": b"*",
    "half a count": b"*12",
    "the most arguments": b"*%d\r\n" % MOST_ARGUMENTS,
    "the longest argument": b"*1\r\n$536870912\r\nabc",
    "half a length": b"*2\r\n$3\r\nGET\r\n$1",
    "half an argument": b"*2\r\n$3\r\nGET\r\n$10\r\nabc",
    "half a line end": b"*1\r\n$4\r\nPING\r",
    "half a line": b"PIN",
    "a line without an end": b"a" * 65_536,
}
"""What a server waits for the rest of."""

DELIBERATE = {
    "a byte for a dollar": (b"*1\r\n\xff\r\n", b"-ERR Protocol error: expected '$', got '?'\r\n"),
    # Valkey 9 takes them for one word.
    "words that are not parted": (b'SET "a"b\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    # Redis waits for the line's end before it says so.
    "a dollar that cannot come": (b"*1\r\nx", b"-ERR Protocol error: expected '$', got 'x'\r\n"),
    # Redis 7.0 skips the two bytes behind a length or an argument unread; Valkey 9 does not.
    "no CRLF behind a count": (b"*1\rx$4\r\nPING\r\n", b"-ERR Protocol error: invalid CRLF in request\r\n"),
    "no CRLF behind an argument": (b"*1\r\n$4\r\nPINGxx" + PING, b"-ERR Protocol error: invalid CRLF in request\r\n"),
    # Redis 7.0 takes 2^31 - 1.
    "too many arguments": (b"*%d\r\n" % (MOST_ARGUMENTS + 1), b"-ERR Protocol error: invalid multibulk length\r\n"),
    # Redis does not look for the end of a line behind a NUL, and waits until there are 64 KiB.
    "TLS": (CLIENT_HELLO, b"-ERR Protocol error: too big inline request\r\n"),
    "TLS with a line end in it": (
        CLIENT_HELLO[:60] + b"\n" + CLIENT_HELLO[61:],
        b"-ERR Protocol error: too big inline request\r\n",
    ),
    "a NUL in a line": (b"PING \0\r\n" + PING, b"-ERR Protocol error: too big inline request\r\n"),
}
"""Where the proxy refuses what a server takes otherwise, or later."""


def to_the_end(wire: Wire) -> bytes:
    """All that comes until the other side closes; it resets the connection if it has not read all that was sent."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := wire.socket.recv(65_536):
            received += piece
    return received


def refusal(address: tuple[str, int], data: bytes, *, slowly: bool = False) -> bytes:
    """What is answered before the connection is closed, which we do not ask for."""
    with Wire(address) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):  # it need not wait for the last byte
            for piece in [data[at : at + 1] for at in range(len(data))] if slowly else [data]:
                wire.send(piece)
        return to_the_end(wire)


def answer(address: tuple[str, int], data: bytes) -> bytes:
    """What is answered by a connection that goes on."""
    mark = b"the end of what was asked"
    with Wire(address) as wire:
        wire.send(data + command("ECHO", mark))
        last = b"$%d\r\n%s\r\n" % (len(mark), mark)
        received = b""
        while not received.endswith(last):
            piece = wire.socket.recv(65_536)
            assert piece, f"closed after {received!r}"
            received += piece
    return received.removesuffix(last)


@pytest.fixture(scope="module")
def bystander(shared_proxy: PlaneHost) -> Iterator[Wire]:
    """A client that is connected through all that the others do."""
    with Wire(shared_proxy.address) as wire:
        yield wire


@pytest.fixture(autouse=True)
def others_are_served(proxy: PlaneHost, bystander: Wire) -> Iterator[None]:
    assert bystander.call("SET", "mine", "before") == "OK"
    yield
    assert bystander.call("GET", "mine") == b"before"
    with Wire(proxy.address) as wire:
        assert wire.call("MSET", "mine", "after", "1", "x", "2", "y") == "OK"


@pytest.mark.parametrize("trial", REFUSED)
def test_what_a_server_refuses_is_refused_in_its_words(proxy: PlaneHost, trial: str) -> None:
    expected = refusal(proxy.servers["a"].address, REFUSED[trial])
    assert refusal(proxy.address, REFUSED[trial]) == expected


@pytest.mark.parametrize("trial", ANSWERED)
def test_what_a_server_answers_is_answered_in_its_words(proxy: PlaneHost, trial: str) -> None:
    expected = answer(proxy.servers["a"].address, ANSWERED[trial])
    assert answer(proxy.address, ANSWERED[trial]) == expected


def test_a_name_with_a_nul_is_no_name(proxy: PlaneHost) -> None:
    """As Redis 7.0 has it; Valkey 9 takes it."""
    with Wire(proxy.address) as wire:
        assert wire.call("CLIENT", "SETNAME", b"\0").startswith("ERR Client names cannot contain")
        assert wire.call("CLIENT", "GETNAME") in (None, b"")


@pytest.mark.parametrize("trial", DELIBERATE)
def test_what_can_only_be_wrong_is_refused_at_once(proxy: PlaneHost, trial: str) -> None:
    data, expected = DELIBERATE[trial]
    assert refusal(proxy.address, data) == expected


@pytest.mark.parametrize("trial", UNFINISHED)
def test_half_a_request_is_waited_for_and_forgotten_with_its_client(proxy: PlaneHost, trial: str) -> None:
    for address in (proxy.servers["a"].address, proxy.address):
        with Wire(address) as wire:
            wire.send(UNFINISHED[trial])
            with Wire(address) as other:
                assert other.call("PING") == "PONG"
            wire.socket.shutdown(socket.SHUT_WR)
            assert to_the_end(wire) == b""


SLOWLY = [name for name, data in REFUSED.items() if len(data) < 200 and name != "a browser that reads"]
"""Whether a browser's first line is answered before its second one ends it depends on how the bytes arrive."""


@pytest.mark.parametrize("trial", SLOWLY)
def test_a_byte_at_a_time_is_refused_alike(proxy: PlaneHost, trial: str) -> None:
    data = REFUSED[trial]
    expected = refusal(proxy.servers["a"].address, data, slowly=True)
    assert refusal(proxy.address, data, slowly=True) == expected


@pytest.mark.parametrize("cut", [1, 2, 3, 12, 20])
def test_half_a_write_is_never_executed(proxy: PlaneHost, cut: int) -> None:
    request = command("SET", "half", "written")
    wires = [Wire(proxy.address) for _ in range(2)]
    for wire in wires:
        wire.send(request[:-cut])
    wires[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # one resets
    for wire in wires:
        wire.close()
    with Wire(proxy.address) as other:
        assert other.call("EXISTS", "half") == 0


# ------------------------------------------------------------------------------------------------- before the password

SECRET = "secret"
UNAUTHENTICATED = {
    "eleven arguments": b"*11\r\n",
    "a million arguments": b"*1000000\r\n",
    "an argument above 16 KiB": b"*1\r\n$16385\r\n",
    "a huge count": b"*99999999999\r\n",
    "a negative length": b"*1\r\n$-1\r\n",
    "an endless line": b"a" * 100_000,
    "a browser that posts": b"POST / HTTP/1.1\r\n\r\n" + command("AUTH", SECRET),
}


@pytest.fixture(scope="module")
def guarded(module_servers: Servers) -> PlaneHost:
    server = module_servers.redis("guarded", requirepass=SECRET)
    settings = {"password": SECRET, "backend_password": SECRET}
    host = PlaneHost("guarded", [], module_servers.directory / "guarded", servers={"a": server}, settings=settings)
    return module_servers.adopt(host).start()


@pytest.mark.parametrize("trial", UNAUTHENTICATED)
def test_who_has_given_no_password_may_announce_little(guarded: PlaneHost, trial: str) -> None:
    expected = refusal(guarded.servers["a"].address, UNAUTHENTICATED[trial])
    assert refusal(guarded.address, UNAUTHENTICATED[trial]) == expected


def test_who_has_given_the_password_may_announce_more(guarded: PlaneHost) -> None:
    with Wire(guarded.address) as wire:
        wire.send(b"*10\r\n$16384\r\n" + b"x" * 16_384 + b"\r\n" + b"$1\r\nx\r\n" * 9)
        assert wire.reply() == "NOAUTH Authentication required."
        assert wire.call("AUTH", SECRET) == "OK"
        assert wire.call("RPUSH", "list", *["x"] * 100) == 100
        assert wire.call("SET", "large", b"x" * 20_000) == "OK"
