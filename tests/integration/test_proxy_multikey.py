"""Commands with several keys: split over shards and coalesced, or refused, never silently wrong."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.wire import Wire, WireError, command, talk
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Servers

KEYS = [b"", b"a", b"key:1", b"key:2", b"key:3", b"key:4", b"{user}:1", b"{user}:2", b"{}", b"\xff\x00\r\n", b"x" * 300]
keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=8)
values = st.binary(max_size=40)
operations = st.one_of(
    st.tuples(st.sampled_from([b"MGET", b"DEL", b"UNLINK", b"TOUCH", b"EXISTS"]), keys),
    st.tuples(st.just(b"MSET"), st.lists(st.tuples(st.sampled_from(KEYS), values), min_size=1, max_size=8)),
    st.tuples(st.just(b"GET"), st.sampled_from(KEYS).map(lambda key: [key])),
)


class Model:
    """What one Redis with all the keys would answer."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}

    def call(self, name: bytes, arguments: list[Any]) -> object:
        if name == b"MSET":
            self.data.update(arguments)
            return "OK"
        if name == b"GET":
            return self.data.get(arguments[0])
        if name == b"MGET":
            return [self.data.get(key) for key in arguments]
        if name in {b"EXISTS", b"TOUCH"}:
            return sum(key in self.data for key in arguments)
        return sum(self.data.pop(key, None) is not None for key in dict.fromkeys(arguments))


def frame(name: bytes, arguments: list[Any]) -> bytes:
    flat = [part for pair in arguments for part in pair] if name == b"MSET" else arguments
    return command(name, *flat)


@pytest.mark.timeout(120)
@settings(max_examples=80, deadline=None)
@given(batch=st.lists(operations, min_size=1, max_size=30), together=st.booleans())
def test_split_commands_answer_as_one_redis_would(shared_proxy: PlaneHost, batch: list[Any], together: bool) -> None:
    for server in shared_proxy.servers.values():
        with contextlib.closing(server.client()) as direct:
            direct.flushall()
    model = Model()
    expected = [model.call(name, arguments) for name, arguments in batch]
    with Wire(shared_proxy.address) as wire:
        if together:
            wire.send(b"".join(frame(name, arguments) for name, arguments in batch))
            replies = [wire.reply() for _ in batch]
        else:
            replies = []
            for name, arguments in batch:
                wire.send(frame(name, arguments))
                replies.append(wire.reply())
    assert replies == expected


@pytest.fixture
def apart(proxy: PlaneHost) -> tuple[str, str]:
    """Two keys on different shards, found by asking the servers where they went."""
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(Wire(proxy.address))
        directs: list[Any] = [stack.enter_context(server.client()) for server in proxy.servers.values()]

        def home(key: str) -> int:
            wire.call("SET", key, "1")
            return next(place for place, direct in enumerate(directs) if direct.exists(key))

        first = home("k0")
        other = next(f"k{number}" for number in range(1, 100) if home(f"k{number}") != first)
        wire.call("DEL", *(f"k{number}" for number in range(100)))
    return "k0", other


REFUSED_APART = {
    "RENAME": lambda a, b: ("RENAME", a, b),
    "MSETNX": lambda a, b: ("MSETNX", a, "1", b, "2"),
    "SUNION": lambda a, b: ("SUNION", a, b),
    "SINTERSTORE": lambda a, b: ("SINTERSTORE", a, b),
    "ZUNION": lambda a, b: ("ZUNION", "2", a, b),
    "ZUNIONSTORE": lambda a, b: ("ZUNIONSTORE", a, "1", b),
    "LMOVE": lambda a, b: ("LMOVE", a, b, "LEFT", "RIGHT"),
    "COPY": lambda a, b: ("COPY", a, b),
    "PFCOUNT": lambda a, b: ("PFCOUNT", a, b),
    "BITOP": lambda a, b: ("BITOP", "AND", a, b),
}


