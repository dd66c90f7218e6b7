"""The log: one line an event, for people on a terminal or as JSON for programs.

Rule: every event of a proxy is declared in EVENTS, with its level and what it means, and has its facts in fields, never
in prose; no secret is ever a field. Lines go to stderr, stdout belongs to data. Called by the daemon and what it runs.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

EVENT_WIDTH = 22


class LogFormat(StrEnum):
    """How lines are written."""

    CONSOLE = "console"
    JSON = "json"


class Declared(NamedTuple):
    """What an event is."""

    level: int
    meaning: str


EVENTS: Mapping[str, Declared] = {
    "proxy_started": Declared(logging.INFO, "the proxy listens; requests are held until masters are known"),
    "proxy_draining": Declared(logging.INFO, "a signal asked the proxy to end: requests in flight are finished"),
    "proxy_stopped": Declared(logging.INFO, "the proxy has ended"),
    "reload_ignored": Declared(logging.WARNING, "SIGHUP: reloading comes with a later version"),
    "sentinel_connected": Declared(logging.INFO, "a sentinel answers"),
    "sentinel_lost": Declared(logging.WARNING, "a sentinel does not answer any more, or has not yet"),
    "sentinel_unsubscribed": Declared(logging.WARNING, "events of a sentinel are not received for now"),
    "sentinel_subscribed": Declared(logging.INFO, "events of a sentinel are received"),
    "sentinel_tilt": Declared(logging.WARNING, "a sentinel distrusts its clock and does not vote"),
    "sentinel_calm": Declared(logging.INFO, "a sentinel trusts its clock again"),
    "sentinels_unsound": Declared(logging.ERROR, "the sentinels are not as the topology says, which weakens the lease"),
    "master_named": Declared(logging.INFO, "a majority of sentinels names a new master; its ROLE is asked"),
    "master_unconfirmed": Declared(logging.INFO, "a named master does not say yet that it is one"),
    "master_committed": Declared(logging.INFO, "requests of a shard go to a new master"),
    "lease_regained": Declared(logging.INFO, "writes of a shard go on"),
    "lease_broken": Declared(logging.WARNING, "writes of a shard are held"),
    "lease_lapsed": Declared(logging.WARNING, "a lease ran out before it was renewed, for the time given"),
    "epoch_applied": Declared(logging.DEBUG, "all workers serve a new snapshot"),
    "epoch_not_acked": Declared(logging.ERROR, "a worker has not taken over a snapshot within a second"),
}


class Log:
    """Writes declared events."""

    def __init__(self, style: LogFormat = LogFormat.CONSOLE, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        on_terminal = stream.isatty()
        renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
        if style is LogFormat.CONSOLE:
            renderer = structlog.dev.ConsoleRenderer(colors=on_terminal, pad_event_to=EVENT_WIDTH)
        self._logger: Any = structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[_stamp, renderer],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            cache_logger_on_first_use=True,
        )

    def event(self, name: str, **facts: object) -> None:
        """Write one event; KeyError if it is not declared."""
        self._logger.log(EVENTS[name].level, name, **facts)


def _stamp(_logger: object, level: str, line: MutableMapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"timestamp": now, "level": level, **line}
