"""What a client sees when servers fail: the real nutcracker and Shoal side by side, on the same scripted servers."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.compat.rivals import NOWHERE
from tests.compat.scripted import Act, Request, always, echo, in_turn
from tests.compat.stage import Scenarios
from tests.harness import wait_until

if TYPE_CHECKING:
    from tests.compat.scripted import Answer, Script
    from tests.compat.stage import Observations, Stage, Theatre

SCENES = Scenarios()
TIMEOUT = 300
VERBATIM = (
    *("ERR x", "MASTERDOWN x", "NOREPLICAS x", "MISCONF x", "READONLY x", "WRONGTYPE x", "NOAUTH x", "CLUSTERDOWN x"),
    *("BUSYGROUP x", "BUSYKEY x", "MOVED 1 x:1", "TRYAGAIN x", "UNBLOCKED x"),
)


@pytest.mark.parametrize("name", SCENES)
def test_like_nutcracker(theatre: Theatre, name: str) -> None:
    theatre.compare(name)


# ------------------------------------------------------------------------------------------- a server that is not there


@SCENES.play(None)
def refused(stage: Stage) -> Observations:
    client = stage.client()
    alone = client.ask(("GET", "a"))
    pipelined = client.ask(("GET", "a"), ("SET", "a", "1"), ("GET", "b"), ("MGET", "a"), ("DEL", "a"))
    stage.servers[0].listen()
    return {"alone": alone, "pipelined": pipelined, "when it is back": client.ask(("GET", "a"))}


@SCENES.play(None, places=("/nowhere/no.sock",))
def no_such_path(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("GET", "a"), ("SET", "a", "1"))}


@SCENES.play(None, places=(f"{NOWHERE}:1",))
def no_such_host(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("GET", "a"), ("SET", "a", "1"))}


@SCENES.play(None, places=("255.255.255.255:1",))
def no_route(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("GET", "a"), ("SET", "a", "1"))}


@SCENES.play(None, timeout=TIMEOUT)
def connecting_takes_too_long(stage: Stage) -> Observations:
    """A listener whose backlog is full lets nobody in, and says nothing."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        place = stage.servers[0].place
        listener.bind(place)
        listener.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(place)
        return {"answers": stage.client().ask(("GET", "a"), ("SET", "a", "1"))}


# ---------------------------------------------------------------------------------------------- a server that goes away


def third_of_the_first(answer: Answer) -> Script:
    return lambda request: answer if request.connection == 0 and request.number == 2 else echo(request)


def among(stage: Stage, name: str, *more: str) -> Observations:
    """Two requests are answered; the loss comes with the first of three."""
    client = stage.client()
    first, second = ([(name, key, *more) for key in keys] for keys in ("ab", "cde"))
    return {"before": client.ask(*first), "answers": client.ask(*second), "sent": stage.servers[0].names()}


@SCENES.play(third_of_the_first(Act.CLOSE))
def closes_among_reads(stage: Stage) -> Observations:
    return among(stage, "GET")


@SCENES.play(third_of_the_first(Act.RESET))
def resets_among_reads(stage: Stage) -> Observations:
    return among(stage, "GET")


@SCENES.play(third_of_the_first(Act.CLOSE))
def closes_among_writes(stage: Stage) -> Observations:
    return among(stage, "SET", "1")


@SCENES.play(third_of_the_first(Act.RESET))
def resets_among_writes(stage: Stage) -> Observations:
    return among(stage, "SET", "1")


@SCENES.play(always(Act.CLOSE))
def closes_always(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("GET", "a"), ("GET", "b"))}


@SCENES.play(always(Act.RESET))
def resets_always(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("GET", "a"), ("GET", "b"))}


def closes_at_second(request: Request) -> Answer:
    if request.connection == 0:
        return Act.CLOSE if request.number == 1 else Act.SILENCE
    return echo(request)


