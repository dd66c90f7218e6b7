"""What every Python program here does besides being a client: it is started, runs steps and prints a line for each.

Owns: the Python side of the contract that tests/clients/programs.py describes. The programs are started as
`python -m tests.clients.python.MODULE CLIENT HOST PORT [STEP...]`, by that module and by hand.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Step = Callable[[], Any]

LONGEST_STEP = 15.0


@dataclass(frozen=True)
class Arguments:
    """What a program was started with."""

    client: str
    host: str
    port: int
    only: tuple[str, ...]
    password: str | None

    @classmethod
    def given(cls) -> Arguments:
        _, client, host, port, *only = sys.argv
        return cls(client, host, int(port), tuple(only), os.environ.get("REDIS_PASSWORD"))


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def ask_for(what: str) -> None:
    """Returns once `what` was done to the server that this program is connected to."""
    say(ask=what)
    sys.stdin.readline()


def same(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        message = f"{what}: {found!r} instead of {wanted!r}"
        raise AssertionError(message)


def chosen(steps: Mapping[str, Step], only: tuple[str, ...]) -> list[tuple[str, Step]]:
    return [(name, step) for name, step in steps.items() if not only or name in only]


def told(error: BaseException) -> str:
    """The error, and those inside it if it is a group."""
    inner = ", ".join(told(one) for one in error.exceptions) if isinstance(error, BaseExceptionGroup) else str(error)
    return f"{type(error).__module__}.{type(error).__name__}: {inner}"


def run(steps: Mapping[str, Step], only: tuple[str, ...]) -> None:
    """Steps of a client that blocks. Its own time-outs end a step that hangs, or else whoever started us."""
    for name, step in chosen(steps, only):
        try:
            detail = step()
        except Exception as error:  # noqa: BLE001 - any error of the client is what the step found out
            say(step=name, ok=False, detail=told(error))
        else:
            say(step=name, ok=True, detail=detail or "")


async def run_async(steps: Mapping[str, Step], only: tuple[str, ...]) -> None:
    """Steps of an asyncio client."""
    for name, step in chosen(steps, only):
        try:
            async with asyncio.timeout(LONGEST_STEP):
                detail = await step()
        except Exception as error:  # noqa: BLE001 - any error of the client is what the step found out
            say(step=name, ok=False, detail=told(error))
        else:
            say(step=name, ok=True, detail=detail or "")


def until(poll: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """What `poll` returns once it is true; errors of the caller's client are the caller's to catch."""
    end = time.monotonic() + timeout
    while not (found := poll()):
        if time.monotonic() > end:
            message = f"{timeout:g} s without {what}"
            raise AssertionError(message)
        time.sleep(0.02)
    return found


async def until_async(poll: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:  # noqa: ASYNC109 - as `until`
    end = time.monotonic() + timeout
    while True:
        found = poll()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() > end:
            message = f"{timeout:g} s without {what}"
            raise AssertionError(message)
        await asyncio.sleep(0.02)
