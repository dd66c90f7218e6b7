"""What a pool's settings do to its sockets and connections: the real nutcracker and Shoal side by side."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.compat.numbered import NumberedServers, pool_text, server_line
from tests.compat.rivals import NOWHERE, NUTCRACKER, SHOAL, START_LIMIT, rival, started
from tests.compat.scripted import always, echo
from tests.compat.stage import Scenarios
from tests.harness import LOOPBACK, Servers, free_port, have, wait_until
from tests.integration.wire import Wire

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compat.stage import Observations, Stage, Theatre
    from tests.harness import EngineProgram

SCENES = Scenarios()


@pytest.mark.parametrize("name", SCENES)
def test_like_nutcracker(theatre: Theatre, name: str) -> None:
    theatre.compare(name)


# -------------------------------------------------------------------------------------------------------------- sockets


def sockets(*arguments: str) -> list[str]:
    """The lines of `ss` for these arguments."""
    program = have("ss") or pytest.skip("no ss: `make test` installs iproute2 as root on Debian")
    done = subprocess.run([program, "-H", "-n", "-t", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def accepted(stage: Stage) -> str:
    """The proxy's side of the one client that is connected, with its timers."""
    assert isinstance(stage.listen, tuple)
    (line,) = sockets("-o", "state", "established", "sport", "=", f":{stage.listen[1]}")
    return line


@SCENES.play(tcpkeepalive="true")
def tcpkeepalive(stage: Stage) -> Observations:
    client = stage.client()
    return {"answers": client.ask(("GET", "a")), "probes": "keepalive" in accepted(stage)}


@SCENES.play()
def no_tcpkeepalive(stage: Stage) -> Observations:
    client = stage.client()
    return {"answers": client.ask(("GET", "a")), "probes": "keepalive" in accepted(stage)}


@SCENES.play(backlog=37)
def backlog(stage: Stage) -> Observations:
    """For a listener the column Send-Q is how many may wait."""
    assert isinstance(stage.listen, tuple)
    (line,) = sockets("-l", "sport", "=", f":{stage.listen[1]}")
    return {"may wait": line.split()[2]}


def unix(stage: Stage) -> Observations:
    assert isinstance(stage.listen, str)
    mode = stat.S_IMODE(os.stat(stage.listen).st_mode)  # noqa: PTH116
    return {"answers": stage.client().ask(("GET", "a"), ("SET", "b", "1")), "mode": f"{mode:o}"}


@SCENES.play(mode="0660")
def unix_sockets_on_both_sides(stage: Stage) -> Observations:
    return unix(stage)


@SCENES.play(mode="")
def a_unix_socket_without_a_mode(stage: Stage) -> Observations:
    return unix(stage)


# ---------------------------------------------------------------------------------------------------------- connections


@SCENES.play(echo, echo, preconnect="true")
def preconnect(stage: Stage) -> Observations:
    wait_until(lambda: all(server.connections for server in stage.servers), 5, "a connection to each server")
    before = [len(server.connections) for server in stage.servers]
    stage.client().ask(("GET", stage.key(0)), ("GET", stage.key(1)))
    return {"before": before, "after": [len(server.connections) for server in stage.servers]}


@SCENES.play(None, preconnect="true")
def preconnect_to_nobody(stage: Stage) -> Observations:
    return {"at the start": stage.figures()["stats s0.server_err"], "answers": stage.client().ask(("GET", "a"))}


@SCENES.play(
    None, echo, preconnect="true", auto_eject_hosts="true", server_failure_limit=1, server_retry_timeout=60_000
)
def preconnect_to_nobody_may_eject(stage: Stage) -> Observations:
    return {"answers": stage.client().ask(("GET", stage.key(0)))}


@SCENES.play(server_connections=3)
def several_connections(stage: Stage) -> Observations:
    """Whose requests go where: one client's six, and then one of each of three clients."""
    one = stage.client()
    for _ in range(6):
        one.ask(("GET", "a"))
    mine = [request.connection for request in stage.servers[0].requests]
    for _ in range(3):
        stage.client().ask(("GET", "b"))
    return {"of one client": mine, "in all": len(stage.servers[0].connections)}


