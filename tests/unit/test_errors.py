"""What an error says, and what it makes the command exit with."""

from __future__ import annotations

import pytest

from shoal import errors
from shoal.errors import ConfigError, ShoalError


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = ShoalError("it broke", where="shoal.yaml:3:1 shards", hint="mend it")
    assert str(error) == "it broke\n  at: shoal.yaml:3:1 shards\n  hint: mend it"


def test_what_is_not_known_takes_no_line() -> None:
    assert str(ShoalError("it broke")) == "it broke"
    assert str(ShoalError("it broke", hint="mend it")) == "it broke\n  hint: mend it"


def test_an_error_is_one_error() -> None:
    error = ShoalError("it broke")
    assert list(error.each()) == [error]


def test_errors_together_keep_their_places() -> None:
    first, second = ConfigError("a", where="f:1:1"), ConfigError("b", hint="h")
    both = ConfigError.together([first, second])
    assert list(both.each()) == [first, second]
    assert str(both) == "2 problems in the topology\na\n  at: f:1:1\nb\n  hint: h"


def test_one_error_together_is_itself() -> None:
    alone = ConfigError.together([ConfigError("a", where="f:1:1", hint="h")])
    assert (alone.what, alone.where, alone.hint) == ("a", "f:1:1", "h")
    assert list(alone.each()) == [alone]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("ConfigError", 2),
        ("EngineError", 2),
        ("StateError", 2),
        ("PortInUseError", 2),
        ("ProcessError", 1),
        ("SentinelError", 1),
        ("SampleError", 1),
        ("PlaneError", 1),
    ],
)
def test_bad_input_exits_with_2_and_failure_with_1(error: str, code: int) -> None:
    kind = getattr(errors, error)
    assert issubclass(kind, ShoalError)
    assert kind("what").exit_code == code


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {line.split()[1] for line in (errors.__doc__ or "").splitlines() if line.strip().startswith(("├", "└"))}
    real = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ShoalError)}
    assert drawn == real - {"ShoalError"}
