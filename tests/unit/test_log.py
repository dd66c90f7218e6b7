"""The log: a file that logrotate may move away, and a level that goes up and down while it is written."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shoal.errors import ConfigError
from shoal.log import EVENTS, SHOWN, USUAL, Log, LogFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Logging = Callable[..., Log]

OF_LEVEL = {
    logging.DEBUG: "epoch_applied",
    logging.INFO: "proxy_started",
    logging.WARNING: "lease_broken",
    logging.ERROR: "epoch_not_acked",
}


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def events(path: Path) -> list[str]:
    return [line["event"] for line in lines(path.read_text())]


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def logging_to() -> Iterator[Callable[..., Log]]:
    """`logging_to(path)` is a log there, in JSON, closed when the test ends."""
    with contextlib.ExitStack() as opened:

        def make(path: Path, style: LogFormat = LogFormat.JSON) -> Log:
            log = Log(style, file=path)
            opened.callback(log.close)
            return log

        yield make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


# ------------------------------------------------------------------------------------------------------------ the file


def test_lines_are_added_to_a_file_that_others_may_read(path: Path, logging_to: Logging) -> None:
    path.write_text("before\n")
    path.chmod(0o640)
    logging_to(path, LogFormat.CONSOLE).event("proxy_started", node="a")
    first, second = path.read_text().splitlines()
    assert first == "before"
    assert "proxy_started" in second
    assert "\x1b" not in second
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_nutcracker_s_mode(path: Path, logging_to: Logging) -> None:
    before = os.umask(0)
    try:
        logging_to(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_reopened_after_it_was_moved_away_it_is_a_new_file(path: Path, logging_to: Logging) -> None:
    log, moved = logging_to(path), path.with_name("log.1")
    log.event("proxy_started")
    path.rename(moved)
    log.event("lease_broken")
    assert not path.exists()
    log.reopen()
    log.event("proxy_stopped")
    assert events(moved) == ["proxy_started", "lease_broken"]
    assert events(path) == ["log_reopened", "proxy_stopped"]


def test_if_it_cannot_be_opened_the_old_file_goes_on_and_says_so(tmp_path: Path, logging_to: Logging) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    log, moved = logging_to(directory / "log"), tmp_path / "moved"
    directory.rename(moved)
    log.reopen()
    log.event("proxy_stopped")
    assert events(moved / "log") == ["log_not_reopened", "proxy_stopped"]
    (line, _) = lines((moved / "log").read_text())
    assert line["why"] == f"opening log file '{directory / 'log'}' failed: No such file or directory"


def test_reopening_leaks_no_descriptor(path: Path, logging_to: Logging) -> None:
    log = logging_to(path)
    before = descriptors()
    for _ in range(5):
        log.reopen()
    assert descriptors() == before


def test_a_file_that_cannot_be_opened_at_the_start_is_an_error_in_nutcracker_s_words(logging_to: Logging) -> None:
    with pytest.raises(ConfigError) as caught:
        logging_to(Path("/nonexistent/log"))
    assert caught.value.what == "opening log file '/nonexistent/log' failed: No such file or directory"


def test_what_is_written_to_stderr_goes_to_the_file_that_is_open(path: Path, logging_to: Logging) -> None:
    log, moved = logging_to(path), path.with_name("log.1")
    before = os.dup(2)
    try:
        log.take_stderr()
        os.write(2, b"the first\n")
        path.rename(moved)
        log.reopen()
        os.write(2, b"the second\n")
    finally:
        os.dup2(before, 2)
        os.close(before)
    assert moved.read_text() == "the first\n"
    assert path.read_text().endswith("the second\n")


def test_a_full_disk_ends_nothing(logging_to: Logging) -> None:
    logging_to(Path("/dev/full")).event("proxy_started")


def test_a_stream_is_not_reopened() -> None:
    stream = io.StringIO()
    Log(LogFormat.JSON, stream).reopen()
    assert stream.getvalue() == ""


# ----------------------------------------------------------------------------------------------------------- the level


@pytest.mark.parametrize("verbosity", range(len(SHOWN)))
def test_what_a_verbosity_shows(verbosity: int) -> None:
    stream = io.StringIO()
    log = Log(LogFormat.JSON, stream, verbosity=verbosity)
    for name in OF_LEVEL.values():
        log.event(name)
    shown = [line["event"] for line in lines(stream.getvalue())]
    assert shown == [name for level, name in OF_LEVEL.items() if level >= SHOWN[verbosity]]


def test_the_scale_is_nutcracker_s_and_quiet_ends_are_there() -> None:
    assert len(SHOWN) == 12
    assert SHOWN[USUAL] == logging.INFO
    assert list(SHOWN) == sorted(SHOWN, reverse=True)
    assert {declared.level for declared in EVENTS.values()} == set(OF_LEVEL)


def test_the_level_goes_up_and_down_and_each_turn_is_said_however_quiet_it_is() -> None:
    stream = io.StringIO()
    log = Log(LogFormat.JSON, stream)
    for _ in range(3):
        log.quieter()
    log.event("lease_broken")
    for _ in range(5):
        log.louder()
    log.event("epoch_applied")
    said = [(line["event"], line.get("verbosity"), line.get("shown")) for line in lines(stream.getvalue())]
    assert said[:3] == [
        ("log_level", 4, "warning and above"),
        ("log_level", 3, "error and above"),
        ("log_level", 2, "critical and above"),
    ]
    assert [verbosity for _, verbosity, _ in said[3:-1]] == [3, 4, 5, 6, 7]
    assert said[-1][0] == "epoch_applied"


def test_the_ends_of_the_scale_hold() -> None:
    stream = io.StringIO()
    log = Log(LogFormat.JSON, stream, verbosity=10)
    for _ in range(3):
        log.louder()
    for _ in range(15):
        log.quieter()
    verbosities = [line["verbosity"] for line in lines(stream.getvalue())]
    assert (max(verbosities), min(verbosities), verbosities[-1]) == (11, 0, 0)
