"""What holds for every command: usage errors, the version, the streams, colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.cli.app import run
from shoal.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    Shoal = Callable[..., str]


def test_the_version_is_data(shoal: Shoal) -> None:
    assert shoal("--version").startswith("exit 0\n--- stdout\nshoal 0.")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["chek"], "No such command 'chek'", "see `shoal --help`"),
        (["check", "--jsn"], "No such option: --jsn", "see `shoal check --help`"),
        (["check", "-f"], "Option '-f' requires an argument", "see `shoal --help`"),
        (["key"], "Missing argument 'KEY'", "see `shoal key --help`"),
    ],
)
def test_a_command_line_that_cannot_be(arguments: list[str], error: str, hint: str, shoal: Shoal) -> None:
    transcript = shoal(*arguments)  # the words are typer's, the form is ours
    assert transcript.startswith(f"exit 2\n--- stderr\nerror: {error}")
    assert transcript.endswith(f"\n  hint: {hint}\n")


def test_no_command_at_all_shows_the_help_as_talk(shoal: Shoal) -> None:
    assert shoal().startswith("exit 2\n--- stderr\nUsage: shoal [OPTIONS] COMMAND [ARGS]...")


def test_help_that_was_asked_for_is_data(shoal: Shoal) -> None:
    assert shoal("--help").startswith("exit 0\n--- stdout\nUsage: shoal [OPTIONS] COMMAND [ARGS]...")
    assert shoal("check", "-h").startswith("exit 0\n--- stdout\nUsage: shoal check [OPTIONS]")


def test_an_interrupt_exits_as_the_shell_says(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shoal.config.load", interrupt)
    assert shoal("check").startswith("exit 130\n")


def test_a_bug_keeps_its_traceback(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("shoal.config.load", stumble)
    with pytest.raises(ZeroDivisionError):
        shoal("check")


def test_text_that_looks_like_markup_is_printed_as_it_is(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise ConfigError("[bold]no[/bold] :smile:", where="a" * 200)

    monkeypatch.setattr("shoal.config.load", refuse)
    assert shoal("check") == f"exit 2\n--- stderr\nerror: [bold]no[/bold] :smile:\n  at: {'a' * 200}\n"


def test_colour_only_where_it_is_wanted(
    shoal: Shoal, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "\x1b" not in shoal("check")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    run(["check"])
    assert "\x1b[1;31merror: " in capfd.readouterr().err
