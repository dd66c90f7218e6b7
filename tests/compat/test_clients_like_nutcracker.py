"""What clients may say and what they hear: the real nutcracker and Shoal side by side."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.compat.scripted import Request, echo
from tests.compat.stage import Scenarios
from tests.harness import wait_until
from tests.integration.wire import command

if TYPE_CHECKING:
    from tests.compat.scripted import Answer
    from tests.compat.stage import Observations, Stage, Theatre

SCENES = Scenarios()
SECRET = "secret"
DELAY = 0.2

SAID = {
    **{" ".join(words): words for words in (("PING",), ("ping",), ("AUTH", "x"), ("AUTH", "u", "x"), ("AUTH",))},
    **{" ".join(words): words for words in (("PING", "x"), ("PING", "x", "y"), ("ECHO", "x"), ("FOOBAR", "x"))},
    **{" ".join(words): words for words in (("HELLO", "2"), ("CLIENT", "SETINFO", "LIB-VER", "1"), ("SELECT", "0"))},
    **{" ".join(words): words for words in (("GET", "a"), ("get", "a"), ("FOO",))},
    **{" ".join(words): words for words in (("GET",), ("GET", "a", "b"), ("MGET",), ("DEL",), ("MSET", "a"))},
    **{" ".join(words): words for words in (("INCR", "a", "b"), ("EVAL", "x", "0"), ("QUIT",))},
}
"""One request each, as first of its client."""
RAW = {
    "inline": (b"PING\r\n", 1),
    "inline QUIT": (b"QUIT\r\n", 1),
    "no name": (b"*1\r\n$0\r\n\r\n", 1),
    "an empty line": (b"\r\n", 0),
    "no arguments": (b"*0\r\n", 0),
    "a negative count": (b"*-1\r\n", 0),
    "a missing argument": (b"*2\r\n$3\r\nGET\r\n$-1\r\n", 1),
    "leading zeros": (b"*02\r\n$03\r\nGET\r\n$01\r\na\r\n", 1),
    "no CR": (b"*1\n$4\nPING\n", 0),
    "garbage": (b"*x\r\n", 1),
}
"""What is sent, and how many replies it may have; a PING follows."""
FORWARDED = (
    *(("EXISTS", "a"), ("UNLINK", "a"), ("MGET", "a"), ("EVAL", "x", "1", "a")),
    *(("MGET", "a", "a"), ("DEL", "a", "a"), ("MSET", "a", "1", "a", "2"), ("GETEX", "a"), ("COPY", "a", "a")),
    *(("get", "a"), ("ZADD", "a", "1", "x"), ("PFMERGE", "a", "a"), ("LPOS", "a", "x"), ("SORT", "a"), ("GET", "")),
)


@pytest.mark.parametrize("name", SCENES)
def test_like_nutcracker(theatre: Theatre, name: str) -> None:
    theatre.compare(name)


def slowly(request: Request) -> Answer:
    time.sleep(DELAY)
    return echo(request)


# -------------------------------------------------------------------------------------------- what is said to the proxy


@SCENES.play()
def requests_for_the_proxy(stage: Stage) -> Observations:
    return {said: shortened(stage.client().ask(words)) for said, words in SAID.items()}


def shortened(answers: list[Any]) -> list[Any]:
    """HELLO's answer without the client's number and what follows it."""
    return [answer[:6] if isinstance(answer, list) else answer for answer in answers]


@SCENES.play()
def requests_in_other_forms(stage: Stage) -> Observations:
    seen = {}
    for said, (data, replies) in RAW.items():
        client = stage.client()
        client.send(data)
        seen[said] = client.hear(replies)
    return seen


@SCENES.play()
def requests_that_go_on(stage: Stage) -> Observations:
    client = stage.client()
    return {"answers": [client.ask(words) for words in FORWARDED]}


@SCENES.play()
def requests_with_too_few_arguments(stage: Stage) -> Observations:
    """nutcracker counts only those of commands that have a fixed number."""
    return {"answers": stage.client().ask(("SET", "a"), ("HSET", "a", "b"), ("HMGET", "a"))}


@SCENES.play(echo, echo, echo)
def keys_of_several_servers(stage: Stage) -> Observations:
    """What nutcracker splits, and what it sends to the first key's server as it is."""
    client = stage.client()
    keys = [key for server in range(3) for key in stage.keys(server, 2)]
    values = [word for key in keys for word in (key, "1")]
    return {
        "MGET": client.ask(("MGET", *keys, keys[0])),
        "MSET": client.ask(("MSET", *values)),
        "sums": [client.ask((name, *keys)) for name in ("DEL", "UNLINK", "TOUCH")],
        "EXISTS": [client.ask(("EXISTS", *keys)), [len(server.requests) for server in stage.servers]],
        "SINTER": client.ask(("SINTER", *keys)),
        "a long MGET": len(client.ask(("MGET", *(f"key{number}" for number in range(3000))))[0]),
    }


