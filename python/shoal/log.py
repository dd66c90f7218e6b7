"""The log: one line an event, for people on a terminal or as JSON for programs.

Rule: every event of a proxy is declared in EVENTS, with its level and what it means, and has its facts in fields, never
in prose; no secret is ever a field. Lines go to stderr, stdout belongs to data; or to a file, which is opened again by
its name when that is asked (logrotate has moved it away), and whose full disk ends nothing. How much is written is a
number from 0 to 11, nutcracker's, which SHOWN maps on levels. Called by the daemon and what it runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

import structlog

from shoal.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from pathlib import Path

EVENT_WIDTH = 22
FILE_MODE = 0o644
STDERR = 2

SHOWN: Final = (
    *(logging.CRITICAL, logging.CRITICAL, logging.CRITICAL),  # 0 to 2: only what is said of the log itself
    logging.ERROR,  # 3
    logging.WARNING,  # 4
    *(logging.INFO, logging.INFO),  # 5, nutcracker's default and ours, and 6
    *(logging.DEBUG,) * 5,  # 7 to 11
)
"""The least level that is written, by nutcracker's number."""
USUAL: Final = 5


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
    "reloaded": Declared(logging.INFO, "the file was read again, and what it says is served"),
    "reload_refused": Declared(logging.ERROR, "the file was read again, and nothing has changed; why"),
    "ejection_off": Declared(logging.INFO, "the pool follows sentinels: its auto_eject_hosts has no effect"),
    "hold_short": Declared(
        logging.WARNING,
        "a failover takes longer than requests are held: clients will see -MASTERDOWN; lower down-after",
    ),
    "sentinels_silent": Declared(logging.WARNING, "no majority of a pool's sentinels answers; the start waits for it"),
    "name_unknown": Declared(logging.WARNING, "the name of a server's host has no address; it is asked for again"),
    "name_found": Declared(logging.INFO, "the name of a server's host has a new address"),
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
    "hold_begun": Declared(logging.INFO, "an operator has a shard's writes held, for a switchover"),
    "hold_ended": Declared(logging.INFO, "that hold is over: released, handed over, expired or not settled"),
    "master_handed_over": Declared(logging.INFO, "requests go to a new master that the sentinels are about to name"),
    "proxy_cut": Declared(logging.WARNING, "SIGINT: the proxy ends at once, whatever is in flight"),
    "proxy_failed": Declared(logging.ERROR, "the proxy ends because of an error"),
    "flag_ignored": Declared(logging.INFO, "a flag of the command line changes nothing here"),
    "signal_ignored": Declared(logging.INFO, "a signal that changes nothing"),
    "log_reopened": Declared(logging.INFO, "the log's file was opened again by its name"),
    "log_not_reopened": Declared(logging.ERROR, "it could not be: lines go on in the old file"),
    "log_level": Declared(logging.INFO, "how much is logged from now on, as nutcracker counts it"),
    "epoch_applied": Declared(logging.DEBUG, "all workers serve a new snapshot"),
    "epoch_not_acked": Declared(logging.ERROR, "a worker has not taken over a snapshot within a second"),
}


class Log:
    """Writes declared events to a stream, or to a file."""

    def __init__(
        self,
        style: LogFormat = LogFormat.CONSOLE,
        stream: TextIO | None = None,
        *,
        file: Path | None = None,
        verbosity: int = USUAL,
    ) -> None:
        self._file = None if file is None else _LogFile(file)
        self._verbosity = verbosity
        stream = stream or sys.stderr
        renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
        if style is LogFormat.CONSOLE:
            on_terminal = self._file is None and stream.isatty()
            renderer = structlog.dev.ConsoleRenderer(colors=on_terminal, pad_event_to=EVENT_WIDTH)
        self._logger: Any = structlog.wrap_logger(
            structlog.WriteLogger(self._file or stream),  # type: ignore[arg-type]  # it writes and flushes
            processors=[_stamp, renderer],
            wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
            cache_logger_on_first_use=True,
        )

    def event(self, name: str, **facts: object) -> None:
        """Write one event if its level is shown; KeyError if it is not declared."""
        if EVENTS[name].level >= SHOWN[self._verbosity]:
            self._write(name, facts)

    def louder(self) -> None:
        """Show one of nutcracker's levels more."""
        self._turn(self._verbosity + 1)

    def quieter(self) -> None:
        """Show one less."""
        self._turn(self._verbosity - 1)

    def reopen(self) -> None:
        """Open the file by its name again; if that fails, the old one goes on and says so."""
        if self._file is None:
            return
        try:
            self._file.reopen()
        except ConfigError as error:
            self.event("log_not_reopened", why=error.what)
        else:
            self.event("log_reopened")

    def take_stderr(self) -> None:
        """Have the file, also when it is opened again, take what is written to stderr: a crash says why there."""
        if self._file is not None:
            self._file.take_stderr()

    def close(self) -> None:
        """Close the file; nothing may be written after that."""
        if self._file is not None:
            self._file.close()

    def _turn(self, verbosity: int) -> None:
        self._verbosity = min(max(verbosity, 0), len(SHOWN) - 1)
        shown = logging.getLevelName(SHOWN[self._verbosity]).lower()
        self._write("log_level", {"verbosity": self._verbosity, "shown": f"{shown} and above"})

    def _write(self, name: str, facts: Mapping[str, object]) -> None:
        self._logger.log(EVENTS[name].level, name, **facts)


class _LogFile:
    """The end of a file, by its name. A line that finds no room on the disk is lost: that ends no proxy."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()
        self._has_stderr = False

    def reopen(self) -> None:
        opened = self._open()
        self.close()
        self._file = opened
        if self._has_stderr:
            self.take_stderr()

    def take_stderr(self) -> None:
        os.dup2(self._file.fileno(), STDERR)
        self._has_stderr = True

    def close(self) -> None:
        self._file.close()

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Nothing is kept back."""

    def _open(self) -> Any:
        try:
            return open(self._path, "ab", buffering=0, opener=_readable)
        except OSError as error:
            hint = "it must be a file that this user may write, in a directory that is there"
            raise ConfigError(f"opening log file '{self._path}' failed: {error.strerror}", hint=hint) from error


def _readable(name: str, flags: int) -> int:
    return os.open(name, flags, FILE_MODE)


def _stamp(_logger: object, level: str, line: MutableMapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"timestamp": now, "level": level, **line}
