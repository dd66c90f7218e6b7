"""How a cluster looks in a terminal: shards with their nodes, sentinels, proxies, what is wrong, what happened last.

Rule: it says the same without colour, and fits what it has to say into columns of its own, so that a pipe gets all of
it. Called by `shoal status` (once, or --watch) and by `shoal up` on a terminal.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from shoal.events import Event, EventLog
from shoal.health import PartStatus, Status
from shoal.status import gather
from shoal.topology import Layout

INTERVAL = 1.0
EVENTS_SHOWN = 8
COLOURS = {"ok": "green", "down": "red", "silent": "red", "second master": "red", "unhealthy": "red"}
OTHER_COLOUR = "yellow"
KILO = 1024


def status_text(status: Status) -> Text:
    """The whole status."""
    supervisor = f"supervised by pid {status.supervisor}" if status.supervisor else "not supervised"
    lines = [Text.assemble((status.cluster, "bold"), f"  {supervisor}")]
    width = max(len(part.name) for part in status.parts)
    reach = max(len(part.endpoint) for part in status.parts)
    for shard in status.shards:
        master = f"master {shard.master}, config epoch {shard.config_epoch}" if shard.master else "no master"
        lines.append(Text.assemble(("shard ", "bold"), (shard.name, "bold"), f"  {master}"))
        lines += [_part(part, width, reach) for part in status.parts if part.shard == shard.name]
    for kind, title in (("sentinel", "sentinels"), ("proxy", "proxies")):
        lines.append(Text(title, "bold"))
        lines += [_part(part, width, reach) for part in status.parts if part.kind == kind]
    return Text("\n").join([*lines, Text(""), *_verdict(status)])


def _part(part: PartStatus, width: int, reach: int) -> Text:
    pid = f"pid {part.pid}" if part.pid is not None else ""
    detail = _detail(part)
    return Text.assemble(
        f"  {part.name:<{width}}  {part.role or '':<7}  {part.endpoint:<{reach}}  {pid:<11}  ",
        (f"{part.health:<8}" if detail else part.health, COLOURS.get(part.health, OTHER_COLOUR)),
        f"  {detail}" if detail else "",
    )


def _detail(part: PartStatus) -> str:
    words = [part.detail] if part.detail else []
    if part.lag_bytes is not None:
        words.append(f"lag {_size(part.lag_bytes)}, {part.lag_seconds} s")
    if part.config_epoch is not None and part.kind != "redis":
        words.append(f"epoch {part.config_epoch}")
    return ", ".join(words)


def _size(count: int) -> str:
    if count < KILO:
        return f"{count} B"
    return f"{count / KILO:.1f} KB" if count < KILO**2 else f"{count / KILO**2:.1f} MB"


def _verdict(status: Status) -> list[Text]:
    if status.ok:
        return [Text("all is well", "green")]
    return [Text(problem, "red") for problem in status.problems]


def events_text(events: Sequence[Event]) -> Text:
    return Text("\n").join(Text(event.line(), "dim") for event in events)


def status_json(status: Status) -> dict[str, Any]:
    """The same for programs."""
    return {"ok": status.ok, **asdict(status)}


class View:
    """Follows a cluster on a console until it is told to end."""

    def __init__(self, console: Console, layout: Layout, directory: Path) -> None:
        self.console = console
        self.layout = layout
        self.directory = directory
        self.status: Status | None = None
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    async def follow(self, footer: str = "") -> None:
        """Draw again and again; ends by being cancelled. The last picture stays."""
        with self._live:
            while True:
                self.status = await gather(self.layout, self.directory)
                self._live.update(self._picture(footer), refresh=True)
                await asyncio.sleep(INTERVAL)

    def end(self) -> None:
        """Draw no more, from now on: lines may follow."""
        self._live.stop()

    def _picture(self, footer: str) -> Group:
        events = EventLog(self.directory).tail(EVENTS_SHOWN)
        status = Text("") if self.status is None else status_text(self.status)
        return Group(status, Text(""), events_text(events), Text(footer, "dim"))
