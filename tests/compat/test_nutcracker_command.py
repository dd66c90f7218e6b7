"""`shoal-nutcracker` beside `nutcracker`: the same arguments, files and signals, and what a script sees of both.

A test that takes `command` runs on each of the two: what it asserts is what they have in common. A test that takes
`nutcracker` and `shoal` asserts what differs, and DIFFERENCES says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.compat.numbered import NumberedServers, bulk
from tests.harness import LOOPBACK, free_port, have, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

DIFFERENCES = {
    "reasons": "-t says what is wrong before its verdict, given once; nutcracker repeats its own and gives no reason",
    "describe": "the sentences of -h and -D are our own: they say what ours does and counts, and come from its tables",
    "more counted": "our figures come after nutcracker's in each server",
    "fragments": "nutcracker 0.5.0 never counts them",
    "a failed start": "with -d nutcracker has gone before it knows; ours waits until it serves, and tells the terminal",
    "why it failed": "in the foreground ours says it on the terminal too, not only in the log",
    "the other's pid file": "nutcracker removes a running daemon's when a second start fails; ours leaves it alone",
    "a pid file stays": "a stale number is somebody else's some day: ours goes with its process",
    "TERM": "nutcracker dies of it, clients' requests with it; ours finishes what is in flight and exits with 0",
}

THEIRS, OURS = "nutcracker", "shoal-nutcracker"
CONFIG = """\
p:
  listen: 127.0.0.1:{listen}
  redis: true
  servers:
   - 127.0.71.1:{server}:1 one
   - 127.0.71.2:{server}:1 two
