"""MULTI and EXEC through the proxy: what a server says to the same bytes, whole transactions, and keys apart."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.harness import LOOPBACK
from tests.integration.wire import Wire, WireError, command

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.plane_host import PlaneHost

END = b"$7\r\nthe end\r\n"
# Conversations whose answers are the server's own, byte by byte; `{t}` keeps the keys on one shard.
SCRIPTS = {
    "empty": "MULTI|EXEC",
    "writes and reads": "SET {t}a 1|MULTI|INCR {t}a|GET {t}a|LPUSH {t}l x y|LRANGE {t}l 0 -1|EXEC|GET {t}a",
    "several keys": "MULTI|MSET {t}a 1 {t}b 2|MGET {t}a {t}b {t}c|DEL {t}a {t}b|EXISTS {t}a|EXEC",
    "without keys": "MULTI|PING|ECHO hello|PING hello|PING a b|EXEC",
    "an error inside": "SET {t}s x|MULTI|INCR {t}s|LPUSH {t}s 1|SET {t}s y|EXEC|GET {t}s",
    "discarded": "MULTI|SET {t}a 1|DISCARD|GET {t}a|DISCARD",
    "without MULTI": "EXEC|DISCARD|EXEC a|DISCARD a|MULTI a|EXEC",
    "unknown command": "MULTI|SET {t}a 1|NOSUCH x y|SET {t}a 2|EXEC|GET {t}a|EXEC",
    "wrong arity": "MULTI|GET|SET {t}a 1|EXEC|GET {t}a",
    "wrong arity of EXEC": "MULTI|SET {t}a 1|EXEC a|EXEC|GET {t}a",
    "wrong arity of DISCARD": "MULTI|DISCARD a|EXEC",
    "the server sees a form": "MULTI|MSET {t}a 1 {t}b|ZUNION 0 {t}a|SINTERCARD 2 {t}a|SET {t}a 3|EXEC|GET {t}a",
    "reset": "MULTI|SET {t}a 1|RESET|EXEC|GET {t}a",
    "databases": "SELECT 3|MULTI|SET {t}a 1|EXEC|GET {t}a|SELECT 0|GET {t}a",
    "script": "MULTI|EVAL return{{KEYS[1],ARGV[1]}} 1 {t}a x|EXEC",
}
REDIS_70 = {  # Valkey 9 has other words, and aborts; the proxy keeps to Redis's on both
    "nested": ("MULTI|MULTI|SET {t}a 1|EXEC", b"+OK\r\n-ERR MULTI calls can not be nested\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
}


def frames(script: str) -> bytes:
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


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_answers_are_the_servers_own(proxy: PlaneHost, script: str, protocol: int) -> None:
    server = proxy.servers["a"]
    direct = talk((LOOPBACK, server.port), script, protocol=protocol)
    with server.client() as client:
        client.flushall()
    assert talk(proxy.address, script, protocol=protocol) == direct


def test_byte_by_byte_is_the_same(proxy: PlaneHost) -> None:
    script = SCRIPTS["several keys"]
    assert talk(proxy.address, script, at_once=False) == talk(proxy.address, script)


def test_what_engines_say_differently_is_said_as_redis_says_it(proxy: PlaneHost) -> None:
    for script, expected in REDIS_70.values():
        assert talk(proxy.address, script) == expected


def test_what_a_shared_connection_cannot_take_is_refused_and_aborts(proxy: PlaneHost) -> None:
    for request in ["SELECT 1", "HELLO 3", "AUTH x", "CLIENT ID", "SUBSCRIBE c", "KEYS *", "OBJECT NOSUCH k"]:
        with Wire(proxy.address) as wire:
            assert wire.call("MULTI") == "OK"
            refused = wire.call(*request.split())
            assert isinstance(refused, WireError), request
            assert "not supported by Shoal" in refused
            assert wire.call("EXEC").code == "EXECABORT"
            assert wire.call("PING") == "PONG"


def test_an_error_that_only_the_server_sees_is_told_at_exec(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        for server in proxy.servers.values():
            with server.client() as direct:
                direct.config_set("maxmemory", "1")
        try:
            assert [wire.call("MULTI"), wire.call("SET", "k", "v")] == ["OK", "QUEUED"]
            told = wire.call("EXEC")
        finally:
            for server in proxy.servers.values():
                with server.client() as direct:
                    direct.config_set("maxmemory", "0")
        assert told.startswith("EXECABORT Transaction discarded because of: OOM ")
        assert wire.call("GET", "k") is None


def test_keys_of_two_shards_are_refused_at_the_request_that_crosses(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        assert wire.call("MULTI") == "OK"
        answers = [wire.call("SET", f"{number}:key", "1") for number in range(50)]
        refused = [answer for answer in answers if answer != "QUEUED"]
        assert answers[0] == "QUEUED"
        assert {answer.code for answer in refused} == {"CROSSSLOT"}
        assert ":key' of 'set' on" in refused[0]
        assert wire.call("EXEC").code == "EXECABORT"
        assert wire.call("GET", "0:key") is None


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_redis_py_pipeline_is_a_transaction(make_client: Callable[..., redis.Redis], protocol: int) -> None:
    client: Any = make_client(protocol=protocol, decode_responses=True)
    with client.pipeline() as pipeline:
        pipeline.set("{user:1}:name", "Ada").incr("{user:1}:visits").hset("{user:1}:h", mapping={"a": "1"})
        pipeline.hgetall("{user:1}:h").get("{user:1}:absent")
        assert pipeline.execute() == [True, 1, 1, {"a": "1"}, None]
    with client.pipeline() as pipeline:
        pipeline.set("{user:1}:name", "Grace").lpush("{user:1}:name", "x")
        with pytest.raises(redis.ResponseError, match="wrong kind of value"):
            pipeline.execute()
    assert client.get("{user:1}:name") == "Grace"
    with client.pipeline() as pipeline:
        for number in range(50):
            pipeline.set(f"{number}:other", 1)
        with pytest.raises(redis.ResponseError, match="keys of a transaction are on different shards"):
            pipeline.execute()


def test_a_long_transaction_comes_back_whole(client: redis.Redis) -> None:
    count = 20_000
    with client.pipeline() as pipeline:
        for number in range(count):
            pipeline.set("{t}k", number)
            pipeline.get("{t}k")
        replies = pipeline.execute()
    assert replies[1::2] == [str(number).encode() for number in range(count)]


def test_a_transaction_that_is_too_long_is_refused(proxy: PlaneHost) -> None:
    with Wire(proxy.address, timeout=30) as wire:
        assert wire.call("MULTI") == "OK"
        answers = [wire.call("SET", "k", b"x" * (16 << 20)) for _ in range(5)]
        assert answers[:3] == ["QUEUED"] * 3
        assert answers[3].startswith("ERR the transaction is too long")
        assert wire.call("EXEC").code == "EXECABORT"
        assert wire.call("EXISTS", "k") == 0
