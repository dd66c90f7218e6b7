"""The flags of nutcracker's command line, and Shoal's own after them, declared once, and what reads them.

Rule: what nutcracker takes is taken and what it refuses is refused, in its own words (without the program's name in
front); abbreviations, order and arguments that are no flags are as getopt_long has them. Where its count would
overflow, ours says so. Shoal's own flags have no letter, and begin with none that a long one of nutcracker's begins
with. Exit codes and output are the caller's. Called by the command that stands in for nutcracker.
"""

import contextlib
import getopt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shoal.errors import ConfigError
from shoal.nutcracker.kinds import MOST, digits
from shoal.topology.values import MAX_PORT, Endpoint, closest

MOST_VERBOSE: Final = 11
MBUF_BYTES: Final = (512, 16 << 20)
MOST_WORKERS: Final = 256


@dataclass(frozen=True, slots=True)
class Flags:
    """A command line. `given` has the long names of the flags that stood in it; the others have their defaults."""

    help: bool
    version: bool
    test_conf: bool
    daemonize: bool
    describe_stats: bool
    verbose: int
    output: str
    conf_file: str
    stats_port: int
    stats_addr: str
    stats_interval: int
    pid_file: str
    mbuf_size: int
    admin: Endpoint | None
    workers: int | None
    given: frozenset[str]


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `needs` is what its value must be; a flag without one is a switch, one without `short` is Shoal's."""

    short: str
    long: str
    help: str
    default: Any = False
    metavar: str = ""
    needs: str = ""
    read: Callable[["Flag", str], Any] = lambda _, text: text
    note: str = ""

    @property
    def attribute(self) -> str:
        return self.long.replace("-", "_")

    @property
    def word(self) -> str:
        """How messages call it."""
        return f"-{self.short}" if self.short else f"--{self.long}"

    def lacks(self, hint: str | None = None) -> ConfigError:
        return ConfigError(f"option {self.word} requires {self.needs}", hint=hint)


def _number(flag: Flag, text: str) -> int:
    value = digits(text)
    if value is None or value > MOST:
        raise flag.lacks()
    return value


def _level(flag: Flag, text: str) -> int:
    value = digits(text)
    if value is None:
        raise flag.lacks()
    return min(value, MOST_VERBOSE)


def _port(flag: Flag, text: str) -> int:
    value = digits(text)
    if value is None:
        raise flag.lacks()
    if not 1 <= value <= MAX_PORT:
        raise ConfigError(f"option {flag.word} value {text} is not a valid port", hint=f"from 1 to {MAX_PORT}")
    return value


def _mbuf(flag: Flag, text: str) -> int:
    value, (least, most) = digits(text), MBUF_BYTES
    if not value:
        raise ConfigError(f"option {flag.word} requires a non-zero number")
    if not least <= value <= most:
        raise ConfigError(f"mbuf chunk size must be between {least} and {most} bytes")
    return value


def _endpoint(flag: Flag, text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except ValueError as error:
        raise flag.lacks(str(error)) from None


def _workers(flag: Flag, text: str) -> int:
    value = digits(text)
    if not value or value > MOST_WORKERS:
        raise flag.lacks()
    return value


_TABLE = (
    Flag("h", "help", "print this and exit"),
    Flag("V", "version", "print the version and exit"),
    Flag("t", "test-conf", "check the file and exit: 0 if it is right, 1 if not"),
    Flag("d", "daemonize", "go on in the background"),
    Flag("D", "describe-stats", "say what each figure of the stats means, and exit"),
    Flag("v", "verbose", "how much to log, from 0 to 11", 5, "N", "a number", _level),
    Flag("o", "output", "where to log", "/var/log/nutcracker/nutcracker.log", "S", "a file name"),
    Flag("c", "conf-file", "the file with the pools", "/etc/nutcracker/nutcracker.yml", "S", "a file name"),
    Flag("s", "stats-port", "where the stats are served", 22222, "N", "a number", _port),
    Flag("a", "stats-addr", "the address they are served on", "0.0.0.0", "S", "a string"),
    Flag(
        *("i", "stats-interval", "milliseconds between two sums of the stats", 30000, "N", "a number", _number),
        note="Checked, and then ignored: the figures are always those of the moment.",
    ),
    Flag(
        *("p", "pid-file", "where a daemon writes its number", "/run/nutcracker/nutcracker.pid", "S", "a file name"),
        note="Used with `-d` only.",
    ),
    Flag(
        *("m", "mbuf-size", "bytes in a buffer, from 512 to 16777216", 16384, "N", "a number", _mbuf),
        note="Checked, and then ignored: Shoal's buffers grow by themselves.",
    ),
    Flag(
        *("", "admin", "serve /healthz, /readyz and the state by HTTP there", None),
        *("HOST:PORT", "an address and a port", _endpoint),
        note="Shoal's own.",
    ),
    Flag(
        *("", "workers", "threads that serve requests; by default one for each CPU", None),
        *("N", f"a number from 1 to {MOST_WORKERS}", _workers),
        note="Shoal's own.",
    ),
)

FLAGS: Final = {flag.long: flag for flag in _TABLE}
_BY_OPTION: Final = {flag.word: flag for flag in _TABLE} | {f"--{flag.long}": flag for flag in _TABLE}


def parse_flags(argv: Sequence[str]) -> Flags:
    """Read the arguments after the program's name; ConfigError if nutcracker would take them for wrong."""
    try:
        return _flags(_options(argv))
    except getopt.GetoptError as error:
        _check_before(argv)
        raise _wrong(error) from None


def _options(argv: Sequence[str]) -> list[tuple[str, str]]:
    short = "".join(flag.short + (":" if flag.needs else "") for flag in _TABLE if flag.short)
    long = [flag.long + ("=" if flag.needs else "") for flag in _TABLE]
    return getopt.gnu_getopt(list(argv), short, long)[0]


def _check_before(argv: Sequence[str]) -> None:
    """Raise for a wrong value that stands before a wrong option: nutcracker stops at the first of both."""
    for end in range(len(argv) - 1, 0, -1):
        with contextlib.suppress(getopt.GetoptError):
            _flags(_options(argv[:end]))
            return


def _flags(options: list[tuple[str, str]]) -> Flags:
    values: dict[str, Any] = {flag.attribute: flag.default for flag in _TABLE}
    for option, text in options:
        flag = _BY_OPTION[option]
        values[flag.attribute] = flag.read(flag, text) if flag.needs else True
    return Flags(**values, given=frozenset(_BY_OPTION[option].long for option, _ in options))


def _wrong(error: getopt.GetoptError) -> ConfigError:
    """What nutcracker says; it has no words for a long option that it does not know."""
    dashes = "--" if error.msg.startswith("option --") else "-"
    flag = _BY_OPTION.get(f"{dashes}{error.opt}")
    if flag is not None:
        return (
            flag.lacks() if flag.needs else ConfigError(f"invalid option -- '{flag.short}'", hint="it takes no value")
        )
    if dashes == "-":
        return ConfigError(f"invalid option -- '{error.opt}'")
    meant = [f"--{name}" for name in FLAGS if name.startswith(error.opt)] or closest(error.opt, FLAGS)
    hint = (
        f"did you mean --{meant}?" if isinstance(meant, str) else f"it may be {' or '.join(meant)}" if meant else None
    )
    return ConfigError(f"invalid option -- '{error.opt}'", hint=hint)
