"""`shoal-nutcracker`: nutcracker's command with nutcracker's flags, file, signals and exit codes, and Shoal behind it.

    flags ──► -h -V -D    said, exit 0
          ├─► -t          the file is judged, exit 0 or 1
          └─► serve       log ─► file ─► (with -d: background) ─► daemon
                          HUP the log is opened again   TTIN TTOU one level more or less   USR1 USR2 nothing
                          INT ends at once, exit 1      TERM finishes what is in flight, exit 0

Rule: what a script, a unit file or logrotate can see is as nutcracker 0.5.0 has it; all talk goes to stderr, and an
error is exit 1. Where it is better to know, more is said: the reasons of a refusal; with -d a start that fails, on the
terminal. TERM drains because requests in flight are clients' errors otherwise. The differences stand, with their
reasons, in tests/compat/test_nutcracker_command.py.
"""

import contextlib
import signal
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from shoal import background, nutcracker
from shoal.background import PidFile, Waiting
from shoal.cli.printer import Printer
from shoal.errors import ConfigError, ShoalError
from shoal.log import Log
from shoal.nutcracker.flags import FLAGS, Flags, parse_flags
from shoal.nutcracker.model import RELEASE
from shoal.nutcracker.reference import flag_rows, key_rows
from shoal.serving import Ports, Service, of_nutcracker
from shoal.topology import Endpoint

FAILED = 1
START_PATIENCE = 10.0
HELP_WIDTH = 100
TERM_WIDTH = 24


