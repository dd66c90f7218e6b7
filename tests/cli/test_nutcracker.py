"""`shoal-nutcracker`: what it prints, exits with, and asks the daemon to serve. tests/compat runs the real one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from inline_snapshot import snapshot

from shoal.errors import PortInUseError
from shoal.serving import AtAddresses
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.log import Log
    from shoal.serving import Service
    from tests.cli.conftest import Daemon, Handlers

    Nutcracker = Callable[..., str]

FILE = Path("ok.yml")
GOOD = """\
main:
  listen: 127.0.0.1:22121
  redis: true
  redis_auth: s3cret
  servers:
   - 127.0.0.1:6379:1 shard1
"""
BAD = GOOD.replace("redis: true", "redis: maybe").replace("22121", "0")


@pytest.fixture(autouse=True)
def files(run_there: object, daemon: Daemon) -> None:
    """A good and a bad file, where commands run."""
    FILE.write_text(GOOD)
    Path("bad.yml").write_text(BAD)


# ------------------------------------------------------------------------------------------------------- said and done


def test_version(nutcracker: Nutcracker) -> None:
    assert nutcracker("-V") == snapshot("""\
exit 0
--- stderr
This is nutcracker-0.5.0
async event backend: epoll
Shoal 0.1.0, in nutcracker's place

""")


def test_help(nutcracker: Nutcracker) -> None:
    assert nutcracker("-h") == snapshot("""\
exit 0
--- stderr
This is nutcracker-0.5.0
async event backend: epoll
Shoal 0.1.0, in nutcracker's place

Usage: shoal-nutcracker [-hVtdD] [-v N] [-o S] [-c S] [-s N] [-a S] [-i N] [-p S] [-m N]
                        [--admin=HOST:PORT] [--workers=N]

Options:
  -h, --help               print this and exit
  -V, --version            print the version and exit
  -t, --test-conf          check the file and exit: 0 if it is right, 1 if not
  -d, --daemonize          go on in the background
  -D, --describe-stats     say what each figure of the stats means, and exit
  -v, --verbose=N          how much to log, from 0 to 11 (default: 5)
  -o, --output=S           where to log (default: /var/log/nutcracker/nutcracker.log)
  -c, --conf-file=S        the file with the pools (default: /etc/nutcracker/nutcracker.yml)
  -s, --stats-port=N       where the stats are served (default: 22222)
  -a, --stats-addr=S       the address they are served on (default: 0.0.0.0)
  -i, --stats-interval=N   milliseconds between two sums of the stats (default: 30000). Checked, and
                           then ignored: the figures are always those of the moment.
  -p, --pid-file=S         where a daemon writes its number (default:
                           /run/nutcracker/nutcracker.pid). Used with `-d` only.
  -m, --mbuf-size=N        bytes in a buffer, from 512 to 16777216 (default: 16384). Checked, and
                           then ignored: Shoal's buffers grow by themselves.
  --admin=HOST:PORT        serve /healthz, /readyz and the state by HTTP there. Shoal's own.
  --workers=N              threads that serve requests; by default one for each CPU. Shoal's own.

Keys of a pool in the file:
  listen                   Where clients connect: an address and port, or a unix socket and its
                           mode. (required)
  client_connections       How many clients may be connected at once; 0 is no limit. (default: 0)
  hash                     Which hash of the key. (default: fnv1a_64)
  hash_tag                 Two characters: only what stands between them in a key is hashed. (none)
  distribution             How a hash finds its server. (default: ketama)
  timeout                  How long a request waits for its server; 0 is for ever. (default: 0)
  backlog                  How many connections the kernel may keep waiting to be accepted.
                           (default: 512)
  tcpkeepalive             Ask the kernel to probe idle client connections. (default: false)
  reuseport                Let other processes listen on the same port. (default: false)
  preconnect               Open one connection to every server at the start. (default: false)
  redis                    The pool speaks Redis's protocol; it must be true. (default: false)
  redis_auth               The password that clients give and that the servers get. (none)
  redis_db                 The database that is selected on every server. (default: 0)
  server_connections       How many connections each server gets. (default: 1)
  auto_eject_hosts         A server that fails leaves the ring for a while, and its keys go to the
                           others. (default: false)
  server_retry_timeout     How long an ejected server stays out of the ring. (default: 30000)
  server_failure_limit     How many failures in a row eject a server. (default: 2)
  servers                  The shards. The name, or else the address without its weight, is the
                           place on the ring. (required)
  sentinels                The sentinels that say who is master; the pool then follows every
                           failover. (none)

