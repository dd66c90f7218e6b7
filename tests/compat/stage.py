"""Scenes that are played to both rivals, and the comparison of what was seen.

    scene(stage) ──► nutcracker ──► observations ──┐
                └──► Shoal ───────► observations ──┴──► equal, or a Difference of the table that says why

Rule: every scene has a pool of its own with scripted servers of its own, on each side, so that scenes do not meet.
Whatever a scene observes is compared, and beside it all figures of its pool in the statistics.
Used by: the tests named test_*_like_nutcracker.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shoal.plane import Ring, ShardSpec
from tests.compat.differences import CLOSED, known_of
from tests.compat.numbered import Place, pool_text, server_line
from tests.compat.rivals import NUTCRACKER, SHOAL, Rival, started
from tests.compat.scripted import ScriptedServer, echo, reset
from tests.harness import LOOPBACK, free_port, release_port, wait_until
from tests.integration.wire import Wire, command

if TYPE_CHECKING:
    from tests.compat.scripted import Script


SILENT = "(nothing)"
SETTLED = 0.08
"""nutcracker shows a figure after two intervals of its statistics, in which nothing else may come."""

Observations = dict[str, Any]


class Caller(Wire):
    """A client of one rival."""

    def ask(self, *requests: tuple[str | bytes, ...]) -> list[Any]:
        """Pipeline these, and give their replies; CLOSED is the end of the connection.

        A PING behind them shows that nothing else was sent, and that the connection is open.
        """
        self.send(b"".join(command(*one) for one in requests))
        return self.hear(len(requests))

    def hear(self, count: int) -> list[Any]:
        heard: list[Any] = []
        try:
            for _ in range(count):
                heard.append(self.reply())  # noqa: PERF401 - what came before an end is kept
            probe = self.call("PING")
        except (EOFError, ConnectionError):
            return [*heard, CLOSED]
        except TimeoutError:
            return [*heard, SILENT]
        return heard if probe == "PONG" or str(probe).startswith("NOAUTH") else [*heard, probe]

    def hear_to_the_end(self) -> list[Any]:
        """All replies, when nothing more is sent."""
        heard: list[Any] = []
        try:
            while True:
                heard.append(self.reply())
        except (EOFError, ConnectionError):
            return heard

    def reset(self) -> None:
        """End the connection as a client does that crashes."""
        self.stream.close()
        reset(self.socket)


@dataclass
class Stage:
    """What one scene has of one rival."""

    rival: Rival
    pool: str
    listen: Place
    servers: list[ScriptedServer]
    _stack: ExitStack = field(default_factory=ExitStack)

    def client(self, timeout: float = 5.0) -> Caller:
        return self._stack.enter_context(Caller(self.listen, timeout))

    def keys(self, server: int, count: int = 1) -> list[str]:
        """Keys of this server, the same for both rivals."""
        ring = Ring([ShardSpec(_alias(at)) for at in range(len(self.servers))], "fnv1a_64", "ketama", None)
        found = (f"key{number}" for number in range(100_000))
        mine = (key for key in found if ring.locate(key.encode()).shard == _alias(server))
        return [next(mine) for _ in range(count)]

    def key(self, server: int = 0) -> str:
        return self.keys(server)[0]

    def figures(self) -> Observations:
        """The pool's statistics, once they have not changed for a while."""
        return {f"stats {name}": value for name, value in settled(self._figures).items()}

    def _figures(self) -> dict[str, int]:
        told = self.rival.stats()[self.pool]
        flat = {name: value for name, value in told.items() if name in POOL_FIGURES}
        for server, figures in told.items():
            if isinstance(figures, dict):
                flat |= {f"{server}.{name}": value for name, value in figures.items() if name in SERVER_FIGURES}
        return {name: int(value > 0) if name.endswith("ejected_at") else value for name, value in flat.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


POOL_FIGURES = ("client_eof", "client_err", "client_connections", "server_ejects", "forward_error", "fragments")
SERVER_FIGURES = (
    *("server_eof", "server_err", "server_timedout", "server_connections", "server_ejected_at"),
    *("requests", "request_bytes", "responses", "response_bytes"),
    *("in_queue", "in_queue_bytes", "out_queue", "out_queue_bytes"),
)


def settled(look: Callable[[], Any]) -> Any:
    """What `look` says once it has said the same for SETTLED."""
    since, last = time.monotonic(), look()

    def same() -> bool:
        nonlocal since, last
        now = look()
        if now != last:
            since, last = time.monotonic(), now
        return time.monotonic() - since >= SETTLED

    wait_until(same, 5, "the statistics to settle")
    return last


Scene = Callable[[Stage], Observations]


@dataclass(frozen=True)
class Scenario:
    """A scene with the pool that it needs. A script that is None is a server that does not listen."""

    scene: Scene
    servers: tuple[Script | None, ...]
    settings: Mapping[str, object]
    places: tuple[str, ...] = ()
    """Where the first servers are, if not on ports of their own."""

    @property
    def unix(self) -> bool:
        return "mode" in self.settings


class Scenarios(dict[str, Scenario]):
    """The scenes of one module, by their names."""

    def play(
        self, *servers: Script | None, places: tuple[str, ...] = (), **settings: str | int
    ) -> Callable[[Scene], Scene]:
        """Add a scene, whose pool has these servers and settings. With a `mode` all its sockets are unix sockets."""

        def add(scene: Scene) -> Scene:
            self[scene.__name__] = Scenario(scene, servers or (echo,), settings, places)
            return scene

        return add


def _alias(number: int) -> str:
    return f"s{number}"


class Theatre:
    """Both rivals, each with a pool for every scenario of a module."""

    def __init__(self, scenarios: Scenarios, directory: Path) -> None:
        self.scenarios = scenarios
        self._directory = directory
        self._stack = ExitStack()
        self._stages: dict[str, dict[str, Stage]] = {}
        self._ports: list[int] = []
        self._sockets = 0

    def __enter__(self) -> Self:
        self._short = Path(tempfile.mkdtemp(prefix="shoal-"))
        self._stack.callback(shutil.rmtree, self._short)
        for name in (NUTCRACKER, SHOAL):
            pools = {scene: self._prepare(scenario) for scene, scenario in self.scenarios.items()}
            config = "".join(self._pool(scene, *pools[scene]) for scene in pools)
            listens = tuple(listen for listen, _ in pools.values())
            rival = self._stack.enter_context(started(name, config, listens, self._directory, workers=1))
            for scene, (listen, servers) in pools.items():
                self._stages.setdefault(scene, {})[name] = Stage(rival, scene, listen, servers)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for port in self._ports:
            release_port(port)

    def compare(self, name: str) -> None:
        """Play one scene to both, and judge what differs."""
        with ThreadPoolExecutor(2) as both:
            theirs, ours = both.map(lambda rival: self._play(name, rival), (NUTCRACKER, SHOAL))
        problems = judged(name, theirs, ours)
        assert not problems, "\n".join(problems)

    def _play(self, name: str, rival: str) -> Observations:
        stage = self._stages[name][rival]
        with stage:
            seen = self.scenarios[name].scene(stage)
        return seen | stage.figures()

    def _prepare(self, scenario: Scenario) -> tuple[Place, list[ScriptedServer]]:
        servers = []
        for script in scenario.servers:
            server = ScriptedServer(self._place(scenario), script or echo)
            self._stack.callback(server.end)
            if script is not None:
                server.listen()
            servers.append(server)
        return self._place(scenario), servers

    def _place(self, scenario: Scenario) -> Place:
        if scenario.unix:
            self._sockets += 1
            return str(self._short / f"{self._sockets}.sock")
        self._ports.append(free_port())
        return LOOPBACK, self._ports[-1]

    def _pool(self, scene: str, listen: Place, servers: list[ScriptedServer]) -> str:
        scenario = self.scenarios[scene]
        given = dict(enumerate(scenario.places))
        lines = [
            f"{given[at]}:1 {_alias(at)}" if at in given else server_line(server.place, 1, _alias(at))
            for at, server in enumerate(servers)
        ]
        settings = dict(scenario.settings)
        mode = settings.pop("mode", "")
        where = f"{listen} {mode}".rstrip() if isinstance(listen, str) else f"{listen[0]}:{listen[1]}"
        return pool_text(scene, where, lines, settings)


def judged(scene: str, theirs: Observations, ours: Observations) -> list[str]:
    """What is neither the same nor in the table as it is; the bytes of a count that is there are not looked at."""
    known = known_of(scene)
    problems = [f"{what} is in the table and was not observed" for what in known.keys() - (theirs | ours).keys()]
    for what in theirs | ours:
        if what.endswith("_bytes") and any(what.removesuffix("_bytes") + end in known for end in ("", "s")):
            continue
        seen = theirs.get(what), ours.get(what)
        if seen != known.get(what, (seen[0], seen[0])):
            problems.append(f"{what}: nutcracker {seen[0]!r}, Shoal {seen[1]!r}; the table has {known.get(what)!r}")
    return problems
