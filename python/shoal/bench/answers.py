"""Right answers before fast ones: random pipelines through a subject, compared with what a dictionary would say.

Rule: a subject that answers anything wrong is not timed. The pipelines are the same for all subjects. Called by `run`
for each of them.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from shoal.bench.wire import Wire
from shoal.errors import ProcessError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.bench.wire import Command

PIPELINES = 200
LONGEST = 50
KEYS = 60
LONG_VALUE = 40_000
"""Longer than what a proxy reads at once."""


def check(name: str, port: int, seed: int = 1) -> None:
    """Send the pipelines; ProcessError says what was asked and what came back if one answer is wrong."""
    chooser = random.Random(seed)
    known: dict[str, bytes] = {}
    with Wire(port) as wire:
        wire.ask([("DEL", _key(number)) for number in range(KEYS)])
        for _ in range(PIPELINES):
            asked = [_request(chooser, known) for _ in range(chooser.randint(1, LONGEST))]
            replies = wire.ask([command for command, _ in asked])
            for (command, right), reply in zip(asked, replies, strict=True):
                if reply != right:
                    what = f"{name} answers {_short(command)} with {_short(reply)}, and {_short(right)} is right"
                    raise ProcessError(what, hint="a subject that answers wrong is not measured: leave it out")
        wire.ask([("DEL", _key(number)) for number in range(KEYS)])


def _request(chooser: random.Random, known: dict[str, bytes]) -> tuple[Command, Any]:
    """A command and its right answer; `known` is what is stored after it."""
    make: Callable[[random.Random, dict[str, bytes]], tuple[Command, Any]]
    make = chooser.choice((_get, _get, _set, _set, _mget, _del, _append))
    return make(chooser, known)


def _get(chooser: random.Random, known: dict[str, bytes]) -> tuple[Command, Any]:
    key = _any_key(chooser)
    return ("GET", key), known.get(key)


def _set(chooser: random.Random, known: dict[str, bytes]) -> tuple[Command, Any]:
    key = _any_key(chooser)
    size = LONG_VALUE if chooser.random() < 0.02 else chooser.randint(0, 200)
    known[key] = chooser.randbytes(size)
    return ("SET", key, known[key]), b"OK"


def _mget(chooser: random.Random, known: dict[str, bytes]) -> tuple[Command, Any]:
    keys = [_any_key(chooser) for _ in range(chooser.randint(1, 10))]
    return ("MGET", *keys), [known.get(key) for key in keys]


def _del(chooser: random.Random, known: dict[str, bytes]) -> tuple[Command, Any]:
    keys = {_any_key(chooser): None for _ in range(chooser.randint(1, 5))}
    return ("DEL", *keys), sum(known.pop(key, None) is not None for key in keys)


def _append(chooser: random.Random, known: dict[str, bytes]) -> tuple[Command, Any]:
    key = _any_key(chooser)
    known[key] = known.get(key, b"") + b"tail"
    return ("APPEND", key, b"tail"), len(known[key])


def _any_key(chooser: random.Random) -> str:
    return _key(chooser.randrange(KEYS))


def _key(number: int) -> str:
    return f"answers:{number}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
