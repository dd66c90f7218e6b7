"""The state directory: whose it is, who holds it, what it remembers, and that files are whole or not there."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from shoal import events, state
from shoal.errors import StateError
from shoal.events import EventKind, EventLog, event
from shoal.state import AlreadyUpError, Identity, UnitRecord

if TYPE_CHECKING:
    from pathlib import Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFiles:
    def test_a_file_is_private_and_nothing_is_left_beside_it(self, tmp_path: Path) -> None:
        state.write_file(tmp_path / "deep" / "file", "one")
        state.write_file(tmp_path / "deep" / "file", "two")
        assert (tmp_path / "deep" / "file").read_text() == "two"
        assert mode(tmp_path / "deep" / "file") == 0o600
        assert mode(tmp_path / "deep") == 0o700
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]

    def test_a_write_that_fails_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        state.write_file(tmp_path / "file", "old")

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StateError, match="No space left on device"):
            state.write_file(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


class TestIdentity:
    def test_the_first_start_makes_it(self, tmp_path: Path) -> None:
        with state.locked(tmp_path / "new", "mine"):
            assert mode(tmp_path / "new") == 0o700
        identity = state.load_identity(tmp_path / "new")
        assert identity is not None
        assert (identity.cluster, identity.format) == ("mine", state.FORMAT)

    def test_another_clusters_is_refused_untouched(self, tmp_path: Path) -> None:
        with state.locked(tmp_path, "theirs"):
            pass
        before = sorted(path.name for path in tmp_path.iterdir())
        with pytest.raises(StateError, match='belongs to cluster "theirs", not "mine"'), state.locked(tmp_path, "mine"):
            pass
        assert sorted(path.name for path in tmp_path.iterdir()) == before

    def test_a_directory_of_something_else_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("...")
        with pytest.raises(StateError, match=r"holds 'thesis.tex'"), state.locked(tmp_path, "mine"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_newer_format_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "cluster.json").write_text(json.dumps({"cluster": "mine", "format": state.FORMAT + 1}))
        with pytest.raises(StateError, match="newer Shoal"), state.locked(tmp_path, "mine"):
            pass

    def test_a_file_in_its_place_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StateError, match="is a file"), state.locked(tmp_path / "file", "mine"):
            pass

    def test_a_broken_file_says_which(self, tmp_path: Path) -> None:
        (tmp_path / "units.json").write_text("{")
        with pytest.raises(StateError, match=r"units.json does not make sense") as error:
            state.load_units(tmp_path)
        assert error.value.where == str(tmp_path / "units.json")


class TestLock:
    def test_a_second_one_is_told_who_holds_it(self, tmp_path: Path) -> None:
        with state.locked(tmp_path, "mine"):
            assert state.lock_holder(tmp_path) == os.getpid()
            with pytest.raises(AlreadyUpError, match=rf"already up \(pid {os.getpid()}\)") as error:
                state.require_usable(tmp_path, "mine")
            assert "shoal down" in str(error.value.hint)
            with pytest.raises(AlreadyUpError), state.locked(tmp_path, "mine"):
                pass
        assert state.lock_holder(tmp_path) is None

    def test_it_is_free_after_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), state.locked(tmp_path, "mine"):
            raise ZeroDivisionError
        with state.locked(tmp_path, "mine"):
            pass

    def test_nobody_holds_what_is_not_there(self, tmp_path: Path) -> None:
        assert state.lock_holder(tmp_path / "nowhere") is None


class TestMemory:
    def test_what_is_remembered_is_there_again(self, tmp_path: Path) -> None:
        unit = UnitRecord(kind="redis", endpoint="127.0.0.1:7001", pid=7, started=1.5, role="master", epoch=3)
        with state.locked(tmp_path, "mine") as kept:
            kept.remember_ports({"a-1": 7001})
            kept.remember_units({"a-1": unit})
            kept.remember_identity(Identity(cluster="mine", parts={"a-1": "127.0.0.1:7001"}))
        assert state.load_ports(tmp_path) == {"a-1": 7001}
        assert state.load_units(tmp_path) == {"a-1": unit}
        assert (state.load_identity(tmp_path) or Identity(cluster="?")).parts == {"a-1": "127.0.0.1:7001"}

    def test_before_the_first_start_there_is_nothing(self, tmp_path: Path) -> None:
        assert state.load_ports(tmp_path) == {}
        assert state.load_units(tmp_path) == {}
        assert state.load_identity(tmp_path) is None


class TestEvents:
    def test_the_last_ones_are_read_back(self, tmp_path: Path) -> None:
        log = EventLog(tmp_path)
        for number in range(5):
            log.append(event(EventKind.STARTED, f"start {number}", "a-1"))
        assert [told.text for told in log.tail(2)] == ["start 3", "start 4"]
        assert mode(log.path) == 0o600

    def test_the_file_is_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events, "LIMIT", 1000)
        log = EventLog(tmp_path)
        for number in range(100):
            log.append(event(EventKind.NOTICE, f"{number}"))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2500
        assert [told.text for told in log.tail(3)] == ["97", "98", "99"]

    def test_a_line_cut_by_a_crash_is_passed_over(self, tmp_path: Path) -> None:
        log = EventLog(tmp_path)
        log.append(event(EventKind.NOTICE, "whole"))
        with log.path.open("a") as file:
            file.write('{"at": "20')
        assert [told.text for told in log.tail(5)] == ["whole"]

    def test_a_disk_that_is_full_is_no_error(self, tmp_path: Path) -> None:
        EventLog(tmp_path / "nowhere").append(event(EventKind.NOTICE, "lost"))