"""
KEYS = [f"{number * number * 7919}:key" for number in range(50)]  # on both servers
SIGNALLED = 5.0


class Ended(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


@dataclass
class Command:
    """One of the two programs, in a directory of its own, and all it has started there."""

    name: str
    argv: list[str]
    directory: Path
    listen: int = field(default_factory=free_port)
    stats: int = field(default_factory=free_port)
    server: int = 1
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    daemons: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.configure(self.server)
        self.path("bad.yml").write_text(self.path("ok.yml").read_text().replace("redis: true", "redis: maybe"))

    def configure(self, server: int) -> None:
        self.path("ok.yml").write_text(CONFIG.format(listen=self.listen, server=server))

    def path(self, name: str) -> Path:
        return self.directory / name

    def text(self, name: str = "log") -> str:
        return self.path(name).read_text(errors="replace") if self.path(name).exists() else ""

    def run(self, *arguments: str) -> Ended:
        """One that ends by itself."""
        done = subprocess.run(
            [*self.argv, *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def serving(self, *more: str) -> list[str]:
        """The arguments to serve the good file with."""
        return ["-c", "ok.yml", "-a", LOOPBACK, "-s", str(self.stats), "-o", "log", *more]

    def launch(self, *more: str) -> subprocess.Popen[bytes]:
        """Serve in the foreground; it serves when this returns."""
        child = subprocess.Popen(
            [*self.argv, *self.serving(*more)],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.children.append(child)
        self.wait_until_it_serves()
        return child

    def daemonize(self, *more: str) -> int:
        """Serve in the background; its pid."""
        assert self.run("-d", *self.serving("-p", "pid", *more)) == (0, "", "")
        wait_until(lambda: self.text("pid").isdigit(), 10, "the pid file")
        self.daemons.append(int(self.text("pid")))
        self.wait_until_it_serves()
        return self.daemons[-1]

    def wait_until_it_serves(self) -> None:
        def serves() -> bool:
            for port in (self.listen, self.stats):
                socket.create_connection((LOOPBACK, port), timeout=1).close()
            return True

        wait_until(serves, 10, f"{self.name} to serve; its log: {self.text()}")

    def kill(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        for pid in self.daemons:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def nutcracker(tmp_path: Path) -> Iterator[Command]:
    program = have(THEIRS) or pytest.skip("no nutcracker: `make test` installs it as root on Debian")
    command = Command(THEIRS, [str(program)], tmp_path / THEIRS)
    yield command
    command.kill()


@pytest.fixture
def shoal(tmp_path: Path) -> Iterator[Command]:
    command = Command(OURS, [sys.executable, "-m", "shoal.cli.nutcracker"], tmp_path / OURS)
    yield command
    command.kill()


@pytest.fixture(params=[THEIRS, OURS])
def command(request: pytest.FixtureRequest) -> Command:
    """Each of the two in turn."""
    found: Command = request.getfixturevalue({THEIRS: "nutcracker", OURS: "shoal"}[request.param])
    return found


@pytest.fixture
def servers() -> Iterator[int]:
    """The port of two servers, on 127.0.71.1 and .2, that answer every GET."""
    port = free_port()
    with NumberedServers({number: (f"127.0.71.{number + 1}", port) for number in range(2)}):
        yield port


def read_line(port: int) -> bytes:
    """What a statistics port says."""
    with socket.create_connection((LOOPBACK, port), timeout=5) as connection, connection.makefile("rb") as said:
        return said.read()


def get(port: int, *keys: str) -> None:
    with socket.create_connection((LOOPBACK, port), timeout=5) as client, client.makefile("rb") as replies:
        for key in keys:
            client.sendall(b"*2\r\n" + bulk(b"GET") + bulk(key.encode()))
            assert replies.readline() == b"$1\r\n"
            replies.readline()


# ------------------------------------------------------------------------------------------------------- said and done


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["-t", "-c", "ok.yml"], 0, "configuration file 'ok.yml' syntax is ok"),
        (["-tc", "ok.yml", "-o", "/nonexistent/log", "-a", "nonsense"], 0, "configuration file 'ok.yml' syntax is ok"),
        (["--test-conf", "--conf-file=ok.yml"], 0, "configuration file 'ok.yml' syntax is ok"),
        (["-t", "-c", "bad.yml", "-c", "ok.yml"], 0, "configuration file 'ok.yml' syntax is ok"),
        (["-t", "-c", "bad.yml"], 1, "configuration file 'bad.yml' syntax is invalid"),
        (["-t", "-c", "none.yml"], 1, "configuration file 'none.yml' syntax is invalid"),
        (["-t", "-c", "."], 1, "configuration file '.' syntax is invalid"),
        (["-t", "-c", ""], 1, "configuration file '' syntax is invalid"),
        (["-t", "-d", "-p", "pid", "-c", "ok.yml"], 0, "configuration file 'ok.yml' syntax is ok"),
    ],
)
def test_a_file_is_judged(arguments: list[str], status: int, said: str, command: Command) -> None:
    before = sorted(command.directory.iterdir())
    ended = command.run(*arguments)
    assert (ended.status, ended.out, ended.lines[-1]) == (status, "", f"nutcracker: {said}")
    assert sorted(command.directory.iterdir()) == before, "a test writes nothing"


def test_reasons_stand_before_the_verdict(nutcracker: Command, shoal: Command) -> None:
    theirs, ours = (each.run("-t", "-c", "bad.yml").lines for each in (nutcracker, shoal))
    assert theirs == ["nutcracker: configuration file 'bad.yml' syntax is invalid"] * 2, DIFFERENCES["reasons"]
    assert ours[0] == 'error: directive "redis" is not "true" or "false"', DIFFERENCES["reasons"]
    assert ours.count(theirs[0]) == 1


@pytest.mark.parametrize(
    "arguments", [["-V"], ["--version"], ["-V", "-t", "-c", "bad.yml"], ["-h"], ["-D"], ["-D", "-h"], ["-d", "-V"]]
)
def test_what_is_only_said_is_said_on_stderr_and_exits_with_0(arguments: list[str], command: Command) -> None:
    ended = command.run(*arguments)
    assert (ended.status, ended.out) == (0, "")
    assert ended.lines[:2] == ["This is nutcracker-0.5.0", "async event backend: epoll"]


@pytest.mark.parametrize("arguments", [["-x"], ["-c"], ["-s", "0"], ["-m", "1"], ["-h", "-x"], ["-V", "-v", "x"]])
def test_a_wrong_flag_is_said_before_the_usage(arguments: list[str], nutcracker: Command, shoal: Command) -> None:
    theirs, ours = nutcracker.run(*arguments), shoal.run(*arguments)
    assert (theirs.status, theirs.out) == (ours.status, ours.out) == (1, "")
    assert ours.lines[0].partition(" (")[0] == theirs.lines[0]
    assert theirs.lines[1].startswith("Usage: nutcracker [-")
    assert ours.lines[1].startswith("Usage: shoal-nutcracker [-"), DIFFERENCES["describe"]


def options(text: str) -> list[str]:
    return re.findall(r"(?m)^  (-\w, --[\w-]+(?:=\w)?)", text)


def test_the_help_has_nutcracker_s_flags(nutcracker: Command, shoal: Command) -> None:
    theirs, ours = options(nutcracker.run("-h").err), options(shoal.run("-h").err)
    assert sorted(ours) == sorted(theirs), DIFFERENCES["describe"]


def figures(text: str) -> dict[str, list[str]]:
    """What -D describes, by section."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line in ("pool stats:", "server stats:"):
            found[line] = []
        elif found and line:
            described = re.fullmatch(r'  (\w+) +"[^"]+"', line)
            assert described, line
            assert line.index('"') == 22
            found[list(found)[-1]].append(described[1])
    return found


