"""`shoal down` where nothing is up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inline_snapshot import snapshot

from shoal import state

if TYPE_CHECKING:
    from collections.abc import Callable

    Shoal = Callable[..., str]


def test_without_a_file(shoal: Shoal) -> None:
    assert shoal("down").startswith("exit 2\n--- stderr\nerror: ")


def test_nothing_is_up(shoal: Shoal) -> None:
    Path("shoal.yaml").write_text("shards: {a: {}}\n")
    assert shoal("down") == snapshot("""\
exit 0
--- stderr
nothing is up here
""")


def test_it_can_be_told_the_state_directory_alone(shoal: Shoal) -> None:
    with state.locked(Path("kept"), "shoal"):
        pass
    assert shoal("down", "--state", "kept") == snapshot("""\
exit 0
--- stderr
nothing is up here
""")
