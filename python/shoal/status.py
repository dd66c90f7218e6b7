"""Asks every part of a cluster how it is, all at once, in a second at most; `health` says what the answers come to.

Rule: it works while things are down: whoever does not answer is `Silent`, and nothing here fails for that. Called by
`shoal status`, the live view and `Cluster`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from shoal import state
from shoal.ask import Line, Silent, ask_proxy
from shoal.events import EventKind, EventLog
from shoal.health import Findings, judge
from shoal.process import is_running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from shoal.events import Event
    from shoal.health import Status
    from shoal.topology import Endpoint, Layout

T = TypeVar("T")

EVENTS_LOOKED_AT = 500


async def gather(layout: Layout, directory: Path) -> Status:
    """Ask everybody now."""
    units = state.load_units(directory)
    redis, sentinels, proxies = await asyncio.gather(
        _ask_all({node.name: _over_line(layout, node.endpoint, Line.info) for node in layout.redis}),
        _ask_all({node.name: _over_line(layout, node.endpoint, Line.masters) for node in layout.sentinels}),
        _ask_all({node.name: ask_proxy(node.admin) for node in layout.proxies}),
    )
    findings = Findings(
        redis,
        sentinels,
        proxies,
        units,
        pids={name: unit.pid for name, unit in units.items() if unit.pid and is_running(unit.pid, unit.started)},
        supervisor=state.lock_holder(directory),
        told=_last_words(EventLog(directory).tail(EVENTS_LOOKED_AT)),
    )
    return judge(layout, findings)


async def _over_line(layout: Layout, endpoint: Endpoint, ask: Callable[[Line], Awaitable[T]]) -> T:
    secret = layout.topology.auth.password
    line = Line(endpoint, secret.get_secret_value() if secret else None)
    try:
        return await ask(line)
    finally:
        await line.close()


async def _ask_all(questions: Mapping[str, Awaitable[T]]) -> dict[str, T | Silent]:
    answers = await asyncio.gather(*(_or_silent(question) for question in questions.values()))
    return dict(zip(questions, answers, strict=True))


async def _or_silent(question: Awaitable[T]) -> T | Silent:
    try:
        return await question
    except Silent as silent:
        return silent


def _last_words(events: Iterable[Event]) -> dict[str, Event]:
    """How each part died last, or why it was held back."""
    return {told.part: told for told in events if told.part and told.kind in (EventKind.HELD_BACK, EventKind.DIED)}