def test_d_describes_nutcracker_s_figures_first(nutcracker: Command, shoal: Command) -> None:
    theirs, ours = figures(nutcracker.run("-D").err), figures(shoal.run("-D").err)
    assert list(theirs) == list(ours)
    for section, names in theirs.items():
        assert ours[section][: len(names)] == names, DIFFERENCES["more counted"]


# ---------------------------------------------------------------------------------------------------------- the start


def test_a_log_that_cannot_be_opened_ends_it(command: Command) -> None:
    for more in ([], ["-d"]):
        ended = command.run("-c", "ok.yml", "-o", "/nonexistent/log", "-p", "pid", *more)
        assert (ended.status, ended.out) == (1, "")
        assert "opening log file '/nonexistent/log' failed: No such file or directory" in ended.lines[0]


def test_a_bad_file_ends_it(command: Command) -> None:
    ended = command.run(*command.serving("-c", "bad.yml"))
    assert (ended.status, ended.out) == (1, "")
    assert ended.lines[-1] == "nutcracker: configuration file 'bad.yml' syntax is invalid"
    assert 'directive "redis" is not "true" or "false"' in command.text()


@pytest.mark.parametrize("taken", ["listen", "stats"])
def test_a_taken_port_ends_it(taken: str, command: Command) -> None:
    with socket.create_server((LOOPBACK, getattr(command, taken))):
        ended = command.run(*command.serving())
    assert (ended.status, ended.out) == (1, "")
    assert "in use" in command.text()
    assert ("in use" in ended.err) == (command.name == OURS), DIFFERENCES["why it failed"]


@pytest.mark.parametrize("reason", ["bad.yml", "listen", "stats", "pid"])
def test_a_start_in_the_background_that_fails_is_told(reason: str, nutcracker: Command, shoal: Command) -> None:
    with contextlib.ExitStack() as held:
        statuses = []
        for each in (nutcracker, shoal):
            file = "bad.yml" if reason == "bad.yml" else "ok.yml"
            pid_file = "/nonexistent/pid" if reason == "pid" else "pid"
            if reason in ("listen", "stats"):
                held.enter_context(socket.create_server((LOOPBACK, getattr(each, reason))))
            ended = each.run("-d", *each.serving("-c", file, "-p", pid_file))
            statuses.append(ended.status)
            assert bool(ended.err) == (each is shoal)
            wait_until(each.text, 5, "the reason in the log")
            wait_until(lambda each=each: not each.path("pid").exists(), 5, "no pid file")  # type: ignore[misc]
    assert statuses == [0, 1], DIFFERENCES["a failed start"]


