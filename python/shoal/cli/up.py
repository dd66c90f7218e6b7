"""`shoal up`: starts and supervises everything of the topology that is for this machine, until Ctrl-C or `shoal down`.

On a terminal it shows the live view, elsewhere a line for each event. With --detach the same command runs in a session
of its own, with its lines in up.log of the state directory, and this one returns once the cluster serves.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal import config, state
from shoal.cli.options import DEFAULT_FILE, FileOption, StateOption
from shoal.cli.printer import Printer
from shoal.errors import ShoalError
from shoal.log import LogFormat

if TYPE_CHECKING:
    from shoal.cli.view import View
    from shoal.detached import Report
    from shoal.events import Event
    from shoal.topology import Layout
    from shoal.up import Request

START_PATIENCE = 600.0  # a big data set is loaded first
STOP_PATIENCE = 90.0


def command(  # noqa: PLR0913, PLR0917  a command's options are its parameters
    file: FileOption = DEFAULT_FILE,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Return once the cluster serves.")] = False,
    directory: StateOption = None,
    host: Annotated[str | None, typer.Option("--host", metavar="NAME", help="Which host this machine is.")] = None,
    log_format: Annotated[LogFormat, typer.Option("--log-format", help="How event lines are written.")] = (
        LogFormat.CONSOLE
    ),
    report_fd: Annotated[int | None, typer.Option("--report-fd", hidden=True)] = None,
    tied: Annotated[bool, typer.Option("--tied", hidden=True)] = False,
) -> int:
    """Start and supervise the cluster on this machine."""
    file = file.absolute()
    directory = (directory or state.beside(file)).absolute()
    if detach:
        topology = config.load(file)
        state.require_usable(directory, topology.cluster)
        return _detach(Place(file, directory, host), log_format)
    return _run(Place(file, directory, host), log_format, report_fd, tied=tied)


@dataclass(frozen=True)
class Place:
    """What is to be brought up, and where."""

    file: Path
    directory: Path
    host: str | None


def _run(place: Place, log_format: LogFormat, report_fd: int | None, *, tied: bool) -> int:
    """Supervise in this process."""
    from shoal.detached import Report
    from shoal.up import Request

    report = None if report_fd is None else Report(report_fd)
    foreground = Foreground(Printer(), report, log_format)
    try:
        topology = config.load(place.file)
        request = Request(topology, place.file, place.directory, place.host, foreground.tell, foreground.ready)
        asyncio.run(foreground.supervise(request, tied=tied))
    except ShoalError as error:
        if report is not None:
            report.failed(error)
        raise
    return 0


class Foreground:
    """One run in this process: the live view between `ready` and `stopping`, lines before and after."""

    def __init__(self, printer: Printer, report: Report | None, log_format: LogFormat) -> None:
        self.printer = printer
        self.report = report
        self.log_format = log_format
        self._view: View | None = None
        self._drawing: asyncio.Task[None] | None = None

    def tell(self, event: Event) -> None:
        from shoal.events import EventKind

        if event.kind is EventKind.STOPPING and self._view is not None and self._drawing is not None:
            self._drawing.cancel()
            self._view.end()
            self._view = None
        if self._view is None:
            self.printer.talk(event.line() if self.log_format is LogFormat.CONSOLE else event.model_dump_json())
        if self.report is not None:
            self.report.event(event)

    def ready(self, layout: Layout, directory: Path) -> None:
        from shoal.cli.view import View

        if self.report is not None:
            self.report.ready()
        elif self.printer.out.is_terminal and self.log_format is LogFormat.CONSOLE:
            self._view = View(self.printer.out, layout, directory)
            self._drawing = asyncio.create_task(self._view.follow("Ctrl-C stops the cluster"))

    async def supervise(self, request: Request, *, tied: bool) -> None:
        from shoal.up import run

        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        if tied and self.report is not None:
            loop.add_reader(self.report.channel, stop.set)  # nobody writes to it: readable is the end
        await run(request, stop)


def _detach(place: Place, log_format: LogFormat) -> int:
    """Supervise in a process apart, and return once it serves."""
    import shoal.up  # noqa: F401  once, for both
    from shoal.detached import Detached

    def supervise(report_fd: int) -> int:
        try:
            return _run(place, log_format, report_fd, tied=False)
        except ShoalError as error:
            Printer().error(error)
            return error.exit_code

    printer = Printer()
    child = Detached.fork(place.directory, supervise)
    try:
        child.wait_until_ready(lambda event: printer.talk(event.line()), START_PATIENCE)
    except KeyboardInterrupt:
        printer.talk("stopping again")
        child.stop(STOP_PATIENCE)
        raise typer.Abort from None
    child.leave()
    printer.talk(f"up (pid {child.pid}); look with `shoal status`, stop it with `shoal down`")
    return 0
