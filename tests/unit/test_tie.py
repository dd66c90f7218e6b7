"""Which master each server of a nutcracker.yml is tied to: by its name, else by its address, and never by a guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from shoal.census import Group, Settings
from shoal.errors import ConfigError
from shoal.nutcracker import parse
from shoal.tie import tie, wanted_by
from shoal.topology import Endpoint, UnixSocket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.tie import Address

NAMES = {"redis1": ["10.0.0.1"], "both": ["10.0.0.1", "10.0.0.3"], "six": ["fd00:0:0::1"]}


def resolve(host: str) -> Sequence[str]:
    return NAMES.get(host.lower(), ())


def group(name: str, master: str, *replicas: str) -> Group:
    return Group(
        name=name,
        master=Endpoint.parse(master),
        replicas=tuple(map(Endpoint.parse, replicas)),
        down=frozenset(),
        settings=Settings(2, 5000, 60000, 1),
        sentinels=(),
        said_by=(),
    )


KNOWN = {
    one.name: one
    for one in (
        group("a", "10.0.0.1:6379", "10.0.0.2:6379"),
        group("b", "10.0.0.3:6379", "10.0.0.4:6379"),
    )
}


def at(text: str) -> Address:
    return UnixSocket(text) if text.startswith("/") else Endpoint.parse(text)


def tied(known: Mapping[str, Group] = KNOWN, **servers: str) -> dict[str, str]:
    return tie({label: at(text) for label, text in servers.items()}, known, resolve)


def why_not(servers: Mapping[str, str], known: Mapping[str, Group] = KNOWN) -> str:
    with pytest.raises(ConfigError) as caught:
        tied(known, **servers)
    return "\n".join(str(error) for error in caught.value.each())


@pytest.mark.parametrize(
    ("servers", "ties"),
    [
        pytest.param({"a": "10.0.0.1:6379", "b": "10.0.0.3:6379"}, {"a": "a", "b": "b"}, id="by name"),
        pytest.param({"b": "10.9.9.9:1"}, {"b": "b"}, id="by name, wherever the file thinks it is"),
        pytest.param({"b": "nobody:1"}, {"b": "b"}, id="by name, its host unknown"),
        pytest.param({"a": "/run/redis.sock"}, {"a": "a"}, id="a socket by name"),
        pytest.param({"x": "10.0.0.3:6379"}, {"x": "b"}, id="by the master's address"),
        pytest.param({"x": "10.0.0.4:6379"}, {"x": "b"}, id="by a replica's address"),
        pytest.param({"x": "redis1:6379"}, {"x": "a"}, id="by a host's name"),
    ],
)
def test_a_server_is_tied(servers: Mapping[str, str], ties: Mapping[str, str]) -> None:
    assert tied(KNOWN, **servers) == ties


def test_sentinels_that_announce_names() -> None:
    known = {"a": group("a", "Redis1:6379", "elsewhere:6379")}
    for host in ("redis1", "REDIS1", "10.0.0.1", "elsewhere"):
        assert tied(known, x=f"{host}:6379") == {"x": "a"}


def test_an_address_is_the_same_however_it_is_written() -> None:
    known = {"a": group("a", "[fd00::1]:6379")}
    assert tied(known, x="[fd00:0::0:1]:6379") == tied(known, x="six:6379") == {"x": "a"}


def test_another_port_is_another_server() -> None:
    assert "no sentinel knows" in why_not({"x": "10.0.0.1:6380"})


@pytest.mark.parametrize(
    ("servers", "message"),
    [
        pytest.param(
            {"10.0.0.9:6379": "10.0.0.9:6379"},
            snapshot("""\
no sentinel knows server "10.0.0.9:6379"
  hint: the masters they know: a (10.0.0.1:6379), b (10.0.0.3:6379)"""),
            id="unknown",
        ),
        pytest.param(
            {"c": "10.0.0.9:6379", "a": "10.0.0.1:6379"},
            snapshot("""\
no sentinel knows server "c" at 10.0.0.9:6379
  hint: the masters they know: a (10.0.0.1:6379), b (10.0.0.3:6379)"""),
            id="an alias nobody knows",
        ),
        pytest.param(
            {"nobody:6379": "nobody:6379"},
            snapshot("""\
no sentinel knows server "nobody:6379", whose host has no address now
  hint: the masters they know: a (10.0.0.1:6379), b (10.0.0.3:6379)"""),
            id="a host that nobody knows",
        ),
        pytest.param(
            {"/run/redis.sock:": "/run/redis.sock"},
            snapshot("""\
no sentinel knows server "/run/redis.sock:"
  hint: a unix socket is found by its name alone; the masters they know: a (10.0.0.1:6379), b (10.0.0.3:6379)"""),
            id="a socket",
        ),
        pytest.param(
            {"x": "10.0.0.1:6379", "y": "10.0.0.2:6379"},
            snapshot("""\
servers "x" and "y" are both of master "a"
  hint: each server of a pool needs a master of its own"""),
            id="master and replica",
        ),
        pytest.param(
            {"a": "10.0.0.3:6379"},
            snapshot("""\
server "a" has the name of one master, but 10.0.0.3:6379 belongs to "b"
  hint: give it an address of the master that it is named after, or another name"""),
            id="name against address",
        ),
        pytest.param(
            {"x": "both:6379"},
            snapshot("""\
both:6379 belongs to more than one master: "a" and "b"
  hint: if it is none of its replicas any more, `SENTINEL RESET b` makes a sentinel forget it"""),
            id="a name of two",
        ),
    ],
)
def test_what_leaves_a_doubt_is_an_error(servers: Mapping[str, str], message: str) -> None:
    assert why_not(servers) == message


def test_an_address_in_two_groups_is_an_error_unless_the_name_decides() -> None:
    known = {**KNOWN, "b": group("b", "10.0.0.3:6379", "10.0.0.2:6379")}
    assert "10.0.0.2:6379 belongs to more than one master" in why_not({"x": "10.0.0.2:6379"}, known)
    assert tied(known, a="10.0.0.2:6379") == {"a": "a"}


def test_where_no_master_is_known() -> None:
    assert why_not({"x": "10.0.0.1:6379"}, {}) == snapshot("""\
no sentinel knows server "x" at 10.0.0.1:6379
  hint: they know no master at all: `sentinel monitor` it""")


def test_all_that_is_wrong_is_said_at_once_with_its_line() -> None:
    text = """\
one:
  listen: 127.0.0.1:1
  redis: true
  redis_auth: hunter2
  servers:
    - 10.0.0.2:6379:1
    - 10.0.0.9:6379:1
    - 10.0.0.1:6379:1 x
  sentinels:
    - 10.0.1.1:26379
"""
    wanted = wanted_by(parse(text, "n.yml").pools[0], "n.yml")
    assert wanted.sentinels == (Endpoint("10.0.1.1", 26379),)
    assert "hunter2" not in repr(wanted)
    with pytest.raises(ConfigError) as caught:
        tie(wanted.servers, KNOWN, resolve, where=wanted.where)
    assert str(caught.value) == snapshot("""\
2 problems in the servers
no sentinel knows server "10.0.0.9:6379"
  at: n.yml:7 one.servers
  hint: the masters they know: a (10.0.0.1:6379), b (10.0.0.3:6379)
servers "x" (n.yml:8 one.servers) and "10.0.0.2:6379" are both of master "a"
  at: n.yml:6 one.servers
  hint: each server of a pool needs a master of its own""")