# --------------------------------------------------------------------------------------------------- the background


def test_a_daemon_has_no_terminal_and_stays_where_it_was_started(command: Command) -> None:
    pid = command.daemonize()
    process = Path(f"/proc/{pid}")
    parent, group, session, terminal = (process / "stat").read_text().rpartition(") ")[2].split()[1:5]
    assert (parent, terminal) == ("1", "0")
    assert session == group != str(pid)
    assert (process / "cwd").readlink() == command.directory
    assert {str((process / f"fd/{stream}").readlink()) for stream in range(2)} == {os.devnull}
    assert "Umask:\t0000" in (process / "status").read_text()
    assert stat.S_IMODE(command.path("log").stat().st_mode) == 0o644


def test_a_daemon_answers_as_soon_as_the_terminal_is_free(shoal: Command, servers: int) -> None:
    shoal.configure(servers)
    assert shoal.run("-d", *shoal.serving("-p", "pid")).status == 0
    shoal.daemons.append(int(shoal.text("pid")))
    get(shoal.listen, "key")
    assert json.loads(read_line(shoal.stats))["service"] == "nutcracker"


def test_the_pid_file_has_the_daemon_s_digits_only(command: Command) -> None:
    command.path("pid").write_text("something older and longer\n")
    pid = command.daemonize()
    assert command.path("pid").read_bytes() == str(pid).encode()
    assert stat.S_IMODE(command.path("pid").stat().st_mode) == 0o644


def test_in_the_foreground_there_is_no_pid_file(command: Command) -> None:
    command.launch("-p", "pid")
    assert not command.path("pid").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_pid_file_goes_with_the_process(number: int, nutcracker: Command, shoal: Command) -> None:
    for each in (nutcracker, shoal):
        pid = each.daemonize()
        os.kill(pid, number)
        wait_until(lambda pid=pid: not alive(pid), SIGNALLED, f"{each.name} to end")  # type: ignore[misc]
        assert each.path("pid").exists() == (each is nutcracker), DIFFERENCES["a pid file stays"]


def test_a_second_start_leaves_the_first_one_s_pid_file(nutcracker: Command, shoal: Command) -> None:
    for each in (nutcracker, shoal):
        pid = each.daemonize()
        each.run("-d", *each.serving("-p", "pid"))
        if each is nutcracker:
            wait_until(lambda: not nutcracker.path("pid").exists(), 5, DIFFERENCES["the other's pid file"])
        else:
            assert each.text("pid") == str(pid), DIFFERENCES["the other's pid file"]
        assert alive(pid)


# ------------------------------------------------------------------------------------------------------------- signals


def test_hup_opens_the_log_again(command: Command) -> None:
    child = command.launch()
    command.path("log").rename(command.path("log.1"))
    child.send_signal(signal.SIGHUP)
    wait_until(lambda: command.path("log").exists(), SIGNALLED, "a new log")
    assert stat.S_IMODE(command.path("log").stat().st_mode) == 0o644
    assert child.poll() is None


def test_hup_opens_a_daemon_s_log_again(command: Command) -> None:
    pid = command.daemonize()
    command.path("log").rename(command.path("log.1"))
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: command.path("log").exists(), SIGNALLED, "a new log")
    assert alive(pid)


def test_ttin_and_ttou_turn_the_level(command: Command) -> None:
    child = command.launch()
    levels: list[int] = []
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU):
        before = len(command.text())
        child.send_signal(number)
        said = re.compile(r"(?:level to |verbosity=)(\d+)")
        found = wait_until(lambda: said.findall(command.text()[before:]), SIGNALLED, "the new level")  # noqa: B023
        levels += map(int, found)
    assert levels == [6, 5, 4]


def test_usr1_and_usr2_change_nothing(command: Command) -> None:
    child = command.launch()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        child.send_signal(number)
        wait_until(lambda number=number: number.name in command.text(), SIGNALLED, "a line")  # type: ignore[misc]
    command.wait_until_it_serves()
    assert child.poll() is None