""")


def test_what_is_described_comes_after_the_help(nutcracker: Nutcracker) -> None:
    transcript = nutcracker("-D", "-h", "-c", "bad.yml")
    heads = ["exit 0", "--- stderr", "This is nutcracker-0.5.0", "Usage: ", "Options:", "Keys of", "pool stats:"]
    places = [transcript.index(f"\n{head}") if head != "exit 0" else 0 for head in [*heads, "server stats:"]]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("arguments", "transcript"),
    [
        (
            ["-t", "-c", "ok.yml"],
            snapshot("""\
exit 0
--- stderr
nutcracker: configuration file 'ok.yml' syntax is ok
"""),
        ),
        (
            ["-t", "-c", "bad.yml"],
            snapshot("""\
exit 1
--- stderr
error: directive "listen" has an invalid port in "hostname:port" format string
  at: bad.yml:2:3 main.listen
  hint: a number from 1 to 65535
error: directive "redis" is not "true" or "false"
  at: bad.yml:3:3 main.redis
nutcracker: configuration file 'bad.yml' syntax is invalid
"""),
        ),
        (
            ["-t", "-c", "none.yml"],
            snapshot("""\
exit 1
--- stderr
error: there is no configuration file
  at: none.yml
  hint: give it with -c
nutcracker: configuration file 'none.yml' syntax is invalid
"""),
        ),
        (
            ["-t", "-c", "."],
            snapshot("""\
exit 1
--- stderr
error: the configuration cannot be read: Is a directory
  at: .
nutcracker: configuration file '.' syntax is invalid
"""),
        ),
        (
            ["-tc", "ok.yml", "-o", "/nonexistent/log", "-a", "nonsense"],
            snapshot("""\
exit 0
--- stderr
nutcracker: configuration file 'ok.yml' syntax is ok
"""),
        ),
    ],
)
def test_a_file_is_judged(arguments: list[str], transcript: str, nutcracker: Nutcracker) -> None:
    said = nutcracker(*arguments)
    assert said == transcript
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-x"], "nutcracker: invalid option -- 'x'"),
        (["-h", "-c"], "nutcracker: option -c requires a file name"),
        (["--stats=1"], "nutcracker: invalid option -- 'stats' (it may be --stats-port or --stats-addr or"),
        (["-s", "0"], "nutcracker: option -s value 0 is not a valid port (from 1 to 65535)"),
        (["-m", "1"], "nutcracker: mbuf chunk size must be between 512 and 16777216 bytes"),
        (["--admin=x"], 'nutcracker: option --admin requires an address and a port ("x" has no port)'),
    ],
)
def test_a_wrong_flag_is_said_before_the_usage(arguments: list[str], message: str, nutcracker: Nutcracker) -> None:
    transcript = nutcracker(*arguments)
    assert transcript.startswith(f"exit 1\n--- stderr\n{message}")
    assert "\nUsage: shoal-nutcracker [-hVtdD] [-v N]" in transcript
    assert "Keys of" not in transcript


# ------------------------------------------------------------------------------------------------------------- serving


def test_the_defaults_are_debian_s(nutcracker: Nutcracker, daemon: Daemon) -> None:
    assert nutcracker("-c", "ok.yml", "-o", "log") == "exit 0\n"
    (service,) = daemon.services
    assert (service.stats, service.admin, service.workers) == (Endpoint("0.0.0.0", 22222), None, None)
    assert [pool.name for pool in service.pools] == ["main"]
    assert service.pools[0].source == AtAddresses({"shard1": Endpoint("127.0.0.1", 6379)})


def test_flags_say_where_it_can_be_asked(nutcracker: Nutcracker, daemon: Daemon) -> None:
    ours = ("--admin=127.0.0.1:7", "--workers=3")
    nutcracker("-c", "ok.yml", "-o", "log", "-s", "5", "-a", "localhost", *ours)
    (service,) = daemon.services
    assert (service.stats, service.admin, service.workers) == (Endpoint("localhost", 5), Endpoint("127.0.0.1", 7), 3)


def test_the_file_can_be_read_again(nutcracker: Nutcracker, daemon: Daemon) -> None:
    read: list[Service] = []

    def act(_log: Log, load: Callable[[], Service], _handlers: Any) -> None:
        FILE.write_text(GOOD.replace("main", "other"))
        read.append(load())

    daemon.act = act
    nutcracker("-c", "ok.yml", "-o", "log")
    assert [pool.name for pool in read[0].pools] == ["other"]


def test_flags_without_effect_are_logged(nutcracker: Nutcracker) -> None:
    nutcracker("-c", "ok.yml", "-o", "log", "-m", "512", "-i", "100", "-p", "pid", "-v", "6")
    lines = Path("log").read_text().splitlines()
    assert [line.partition("flag=")[2][:2] for line in lines] == ["-m", "-i", "-p"]
    assert all("flag_ignored" in line and "why=" in line for line in lines)
    assert not Path("pid").exists()


def test_a_file_that_cannot_be_served_is_said_on_the_terminal_and_in_the_log(nutcracker: Nutcracker) -> None:
    transcript = nutcracker("-c", "bad.yml", "-o", "log")
    assert transcript == nutcracker("-t", "-c", "bad.yml")
    lines = Path("log").read_text().splitlines()
    assert len(lines) == 2
    assert all("proxy_failed" in line and "bad.yml:" in line for line in lines)


def test_a_log_that_cannot_be_opened_ends_it(nutcracker: Nutcracker, daemon: Daemon) -> None:
    for more in ([], ["-d"]):
        assert nutcracker("-c", "ok.yml", "-o", "/nonexistent/log", *more) == snapshot("""\
