"""Fixtures and rules for every test.

Owns: which tests a plain `pytest` runs, what a skip means, and the fixtures that give out real servers.
Rules: a test in tests/unit or tests/cli is a unit test, the other folders are named after their marker; a plain
`pytest` runs unit and compat only, `--all` the rest but what is marked soak, naming a path (or -m) all there; with
`--forbid-skips`, as in CI, a skip is a failure, because CI installs everything; a failed test shows the last lines of
its servers' logs. Files of tests are in memory where there is room: a sentinel writes through to the disk before it
goes on, and one that a busy disk keeps for a second is a failure that no test means to make.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import ENGINES, WHY_NO_ENGINE, EngineProgram, Servers, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

MARKERS = ("unit", "compat", "integration", "failure", "clients")
LONG = ("integration", "failure", "clients", "soak")
MARKER_OF_FOLDER = {
    "unit": "unit",
    "cli": "unit",
    "compat": "compat",
    "integration": "integration",
    "failure": "failure",
    "clients": "clients",
}
HERE = Path(__file__).parent
MEMORY = Path("/dev/shm")
ENOUGH = 1 << 30


def pytest_configure() -> None:
    if os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("shoal")
    group.addoption("--all", action="store_true", help="run the long tests too, but for those marked soak")
    group.addoption("--forbid-skips", action="store_true", help="a skipped test is a failed test (CI)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not any(item.get_closest_marker(name) for name in MARKERS):
            item.add_marker(_folder_marker(item.path))
    if config.option.markexpr or config.args_source is pytest.Config.ArgsSource.ARGS:
        return  # asked for by name
    unwanted = ("soak",) if config.getoption("--all") else LONG
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in unwanted)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _folder_marker(path: Path) -> str:
    parts = path.relative_to(HERE).parts if path.is_relative_to(HERE) else ()
    return MARKER_OF_FOLDER.get(parts[0], "unit") if parts else "unit"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--forbid-skips") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skips are forbidden here: {_skip_reason(report.longrepr)}"
    if report.failed:
        for servers in _servers_of(item):
            for process in reversed(servers.processes):  # the proxy, started last, has most to say
                report.sections.append((f"end of the log of {process.name}", process.log_tail()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.getoption("--forbid-skips"):
        report.outcome = "failed"
        report.longrepr = f"skips are forbidden here: {_skip_reason(report.longrepr)}"
    return report


def _skip_reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


def _servers_of(item: pytest.Item) -> Iterator[Servers]:
    fixtures: dict[str, Any] = getattr(item, "funcargs", {})
    return (value for value in fixtures.values() if isinstance(value, Servers))


@pytest.fixture(scope="session", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> EngineProgram:
    """Every engine in turn: a test that asks for it (or for `servers`) runs once on each."""
    return _engine_or_skip(request.param)


@pytest.fixture(scope="session")
def valkey() -> EngineProgram:
    """The engine that is always there after `make setup`, for tests that need only one."""
    return _engine_or_skip("valkey")


def _engine_or_skip(name: str) -> EngineProgram:
    found = ENGINES[name]()
    if found is None:
        pytest.skip(WHY_NO_ENGINE[name])
    return found


@pytest.fixture
def servers(engine: EngineProgram, tmp_path: Path) -> Iterator[Servers]:
    """Real servers of each engine, killed when the test ends."""
    with Servers(engine, tmp_path) as running:
        yield running


@pytest.fixture
def port() -> Callable[[], int]:
    """`port()` gives a free port that no other test gets."""
    return free_port