@SCENES.play(closes_at_second)
def two_clients_lose_one_connection(stage: Stage) -> Observations:
    one, other = stage.client(), stage.client()
    one.send(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
    wait_until(lambda: len(stage.servers[0].requests) == 1, 5, "the first request to arrive")
    second = other.ask(("GET", "b"))
    return {"one": one.hear(1), "other": second}


@SCENES.play()
def an_idle_connection_is_closed(stage: Stage) -> Observations:
    client = stage.client()
    before = client.ask(("GET", "a"))
    stage.servers[0].drop()
    wait_until(lambda: stage.rival.stats()[stage.pool]["s0"]["server_eof"] == 1, 5, "the loss to be seen")
    return {"before": before, "after": client.ask(("GET", "a"), ("SET", "b", "1"))}


@SCENES.play()
def an_idle_connection_is_reset(stage: Stage) -> Observations:
    client = stage.client()
    before = client.ask(("GET", "a"))
    stage.servers[0].drop(Act.RESET)
    wait_until(lambda: stage.rival.stats()[stage.pool]["s0"]["server_err"] == 1, 5, "the loss to be seen")
    return {"before": before, "after": client.ask(("GET", "a"), ("SET", "b", "1"))}


def half_and_close(request: Request) -> Answer:
    if request.connection > 0:
        return echo(request)
    if request.number == 0:
        return b"$1\r\na\r\n$100\r\nhalf"
    return Act.CLOSE


@SCENES.play(half_and_close)
def closes_within_a_reply(stage: Stage) -> Observations:
    """Half the second reply comes early; the end with the third request, on its own, as nutcracker may miss it else."""
    client = stage.client()
    client.ask(("GET", "a"))
    return {"answers": client.ask(("GET", "b"), ("GET", "c"))}


# ---------------------------------------------------------------------------------------------- a server that is silent


@SCENES.play(always(Act.SILENCE), timeout=TIMEOUT)
def silent(stage: Stage) -> Observations:
    client = stage.client()
    began = time.monotonic()
    answers = client.ask(("GET", "a"), ("SET", "a", "1"), ("GET", "b"))
    took = time.monotonic() - began
    return {"answers": answers, "in time": 0.9 * TIMEOUT < took * 1000 < TIMEOUT + 200}


def slow_at_first(request: Request) -> Answer:
    if request.number == 0:
        time.sleep(2 * TIMEOUT / 1000)
    return echo(request)


@SCENES.play(slow_at_first, timeout=TIMEOUT)
def a_late_reply_is_nobodys(stage: Stage) -> Observations:
    client = stage.client()
    late = client.ask(("GET", "late"))
    time.sleep(1.5 * TIMEOUT / 1000)
    return {"late": late, "next": client.ask(("GET", "a"), ("GET", "b"))}


@SCENES.play(always(Act.SILENCE), timeout=TIMEOUT)
def each_request_has_its_own_time(stage: Stage) -> Observations:
    one, other = stage.client(), stage.client()
    one.send(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
    time.sleep(0.7 * TIMEOUT / 1000)
    began = time.monotonic()
    second = other.ask(("GET", "b"))
    return {
        "one": one.hear(1),
        "other": second,
        "the other had its time": time.monotonic() - began > 0.8 * TIMEOUT / 1000,
    }


# -------------------------------------------------------------------------------------- a server that answers strangely


@SCENES.play(in_turn(b"hello\r\n"))
def no_resp(stage: Stage) -> Observations:
    client = stage.client()
    return {"read": client.ask(("GET", "a")), "next": client.ask(("GET", "b"))}


@SCENES.play(in_turn(b"hello\r\n"))
def no_resp_to_a_write(stage: Stage) -> Observations:
    client = stage.client()
    return {"write": client.ask(("SET", "a", "1")), "next": client.ask(("GET", "b"))}


def not_now(error: bytes) -> Script:
    return lambda request: error if request.words[1] == b"b" else echo(request)


@SCENES.play(not_now(b"-LOADING Redis is loading the dataset in memory\r\n"))
def loading(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("GET", "a"), ("GET", "b"), ("GET", "c"))}


@SCENES.play(not_now(b"-OOM command not allowed\r\n"))
def out_of_memory(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("SET", "a", "1"), ("SET", "b", "1"), ("SET", "c", "1"))}


@SCENES.play(not_now(b"-BUSY Redis is busy running a script\r\n"))
def busy(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("GET", "a"), ("SET", "b", "1"), ("GET", "c"))}


@SCENES.play(in_turn(*(f"-{error}\r\n".encode() for error in VERBATIM)))
def errors_that_are_passed_on(stage: Stage) -> Observations:
    client = stage.client()
    return {
        "answers": [client.ask(("SET", "a", "1")) for _ in VERBATIM],
        "connections": len(stage.servers[0].connections),
    }


@SCENES.play()
def a_reply_that_nobody_asked_for(stage: Stage) -> Observations:
    client = stage.client()
    client.ask(("GET", "a"))
    stage.servers[0].push(b"+surprise\r\n")
    wait_until(lambda: stage.rival.stats()[stage.pool]["s0"]["server_err"] == 1, 5, "the connection to be given up")
    return {"next": client.ask(("GET", "b"))}


# ------------------------------------------------------------------------------------------------------- split commands


def split(stage: Stage, *names: str) -> Observations:
    """Each of these commands over two keys of each of three servers."""
    keys = [key for server in range(3) for key in stage.keys(server, 2)]
    seen: Observations = {}
    for name in names:
        words = [word for key in keys for word in ((key, "1") if name == "MSET" else (key,))]
        seen[name] = stage.client().ask((name, *words), ("GET", keys[0]))
        seen[f"{name} at the others"] = [
            sorted(request.lower() for request in server.names() if request.lower().startswith(name.lower().encode()))
            for server in stage.servers[:2]
        ]
    return seen


EVERY = ("DEL", "UNLINK", "TOUCH", "MSET", "MGET")


@SCENES.play(echo, echo, echo)
def split_and_well(stage: Stage) -> Observations:
    return split(stage, *EVERY)


@SCENES.play(echo, echo, None)
def split_and_refused(stage: Stage) -> Observations:
    return split(stage, *EVERY)


@SCENES.play(echo, echo, always(Act.CLOSE))
def split_and_closed(stage: Stage) -> Observations:
    return split(stage, *EVERY)


@SCENES.play(echo, echo, always(Act.SILENCE), timeout=TIMEOUT)
def split_and_silent(stage: Stage) -> Observations:
    return split(stage, "DEL", "MSET", "MGET")


@SCENES.play(echo, echo, always(b"-READONLY You can't write\r\n"))
def split_and_readonly(stage: Stage) -> Observations:
    return split(stage, *EVERY)


@SCENES.play(echo, echo, always(b"-ERR x\r\n"))
def split_and_error(stage: Stage) -> Observations:
    return split(stage, *EVERY)


@SCENES.play(echo, echo, always(b"$-1\r\n"))
def split_and_no_number(stage: Stage) -> Observations:
    return split(stage, "DEL")
