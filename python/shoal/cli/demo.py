"""`shoal demo`: shows the main job on this machine: a failover under load, and whether every promise was kept."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from shoal.cli.printer import Printer

if TYPE_CHECKING:
    from shoal.cli.view import View
    from shoal.cluster import Cluster
    from shoal.demo import Report

INDENT = " " * 10


class Stage:
    """Tells the story line by line, with the seconds since it began."""

    def __init__(self, printer: Printer, *, to_stderr: bool) -> None:
        self._say = printer.talk if to_stderr else printer.data
        self._console = printer.err if to_stderr else printer.out
        self._started = time.monotonic()

    def chapter(self, title: str) -> None:
        self._say()
        self._say(Text.assemble((f"[{time.monotonic() - self._started:5.1f} s] ", "dim"), (title, "bold")))

    def line(self, text: str) -> None:
        self._say(f"{INDENT}{text}")

    def verdict(self, text: str, detail: str, *, kept: bool) -> None:
        mark = ("kept    ", "green") if kept else ("BROKEN  ", "bold red")
        self._say(Text.assemble(INDENT, mark, text))
        if detail:
            self._say(Text.assemble(INDENT, " " * len(mark[0]), (detail, "dim")))

    @contextmanager
    def watching(self, cluster: "Cluster") -> Iterator[None]:
        """Show the cluster: all the time below the lines on a terminal, else once, as it is now."""
        from shoal.cli.view import View, status_text

        if not self._console.is_terminal:
            self._say()
            self._say(status_text(cluster.status()))
            yield
            return
        with drawing(View(self._console, cluster.layout, cluster.state_directory)):
            yield


def command(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON; the story goes to stderr.")
    ] = False,
) -> int:
    """Bring up a cluster here, kill a master under load, and judge every promise. Leaves nothing behind."""
    from shoal.demo import run

    printer = Printer()
    stage = Stage(printer, to_stderr=as_json)
    with terminated_like_interrupted():
        report = run(stage)
    if as_json:
        printer.json({**asdict(report), "kept": report.kept})
    else:
        show(report, stage)
    return 0 if report.kept else 1


@contextmanager
def drawing(view: "View") -> Iterator[None]:
    """Draw in a thread of its own: the story is told in this one. The last picture stays."""
    loop = asyncio.new_event_loop()
    following = loop.create_task(view.follow())

    def draw() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(following)
        loop.close()

    thread = Thread(target=draw, name="view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(following.cancel)
        thread.join()


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """TERM ends the story as Ctrl-C does: everything is stopped on the way out."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show(report: "Report", stage: Stage) -> None:
    stage.chapter("Report")
    total = sum(report.acknowledged.values())
    stage.line(f'{total} writes acknowledged; {report.gap_seconds:.2f} s without a write on shard "{report.shard}"')
    for shard, errors in report.errors.items():
        stage.line(f'shard "{shard}": {errors} errors')
    stage.line(f"in doubt, and said so: {', '.join(report.in_doubt) or 'none'}")
    for promise in report.promises:
        stage.verdict(promise.text, promise.detail, kept=promise.kept)
    stage.verdict("Nothing is left running", ", ".join(map(str, report.left_running)), kept=not report.left_running)
