"""nutcracker and our reading of its flags agree on what is taken, and say the same of what is not."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigError
from shoal.nutcracker.flags import parse_flags
from tests.harness import have

if TYPE_CHECKING:
    from pathlib import Path

TAKEN = [
    *("-h", "-D", "-t", "-hVtdD", "--hel", "--describe", "-c x", "-cx", "--conf x", "--conf-file=", "extra", "- x"),
    *("-v 0", "-v 12", "-v 011", "--verb=3", "-v 3 -v 4", "-s 1", "-s 65535", "--stats-p=1", "-a nonsense", "-i 0"),
    *("-m 512", "-m 16777216", "--mbuf-size 1024", "-p x", "--pid x", "-o x"),
]
REFUSED = [
    *("-Z", "-tZ", "-?", "-v", "--verbose", "--verb", "-v x", "-v -1", "-v +1", "-v=5", "-v 1.5", "-v 0x5", "-vv"),
    *("-s", "-s x", "-s 0", "-s 65536", "-i", "-i x", "-i 2147483648", "-m", "-m x", "-m 0", "-m 511", "-m 16777217"),
    *("-o", "--output", "-c", "-p", "-a", "--help=x", "-h -Z", "-s 0 -Z", "-Z -s 0", "-m 1 -c", "-v x -m 1"),
]
NAMELESS = ["--foo", "--ver", "--stats=3", "--s", "--v=3", "---"]
"""Long options that are unknown or unclear: nutcracker quotes a byte of 0, we what was written."""


@pytest.fixture(scope="module")
def program() -> Path:
    return have("nutcracker") or pytest.skip("no nutcracker: `make test` installs it as root on Debian")


def theirs(program: Path, argv: list[str]) -> str | None:
    """What nutcracker says is wrong; with -V it ends at once in any case."""
    done = subprocess.run([program, "-V", *argv], capture_output=True, timeout=30, check=False)
    first = done.stderr.decode().partition("\n")[0]
    assert (done.returncode == 0) == first.startswith("This is nutcracker")
    return None if done.returncode == 0 else first.removeprefix("nutcracker: ")


def ours(argv: list[str]) -> str | None:
    try:
        parse_flags(argv)
    except ConfigError as error:
        return error.what
    return None


@pytest.mark.parametrize("line", TAKEN)
def test_what_nutcracker_takes(program: Path, line: str) -> None:
    assert ours(line.split()) is None
    assert theirs(program, line.split()) is None


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_wrong_is_said_in_the_same_words(program: Path, line: str) -> None:
    said = ours(line.split())
    assert said is not None
    assert said == theirs(program, line.split())


@pytest.mark.parametrize("line", NAMELESS)
def test_a_long_option_that_nutcracker_has_no_name_for(program: Path, line: str) -> None:
    assert theirs(program, line.split()) == "invalid option -- '\0'"
    assert str(ours(line.split())).startswith("invalid option -- '")