@SCENES.play()
def what_is_large(stage: Stage) -> Observations:
    client, value = stage.client(), "v" * 1_000_000
    return {
        "a value": client.ask(("SET", "a", value)),
        "a key of 16000 bytes": client.ask(("GET", "k" * 16_000)) == [b"k" * 16_000],
        "a key of 20000 bytes": client.ask(("GET", "k" * 20_000)) == [b"k" * 20_000],
    }


# ------------------------------------------------------------------------------------------------------ what is pending


@SCENES.play(slowly)
def an_unknown_command_behind_a_request(stage: Stage) -> Observations:
    answers = stage.client().ask(("GET", "a"), ("FOOBAR", "x"), ("GET", "b"))
    time.sleep(2 * DELAY)  # the server is still at it
    return {"answers": answers}


@SCENES.play(slowly)
def quit_behind_a_request(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("GET", "a"), ("QUIT",)), "requests": stage.servers[0].names()}


@SCENES.play(slowly)
def a_client_that_sends_no_more_gets_its_replies(stage: Stage) -> Observations:
    client = stage.client()
    client.send(command("GET", "a") + command("GET", "b"))
    wait_until(lambda: stage.servers[0].requests, 5, "the first request to arrive")
    client.socket.shutdown(socket.SHUT_WR)
    return {"answers": client.hear_to_the_end()}


@SCENES.play()
def half_a_request_and_no_more(stage: Stage) -> Observations:
    client = stage.client()
    client.send(command("GET", "abc")[:-4])
    time.sleep(0.05)  # nutcracker may miss an end that comes with what is before it
    client.socket.shutdown(socket.SHUT_WR)
    return {"answers": client.hear_to_the_end()}


@SCENES.play(slowly)
def a_client_that_closes_is_answered_all_the_same(stage: Stage) -> Observations:
    """Its requests were sent; the figures at the end tell who was counted."""
    client = stage.client()
    client.send(command("GET", "a"))
    wait_until(lambda: stage.servers[0].requests, 5, "the request to arrive")
    client.close()
    time.sleep(2 * DELAY)
    return {"requests": stage.servers[0].names()}


@SCENES.play(slowly)
def a_client_that_resets(stage: Stage) -> Observations:
    client = stage.client()
    client.send(command("GET", "a"))
    wait_until(lambda: stage.servers[0].requests, 5, "the request to arrive")
    client.reset()
    time.sleep(2 * DELAY)
    return {"requests": stage.servers[0].names()}


@SCENES.play(lambda _: b"")
def what_waits_for_a_reply_is_in_the_queues(stage: Stage) -> Observations:
    client = stage.client()
    client.send(command("GET", "a") + command("SET", "b", "1"))
    wait_until(lambda: len(stage.servers[0].requests) == 2, 5, "the requests to arrive")
    return {f"meanwhile {name}": value for name, value in stage.figures().items()}


@SCENES.play(slowly, echo)
def replies_keep_their_order(stage: Stage) -> Observations:
    slow, quick = stage.keys(0, 2), stage.keys(1, 2)
    requests = (
        ("GET", slow[0]),
        ("GET", quick[0]),
        ("PING",),
        ("GET", slow[1]),
        ("MGET", *quick),
        ("MGET", *slow, *quick),
    )
    return {"answers": stage.client().ask(*requests)}


# -------------------------------------------------------------------------------------------------------- who may enter


@SCENES.play(redis_auth=SECRET)
def a_password(stage: Stage) -> Observations:
    client = stage.client()
    wrong = ("nope", "secre", "secrets", "")
    return {
        "before": client.ask(("PING",), ("GET", "a"), ("MGET", "a", "b")),
        "wrong": [client.ask(("AUTH", word)) for word in wrong],
        "still before": client.ask(("GET", "a")),
        "right": client.ask(("AUTH", SECRET), ("GET", "a"), ("AUTH", SECRET), ("PING",)),
        "wrong again": client.ask(("AUTH", "nope"), ("GET", "a"), ("AUTH", SECRET), ("GET", "b")),
        "said to the server": stage.servers[0].greetings,
        "at the server": stage.servers[0].names(),
        **{f"first {' '.join(words)}": shortened(stage.client().ask(words)) for words in FIRST},
    }


FIRST = (
    *(("FOOBAR",), ("QUIT",), ("AUTH",), ("AUTH", "default", SECRET), ("AUTH", SECRET, "x")),
    *(("HELLO", "2"), ("HELLO", "2", "AUTH", "default", SECRET), ("ECHO", "x")),
)


@SCENES.play(client_connections=2)
def more_clients_than_allowed(stage: Stage) -> Observations:
    clients = [stage.client() for _ in range(4)]
    answers: list[Any] = [client.ask(("GET", "a")) for client in clients]
    clients[0].close()
    clients[1].close()

    def free() -> bool:
        return int(stage.rival.stats()[stage.pool]["client_connections"]) <= 2 and stage.client().ask(("GET", "b")) == [
            b"b"
        ]

    return {"answers": answers, "when there is room": wait_until(free, 5, "room for a client")}