exit 1
--- stderr
error: opening log file '/nonexistent/log' failed: No such file or directory
  hint: it must be a file that this user may write, in a directory that is there
""")
    assert daemon.services == []


@pytest.mark.parametrize("output", ["log", ""])
def test_a_taken_port_is_said_on_the_terminal_and_in_the_log(
    output: str, nutcracker: Nutcracker, daemon: Daemon
) -> None:
    def act(_log: Log, _load: Any, _handlers: Any) -> None:
        raise PortInUseError("it cannot listen", where="127.0.0.1:22121", hint="another port")

    daemon.act = act
    assert nutcracker("-c", "ok.yml", "-o", output) == snapshot("""\
exit 1
--- stderr
error: it cannot listen
  at: 127.0.0.1:22121
  hint: another port
""")
    if output:
        assert "proxy_failed" in Path(output).read_text()


def test_signals_do_what_nutcracker_s_do(nutcracker: Nutcracker, daemon: Daemon) -> None:
    def act(log: Log, _load: Any, handlers: Handlers) -> None:
        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2):
            handlers[number]()
        Path("log").rename("log.1")
        handlers[signal.SIGHUP]()
        log.event("lease_broken")
        handlers[signal.SIGINT]()

    daemon.act = act
    assert nutcracker("-c", "ok.yml", "-o", "log") == "exit 1\n"
    expected = {
        "log.1": ["verbosity=6", "verbosity=5", "signal=SIGUSR1", "signal=SIGUSR2"],
        "log": ["log_reopened", "lease_broken", "proxy_cut"],
    }
    for name, words in expected.items():
        lines = Path(name).read_text().splitlines()
        assert all(word in line for word, line in zip(words, lines, strict=True))


@pytest.fixture
def heeds_int() -> Iterator[None]:
    """INT as in a terminal: a shell's background job, as this run may be, ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_int")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_signal_before_the_daemon_has_its_own_ends_it(
    number: signal.Signals, status: int, nutcracker: Nutcracker, daemon: Daemon
) -> None:
    daemon.act = lambda *_: signal.raise_signal(number)
    assert nutcracker("-c", "ok.yml", "-o", "log") == f"exit {status}\n"