@SCENES.play(redis_db=3)
def a_database(stage: Stage) -> Observations:
    answers = stage.client().ask(("GET", "a"))
    return {"answers": answers, "said to the server": stage.servers[0].greetings}


@SCENES.play(redis_db=3, redis_auth="secret")
def a_database_and_a_password(stage: Stage) -> Observations:
    client = stage.client()
    answers = client.ask(("AUTH", "secret"), ("GET", "a"))
    return {"answers": answers, "said to the server": stage.servers[0].greetings}


@SCENES.play(redis_auth="secret")
def a_server_without_a_password(stage: Stage) -> Observations:
    stage.servers[0].welcome = b"-ERR AUTH <password> called without any password configured for the default user.\r\n"
    return {"answers": stage.client().ask(("AUTH", "secret"), ("GET", "a"))}


@SCENES.play(
    always(b"-NOAUTH Authentication required.\r\n"),
    echo,
    redis_auth="secret",
    auto_eject_hosts="true",
    server_failure_limit=1,
    server_retry_timeout=60_000,
)
def a_server_with_another_password(stage: Stage) -> Observations:
    """With ejection, so that it can be seen that its keys stay where they are."""
    for server in stage.servers:
        server.welcome = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    client, key = stage.client(), stage.key(0)
    return {"answers": client.ask(("AUTH", "secret"), ("GET", key)), "and again": client.ask(("GET", key))}


@SCENES.play(redis_db=99)
def a_database_that_is_not_there(stage: Stage) -> Observations:
    stage.servers[0].welcome = b"-ERR DB index is out of range\r\n"
    return {"answers": stage.client().ask(("SET", "a", "1")), "sent": stage.servers[0].names()}


# ------------------------------------------------------------------------------------------------------------ the start


@pytest.mark.parametrize("name", [NUTCRACKER, SHOAL])
def test_whoever_is_first_to_connect_is_served(name: str, tmp_path: Path) -> None:
    """Whoever restarts a proxy has clients that knock all the time; and another pool's server has no address."""
    server, other, port = (LOOPBACK, free_port()), free_port(), free_port()
    config = pool_text("p", f"{LOOPBACK}:{port}", [server_line(server)])
    config += pool_text("q", f"{LOOPBACK}:{other}", [server_line((NOWHERE, 1))])
    with NumberedServers({7: server}), rival(name, config, (), tmp_path) as proxy:
        proxy.launch()
        with wait_until(lambda: Wire((LOOPBACK, port)), START_LIMIT, "the proxy to listen", interval=0.0005) as first:
            assert first.call("GET", "a") == b"7"


# ------------------------------------------------------------------------------------------------------ real servers


@pytest.mark.parametrize("password", [None, "secret"])
def test_the_database_at_a_real_server(valkey: EngineProgram, tmp_path: Path, password: str | None) -> None:
    """nutcracker selects before it gives the password: with one, it writes to database 0."""
    with Servers(valkey, tmp_path) as servers:
        server = servers.redis("server", requirepass=password) if password else servers.redis("server")
        settings = {"redis_db": 3, "redis_auth": password}
        keys_by_database = {}
        for name in (NUTCRACKER, SHOAL):
            listen = (LOOPBACK, free_port())
            config = pool_text("p", f"{LOOPBACK}:{listen[1]}", [server_line(server.address)], settings)
            with started(name, config, (listen,), tmp_path), Wire(listen) as client:
                if password:
                    assert client.call("AUTH", password) == "OK"
                assert client.call("SET", "k", name) == "OK"
                assert client.call("GET", "k") == name.encode()
            with server.client() as direct:
                found = direct.info("keyspace")
                keys_by_database[name] = {database: found[database]["keys"] for database in found}
                direct.flushall()
    theirs = {"db3": 1} if password is None else {"db0": 1}
    assert keys_by_database == {NUTCRACKER: theirs, SHOAL: {"db3": 1}}