def run(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit status; errors are already printed."""
    printer = Printer()
    try:
        flags = parse_flags(arguments)
    except ConfigError as error:
        printer.talk(f"nutcracker: {error.what}" + (f" ({error.hint})" if error.hint else ""))
        _talk(printer, _usage())
        return FAILED
    if flags.help or flags.version or flags.describe_stats:
        _describe(printer, flags)
        return 0
    return _test(printer, flags) if flags.test_conf else _start(printer, flags)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


# ------------------------------------------------------------------------------------------------------- said and done


def _describe(printer: Printer, flags: Flags) -> None:
    from shoal.stats import describe

    printer.talk(f"This is nutcracker-{RELEASE}")
    printer.talk("async event backend: epoll")
    printer.talk(f"Shoal {version('shoal')}, in nutcracker's place")
    printer.talk()
    if flags.help:
        _talk(printer, _usage())
        _talk(printer, _keys())
    if flags.describe_stats:
        _talk(printer, describe())


def _talk(printer: Printer, lines: Iterator[str]) -> None:
    for line in lines:
        printer.talk(line)


def _usage() -> Iterator[str]:
    switches = "".join(flag.short for flag in FLAGS.values() if not flag.needs)
    values = [f"[{flag.word}{' ' if flag.short else '='}{flag.metavar}]" for flag in FLAGS.values() if flag.needs]
    yield from _wrapped("Usage: shoal-nutcracker ", " ".join([f"[-{switches}]", *values]))
    yield ""
    yield "Options:"
    yield from _listed(flag_rows())


def _keys() -> Iterator[str]:
    yield "Keys of a pool in the file:"
    yield from _listed(key_rows())


def _listed(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in rows:
        yield from _wrapped(f"  {term:{TERM_WIDTH}} ", meaning)
    yield ""


def _wrapped(start: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, HELP_WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
    )


def _test(printer: Printer, flags: Flags) -> int:
    try:
        nutcracker.load(Path(flags.conf_file))
    except ConfigError as error:
        _say_invalid(printer, flags, error)
        return FAILED
    printer.talk(f"nutcracker: configuration file '{flags.conf_file}' syntax is ok")
    return 0


def _say_invalid(printer: Printer, flags: Flags, error: ConfigError) -> None:
    printer.error(error)
    printer.talk(f"nutcracker: configuration file '{flags.conf_file}' syntax is invalid")


# ------------------------------------------------------------------------------------------------------------- serving


def _start(printer: Printer, flags: Flags) -> int:
    """Open the log first, as nutcracker does, so that what follows is in it."""
    try:
        log = StartLog(file=Path(flags.output) if flags.output else None, verbosity=flags.verbose)
    except ConfigError as error:
        printer.error(error)
        return FAILED
    with contextlib.closing(log):
        return _read_and_serve(printer, flags, log)


def _read_and_serve(printer: Printer, flags: Flags, log: "StartLog") -> int:
    """Whatever can be known before a fork is known on the terminal."""
    ports = Ports(flags.admin, Endpoint(flags.stats_addr, flags.stats_port), flags.workers)
    load = partial(_load, Path(flags.conf_file), ports)
    try:
        service = load()
    except ConfigError as error:
        _note_failure(log, flags, error)
        _say_invalid(printer, flags, error)
        return FAILED
    _note_ignored(log, flags)
    if not flags.daemonize:
        return _serve(service, log, load, lambda error: _failed_here(printer, log, flags, error))
    outcome = background.start(lambda waiting: _serve_apart(service, log, load, flags, waiting), START_PATIENCE)
    if outcome.text:
        printer.talk(outcome.text)
    return outcome.code


def _load(path: Path, ports: Ports) -> Service:
    return of_nutcracker(nutcracker.load(path), socket.gethostname(), ports, str(path))


class StartLog(Log):
    """A log that also tells when the proxy serves, which it is the first to know."""

    serving: Callable[[], None] = staticmethod(lambda: None)

    def event(self, name: str, **facts: object) -> None:
        super().event(name, **facts)
        if name == "proxy_started":
            self.serving()


def _serve_apart(service: Service, log: StartLog, load: Callable[[], Service], flags: Flags, waiting: Waiting) -> int:
    """In the background: the pid file is there before anybody stops waiting.

    Another's is left to it as long as this one may fail for that other's ports.
    """
    pid_file = PidFile(Path(flags.pid_file))

    def serving() -> None:
        pid_file.write()
        waiting.ready()

    def failed(error: ShoalError) -> None:
        _note_failure(log, flags, error)
        waiting.failed("\n".join(f"error: {single}" for single in error.each()))

    log.take_stderr()
    log.serving = serving
    try:
        if not pid_file.held():
            pid_file.write()
        return _serve(service, log, load, failed)
    except ConfigError as error:
        failed(error)
        return FAILED
    finally:
        pid_file.remove()


def _serve(service: Service, log: Log, load: Callable[[], Service], failed: Callable[[ShoalError], None]) -> int:
    from shoal import daemon

    signal.signal(signal.SIGTERM, _end)  # until the daemon has its own: what was made so far is removed
    try:
        daemon.serve(service, log, load, _handlers(log))
    except ShoalError as error:
        failed(error)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _handlers(log: Log) -> Mapping[signal.Signals, Callable[[], None]]:
    """What nutcracker's signals do here; TERM is left to the daemon, which drains."""

    def cut() -> NoReturn:
        log.event("proxy_cut")
        raise SystemExit(FAILED)

    idle = (signal.SIGUSR1, signal.SIGUSR2)
    return {
        signal.SIGHUP: log.reopen,
        signal.SIGTTIN: log.louder,
        signal.SIGTTOU: log.quieter,
        signal.SIGINT: cut,
        **{number: partial(log.event, "signal_ignored", signal=number.name) for number in idle},
    }


def _failed_here(printer: Printer, log: Log, flags: Flags, error: ShoalError) -> None:
    _note_failure(log, flags, error)
    printer.error(error)


def _note_failure(log: Log, flags: Flags, error: ShoalError) -> None:
    """In the log, unless that is the terminal, which is told anyway."""
    if not flags.output:
        return
    for single in error.each():
        facts = {"why": single.what, "at": single.where, "hint": single.hint}
        log.event("proxy_failed", **{name: fact for name, fact in facts.items() if fact})


def _note_ignored(log: Log, flags: Flags) -> None:
    without_effect = ["mbuf-size", "stats-interval", *([] if flags.daemonize else ["pid-file"])]
    for name in without_effect:
        if name in flags.given:
            log.event("flag_ignored", flag=FLAGS[name].word, why=FLAGS[name].note)


if __name__ == "__main__":
    main()
