"""The names of fixed servers: looked up at the start and again and again, the last address kept."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from shoal import steer
from shoal.log import Log, LogFormat
from shoal.plane import NO_LEASE_NEEDED, resolve
from shoal.routes import Target
from shoal.serving import AtAddresses
from shoal.steer import Names
from shoal.topology import Endpoint, UnixSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.routes import Key
    from shoal.serving import Address

HERE = Endpoint("127.0.0.1", 6379)
NAMED = Endpoint("redis.example", 6379)
KEY = ("p", "a")


class Sink:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Mapping[Key, Target]] = []

    def put(self, targets: Mapping[Key, Target]) -> int:
        self.told.append(targets)
        return len(self.told)


def names_of(**servers: Address) -> tuple[Names, Callable[[], list[dict[str, Any]]]]:
    stream = io.StringIO()
    names = Names({"p": AtAddresses(servers)}, Log(LogFormat.JSON, stream))
    return names, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def at(address: Address | None) -> dict[Key, Target]:
    return {KEY: Target(address, NO_LEASE_NEEDED)}


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Endpoint | None) -> None:
    """The name server says these in turn, the last one for ever."""
    left = list(answers)
    monkeypatch.setattr(steer, "resolve", lambda *_: left.pop(0) if len(left) > 1 else left[0])


@pytest.mark.parametrize("address", [HERE, UnixSocket("/run/redis.sock"), Endpoint("::1", 6379)])
def test_what_is_no_name_is_known_at_once(address: Address) -> None:
    assert names_of(a=address)[0].targets() == at(address)


async def test_a_name_is_known_once_it_was_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, HERE)
    names, said = names_of(a=NAMED)
    assert names.targets() == at(None)
    assert await names.look_up()
    assert names.targets() == at(HERE)
    assert [(line["event"], line["address"]) for line in said()] == [("name_found", str(HERE))]


async def test_the_last_address_is_kept_of_a_name_that_has_none_now(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, HERE, None, HERE)
    names, said = names_of(a=NAMED)
    assert [await names.look_up() for _ in range(3)] == [True, False, False]
    assert names.targets() == at(HERE)
    assert len(said()) == 1


async def test_a_name_that_has_no_address_yet_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, None, None, HERE)
    names, said = names_of(a=NAMED)
    assert [await names.look_up() for _ in range(3)] == [False, False, True]
    assert [line["event"] for line in said()] == ["name_unknown", "name_found"]


async def test_one_name_that_takes_long_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def slowly(endpoint: Endpoint, *_: object) -> Endpoint:
        if endpoint == NAMED:
            released.wait(5)
        return HERE

    monkeypatch.setattr(steer, "resolve", slowly)
    names, _ = names_of(a=NAMED, b=Endpoint("other.example", 1))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await names.look_up()
    released.set()
    assert names.targets() == at(None) | {("p", "b"): Target(HERE, NO_LEASE_NEEDED)}


async def test_what_a_later_look_finds_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steer, "NAMES_PERIOD", 0.01)
    answering(monkeypatch, None, HERE)
    names, _ = names_of(a=NAMED)
    sink = Sink()
    running = asyncio.ensure_future(names.run(sink))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while not sink.told:  # noqa: ASYNC110  a list is no event
            await asyncio.sleep(0.005)
    running.cancel()
    assert sink.told == [at(HERE)]


@pytest.mark.parametrize("host", ["x" * 64, "a..b"])
def test_a_name_that_cannot_be_asked_for_has_no_address(host: str) -> None:
    assert resolve(Endpoint(host, 6379)) is None
