"""Which failures eject a server, for how long, and what follows: the real nutcracker and Shoal side by side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.compat.rivals import NOWHERE
from tests.compat.scripted import Act, Request, always, echo, in_turn
from tests.compat.stage import Scenarios
from tests.harness import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.compat.scripted import Answer, Script
    from tests.compat.stage import Caller, Observations, Scene, Stage, Theatre

SCENES = Scenarios()
LONG = 60_000
RETRY = 500


def ejecting(
    *servers: Script | None, places: tuple[str, ...] = (), server_retry_timeout: int = LONG, **settings: str | int
) -> Callable[[Scene], Scene]:
    settings |= {"auto_eject_hosts": "true", "server_retry_timeout": server_retry_timeout}
    return SCENES.play(*servers, places=places, **settings)


@pytest.mark.parametrize("name", SCENES)
def test_like_nutcracker(theatre: Theatre, name: str) -> None:
    theatre.compare(name)


def one_by_one(client: Caller, count: int, *words: str) -> list[Any]:
    return [client.ask(words) for _ in range(count)]


def figure(stage: Stage, server: str, name: str) -> int:
    value: int = stage.rival.stats()[stage.pool][server][name]
    return value


def ejects(stage: Stage) -> int:
    value: int = stage.rival.stats()[stage.pool]["server_ejects"]
    return value


# --------------------------------------------------------------------------------------------------- what is a failure


@ejecting(None, echo, server_failure_limit=2)
def refusals_eject(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 4, "GET", stage.key())}


@ejecting(None, echo, server_failure_limit=2)
def what_waits_for_one_connection_is_one_failure(stage: Stage) -> Observations:
    client, key = stage.client(), stage.key()
    return {
        "five together": client.ask(*[("GET", key)] * 5),
        "one more": client.ask(("GET", key)),
        "ejected": client.ask(("GET", key)),
    }


@ejecting(None, echo, server_failure_limit=0)
def a_limit_of_0_is_1(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 2, "GET", stage.key())}


@SCENES.play(None, echo, server_failure_limit=1, server_retry_timeout=LONG)
def nobody_is_ejected_without_asking_for_it(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 3, "GET", stage.key())}


@ejecting(echo, echo, server_failure_limit=1)
def an_idle_connection_that_closes_is_a_failure(stage: Stage) -> Observations:
    client, key = stage.client(), stage.key()
    before = client.ask(("GET", key))
    stage.servers[0].drop()
    wait_until(lambda: ejects(stage) == 1, 5, "the server to be ejected")
    after = client.ask(("GET", key))
    return {"before": before, "after": after, "requests": [len(server.requests) for server in stage.servers]}


@ejecting(always(Act.CLOSE), echo, server_failure_limit=2)
def closes_eject(stage: Stage) -> Observations:
    """Writes, for they are sent once by both."""
    return {"answers": one_by_one(stage.client(), 3, "SET", stage.key(), "1")}


@ejecting(always(Act.CLOSE), echo, server_failure_limit=2)
def closes_of_reads_eject(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 3, "GET", stage.key())}


@ejecting(always(Act.SILENCE), echo, timeout=200, server_failure_limit=2)
def silence_ejects(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 3, "GET", stage.key())}


@ejecting(always(Act.SILENCE), echo, timeout=200, server_failure_limit=2)
def requests_that_expire_together_are_one_failure(stage: Stage) -> Observations:
    client, key = stage.client(), stage.key()
    return {"together": client.ask(*[("GET", key)] * 3), "then": one_by_one(client, 2, "GET", key)}


def always_late(request: Request) -> Answer:
    time.sleep(0.3)
    return echo(request)


@ejecting(always_late, echo, timeout=200, server_failure_limit=2)
def a_server_that_is_always_late_is_ejected(stage: Stage) -> Observations:
    """Its replies come, but nobody waits for them any more."""
    client, key = stage.client(), stage.key()
    answers = []
    for _ in range(3):
        answers.append(client.ask(("GET", key)))
        time.sleep(0.3)
    return {"answers": answers}


@ejecting(always(b"hello\r\n"), echo, server_failure_limit=2)
def no_resp_ejects(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 3, "SET", stage.key(), "1")}


@ejecting(always(b"-LOADING x\r\n"), echo, server_failure_limit=2)
def a_server_that_loads(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 3, "GET", stage.key())}


@ejecting(None, echo, places=("/nowhere/no.sock",), server_failure_limit=2)
def a_path_that_is_not_there_ejects(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 3, "GET", stage.key())}


@ejecting(None, echo, places=(f"{NOWHERE}:1",), server_failure_limit=2)
def a_name_without_an_address_ejects(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 3, "GET", stage.key())}


@ejecting(echo, echo, server_failure_limit=4, server_connections=3)
def each_connection_that_closes_is_a_failure(stage: Stage) -> Observations:
    """Three clients, three connections: three failures at once, and one more ejects."""
    clients, key = [stage.client() for _ in range(3)], stage.key()
    for client in clients:
        client.ask(("GET", key))
    connections = len(stage.servers[0].connections)
    stage.servers[0].drop()
    wait_until(lambda: figure(stage, "s0", "server_eof") == 3, 5, "the losses to be seen")
    three = ejects(stage)
    stage.servers[0].close()
    answers = one_by_one(clients[0], 2, "GET", key)
    return {"connections": connections, "ejected after three": three, "answers": answers}


# ---------------------------------------------------------------------------------------------------- what is forgiven


def fail_and_answer(answer: bytes) -> Script:
    return in_turn(Act.CLOSE, answer, Act.CLOSE, answer, Act.CLOSE, Act.CLOSE)


@ejecting(fail_and_answer(b"+OK\r\n"), echo, server_failure_limit=2)
def a_reply_forgives(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 7, "SET", stage.key(), "1")}


@ejecting(fail_and_answer(b"-ERR x\r\n"), echo, server_failure_limit=2)
def an_error_of_the_server_forgives(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 7, "SET", stage.key(), "1")}


# ----------------------------------------------------------------------------------------------------- what comes back


@ejecting(None, echo, server_failure_limit=1, server_retry_timeout=RETRY)
def it_comes_back_after_its_time(stage: Stage) -> Observations:
    client, key = stage.client(), stage.key()
    first = client.ask(("GET", key))
    stage.servers[0].listen()
    asked = []
    for _ in range(2):
        time.sleep(0.6 * RETRY / 1000)
        client.ask(("GET", key))
        asked.append([len(server.requests) for server in stage.servers])
    return {"first": first, "asked": asked}


@ejecting(None, echo, server_failure_limit=2, server_retry_timeout=RETRY)
def after_its_return_it_has_all_its_failures_again(stage: Stage) -> Observations:
    client, key = stage.client(), stage.key()
    before = one_by_one(client, 3, "GET", key)
    time.sleep(RETRY / 1000 + 0.1)
    return {"before": before, "after": one_by_one(client, 3, "GET", key)}


@ejecting(None, echo, server_failure_limit=1, server_retry_timeout=0)
def a_retry_timeout_of_0_is_no_time_at_all(stage: Stage) -> Observations:
    return {"answers": one_by_one(stage.client(), 4, "GET", stage.key())}


@ejecting(None, None, echo, server_failure_limit=1, server_retry_timeout=RETRY)
def two_come_back_each_at_its_time(stage: Stage) -> Observations:
    client = stage.client()
    first = client.ask(("GET", stage.key(0)))
    time.sleep(0.6 * RETRY / 1000)
    second = client.ask(("GET", stage.key(1)))
    for server in stage.servers[:2]:
        server.listen()
    time.sleep(0.6 * RETRY / 1000)
    client.ask(("GET", stage.key(0)), ("GET", stage.key(1)))
    one_is_back = [len(server.requests) for server in stage.servers]
    time.sleep(0.6 * RETRY / 1000)
    client.ask(("GET", stage.key(0)), ("GET", stage.key(1)))
    both_are_back = [len(server.requests) for server in stage.servers]
    return {"first": first, "second": second, "one is back": one_is_back, "both are back": both_are_back}


# -------------------------------------------------------------------------------------------------------- all are gone


@ejecting(None, None, server_failure_limit=1)
def when_all_are_ejected(stage: Stage) -> Observations:
    client = stage.client()
    keys = stage.keys(0, 2) + stage.keys(1, 2)
    ejecting = [client.ask(("GET", key)) for key in (keys[0], keys[2])]
    return {
        "ejecting": ejecting,
        "GET": client.ask(("GET", keys[0]), ("GET", keys[1])),
        "DEL": client.ask(("DEL", *keys)),
        "MSET": client.ask(("MSET", *(word for key in keys for word in (key, "1")))),
        "MGET of one": client.ask(("MGET", keys[0])),
        "MGET": client.ask(("MGET", *keys)),
    }


@ejecting(echo, echo, server_failure_limit=1)
def what_is_in_flight_elsewhere_goes_on(stage: Stage) -> Observations:
    """A split over two, of which one closes and is ejected: the other's part counts."""
    stage.servers[0].script = always(Act.CLOSE)
    keys = stage.keys(0, 2) + stage.keys(1, 2)
    client = stage.client()
    return {
        "MSET": client.ask(("MSET", *(w for key in keys for w in (key, "1")))),
        "next": client.ask(("GET", keys[0])),
    }