def test_int_ends_it_at_once(command: Command) -> None:
    child = command.launch()
    with socket.create_connection((LOOPBACK, command.listen)) as client:
        begun = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.wait(SIGNALLED) == 1
        assert time.monotonic() - begun < 1
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_term_ends_it(nutcracker: Command, shoal: Command) -> None:
    statuses = []
    for each in (nutcracker, shoal):
        child = each.launch()
        child.send_signal(signal.SIGTERM)
        statuses.append(child.wait(SIGNALLED))
    assert statuses == [-signal.SIGTERM, 0], DIFFERENCES["TERM"]


# ----------------------------------------------------------------------------------------------------------- the stats


def maps(told: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The header, each pool and each server."""
    yield "", told
    for name, inside in told.items():
        if isinstance(inside, dict):
            yield from ((f"{name}.{path}", found) for path, found in maps(inside))


def scalars(of: dict[str, Any]) -> list[str]:
    return [name for name, value in of.items() if not isinstance(value, dict)]


def test_the_stats_have_nutcracker_s_names_and_numbers_after_the_same_traffic(
    nutcracker: Command, shoal: Command, servers: int
) -> None:
    told: list[dict[str, Any]] = []
    for each in (nutcracker, shoal):
        each.configure(servers)
        each.launch(*(["-i", "50"] if each is nutcracker else ["--workers=1"]))
        get(each.listen, *KEYS)
        with socket.create_connection((LOOPBACK, each.listen)):

            def settled(each: Command = each) -> dict[str, Any]:
                told: dict[str, Any] = json.loads(read_line(each.stats))
                servers = [told["p"][name] for name in ("one", "two")]
                done = sum(server["responses"] for server in servers) == len(KEYS)
                idle = not any(server["out_queue"] for server in servers)
                return told if done and idle and told["p"]["client_connections"] == 1 else {}

            told.append(wait_until(settled, 5, "the figures", interval=0.1))
    theirs, ours = (dict(maps(each)) for each in told)
    assert all(theirs[f"p.{name}."]["requests"] for name in ("one", "two"))
    assert list(ours) == list(theirs) == ["", "p.", "p.one.", "p.two."]
    moving = {"uptime", "timestamp", "client_eof", "total_connections"}  # waiting for the start connected, too
    for path, counted in theirs.items():
        names = scalars(counted)
        assert scalars(ours[path])[: len(names)] == names, DIFFERENCES["more counted"]
        assert [type(ours[path][name]) for name in names] == [type(counted[name]) for name in names]
        same = [name for name in names if name not in moving]
        assert {name: ours[path][name] for name in same} == {name: counted[name] for name in same}
    assert abs(ours[""]["timestamp"] - time.time()) < 30


def test_parts_of_requests_are_counted(nutcracker: Command, shoal: Command, servers: int) -> None:
    counted = []
    for each in (nutcracker, shoal):
        each.configure(servers)
        each.launch(*(["-i", "50"] if each is nutcracker else []))
        keys = [bulk(key.encode()) for key in KEYS]
        with socket.create_connection((LOOPBACK, each.listen), timeout=5) as client:
            client.sendall(b"*%d\r\n" % (len(keys) + 1) + bulk(b"MGET") + b"".join(keys))
            client.recv(1024)  # what these servers answer is no reply to an MGET

        def sent(each: Command = each) -> dict[str, Any]:
            told: dict[str, Any] = json.loads(read_line(each.stats))
            return told["p"] if all(told["p"][name]["requests"] for name in ("one", "two")) else {}

        counted.append(wait_until(sent, 5, "the figures", interval=0.1)["fragments"])
    assert counted == [0, 2], DIFFERENCES["fragments"]


def test_what_a_client_of_the_stats_says_is_not_read(command: Command) -> None:
    command.launch()
    with socket.create_connection((LOOPBACK, command.stats)) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(20) == b'{"service":"nutcrack'
