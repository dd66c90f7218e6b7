"""What happened to a cluster on this machine: events, and the bounded file that keeps them.

Rule: an event is one line of JSON with one sentence for people; the file is cut in two when it grows, and writing it
never stops supervision. Written by the supervisor, read by `status`, the live view and tests.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "events.jsonl"
LIMIT = 1 << 20  # bytes; then the file becomes events.jsonl.1 and a new one begins


class EventKind(StrEnum):
    """What the supervisor tells. The words are what users grep for."""

    STARTED = "started"
    ADOPTED = "adopted"
    DIED = "died"
    RESTARTING = "restarting"
    HELD_BACK = "held back"
    MASTER = "master"
    SYNCED = "synced"
    NOTICE = "notice"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Event(BaseModel):
    """One thing that happened: to which part, in a sentence."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: str
    kind: EventKind
    part: str | None = None
    text: str

    def line(self) -> str:
        """As a person reads it."""
        return f"{self.at[11:23]}  {self.kind:<10}  {self.part or '':<12}  {self.text}"


class EventLog:
    """events.jsonl: appended line by line, and cut in two when it grows."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME

    def append(self, event: Event) -> None:
        """Write one event. A full disk must not stop supervision, so a failure is not an error."""
        with contextlib.suppress(OSError):
            if self.path.exists() and self.path.stat().st_size > LIMIT:
                self.path.replace(self.path.with_name(f"{FILE_NAME}.1"))
            with open(self.path, "a", opener=_private) as file:
                file.write(event.model_dump_json() + "\n")

    def tail(self, count: int) -> list[Event]:
        """The last events; a line that was cut by a crash is passed over."""
        lines: list[str] = []
        for path in (self.path.with_name(f"{FILE_NAME}.1"), self.path):
            with contextlib.suppress(OSError):
                lines += path.read_text().splitlines()[-count:]
        events = []
        for line in lines[-count:]:
            with contextlib.suppress(ValidationError):
                events.append(Event.model_validate_json(line))
        return events


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def event(kind: EventKind, text: str, part: str | None = None) -> Event:
    """An event of this moment."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Event(at=at, kind=kind, part=part, text=text)