@pytest.mark.parametrize("build", REFUSED_APART.values(), ids=REFUSED_APART)
def test_keys_on_two_shards_are_refused_when_no_split_is_right(
    proxy: PlaneHost, apart: tuple[str, str], build: Callable[[str, str], tuple[str, ...]]
) -> None:
    with Wire(proxy.address) as wire:
        answer = wire.call(*build(*apart))
        assert isinstance(answer, WireError)
        assert answer.code == "CROSSSLOT"
        together = wire.call(*build("{same}1", "{same}2"))
        assert not (isinstance(together, WireError) and together.code == "CROSSSLOT")
        assert wire.call("PING") == "PONG"


def test_a_hash_tag_keeps_keys_together(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        assert wire.call("SADD", "{team}:a", "x", "y") == 2
        assert wire.call("SADD", "{team}:b", "y", "z") == 2
        assert wire.call("SINTER", "{team}:a", "{team}:b") == [b"y"]


def test_an_error_of_one_shard_is_the_answer_of_the_whole(proxy: PlaneHost) -> None:
    with proxy.servers["a"].client() as direct, Wire(proxy.address) as wire:
        direct.config_set("maxmemory", "1")
        try:
            answer = wire.call("MSET", *(part for number in range(300) for part in (f"{number}:key", "v")))
            assert isinstance(answer, WireError)
            assert answer.code == "OOM"
            assert 'shard "a"' in answer
            assert wire.call("PING") == "PONG"
        finally:
            direct.config_set("maxmemory", "0")


def test_wrong_number_of_arguments_is_an_error_and_nothing_more(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        for request in [("MSET", "a"), ("MSET", "a", "1", "b"), ("MGET",), ("DEL",), ("GET",), ("SET", "a")]:
            answer = wire.call(*request)
            assert isinstance(answer, WireError)
            assert "wrong number of arguments" in answer
        assert wire.call("PING") == "PONG"


SORTED_BY_OTHERS = "RPUSH {t}l 1 2 3|MSET {t}w_1 9 {t}w_2 1 {t}w_3 5|HSET {t}h_1 f x|SORT {t}l BY {t}w_*"
SORTED_BY_OTHERS += (
    "|SORT {t}l BY {t}w_* GET # GET {t}w_* GET {t}h_*->f STORE {t}out|LRANGE {t}out 0 -1|SORT {t}l BY nosort"
)


def test_sort_reads_other_keys_where_a_hash_tag_keeps_them_together(proxy: PlaneHost) -> None:
    expected = talk(proxy.servers["a"].address, SORTED_BY_OTHERS)
    with proxy.servers["a"].client() as direct:
        direct.flushall()
    assert talk(proxy.address, SORTED_BY_OTHERS) == expected


@pytest.mark.parametrize("pattern", ["w_*", "*{t}", "{*}", "{t*}", "{}*", "w_*->{t}"])
def test_sort_by_keys_that_may_be_anywhere_is_refused(proxy: PlaneHost, pattern: str) -> None:
    with Wire(proxy.address) as wire:
        for option in ("BY", "GET"):
            answer = wire.call("SORT", "{t}l", option, pattern)
            assert "it would read keys of other shards" in answer
        elsewhere = [wire.call("SORT", "{t}l", "BY", f"{{{number}:tag}}w_*") for number in range(9)]
        assert {answer.code for answer in elsewhere if isinstance(answer, WireError)} == {"CROSSSLOT"}


def test_a_pool_with_one_shard_sorts_by_anything(servers: Servers) -> None:
    host = PlaneHost("proxy", [], servers.directory / "proxy", servers={"a": servers.redis("a")})
    with Wire(servers.adopt(host).start().address) as wire:
        wire.call("RPUSH", "l", "1", "2")
        wire.call("MSET", "w_1", "2", "w_2", "1")
        assert wire.call("SORT", "l", "BY", "w_*", "GET", "w_*") == [b"1", b"2"]
