"""`shoal bench`: Shoal's proxy beside Twemproxy and others on this machine, and which goals it meets.

Writes results.json (every sample) and index.html (tables and plots) into a directory, and prints the tables.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shoal.cli.demo import terminated_like_interrupted
from shoal.cli.options import JsonOption
from shoal.cli.printer import Printer
from shoal.cli.text import table
from shoal.errors import ConfigError

if TYPE_CHECKING:
    from shoal.bench.figures import Mode
    from shoal.bench.goals import Judged
    from shoal.bench.peers import Peer
    from shoal.bench.rows import Row
    from shoal.bench.run import Plan, Results

ROUNDS, CLOSE_ROUNDS = 9, 31
QUICK_SCALE = 0.5
QUICK_ROWS = ("get", "get-p16", "get-p100", "set-p100", "mget-10", "get-64k")
QUICK_PEERS = ("nutcracker",)
RESULTS = Path("bench-results")


class Show:
    """Shows how far it is: a bar on a terminal, else a line for each thing that begins."""

    def __init__(self, printer: Printer, progress: Progress | None, total: int) -> None:
        self._printer = printer
        self._progress = progress
        self._task = progress.add_task("", total=total) if progress else None

    def begin(self, what: str) -> None:
        if self._progress is None or self._task is None:
            self._printer.talk(what)
        else:
            self._progress.update(self._task, description=what)

    def step(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task)


def command(  # noqa: PLR0913, PLR0917  a command's options are its parameters
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="About three minutes: six loads, pinned, beside Twemproxy; exits with 1 if a goal is far."
        ),
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help=f"{CLOSE_ROUNDS} rounds where a goal is close to what is possible."),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ROW", help="Only this row, a name of --list; may be repeated."),
    ] = None,
    peers: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="NAME", help="Only beside this proxy; may be repeated. By default all found."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", min=1, help=f"Rounds of each row, {ROUNDS} by default.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="MODE", help="pinned: the proxy alone on the last core; unpinned.")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=0, help="Shoal's threads; 0 is one for each core.")
    ] = 0,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where results.json and index.html go.")
    ] = RESULTS,
    show_list: Annotated[bool, typer.Option("--list", help="Only name the rows.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Measure the proxy beside others, over the same servers, and judge it by its goals. Wants an idle machine."""
    from shoal.bench.goals import judge
    from shoal.bench.rows import all_rows
    from shoal.bench.run import Plan, run

    if quick and full:
        raise typer.BadParameter("--quick and --full exclude each other")
    printer = Printer()
    if show_list:
        for line in table([(row.name, row.title) for row in all_rows(1.0).values()]):
            printer.data(line)
        return 0
    rows = _rows(all_rows(QUICK_SCALE if quick else 1.0), only, quick=quick)
    most = rounds or ROUNDS
    close = CLOSE_ROUNDS if full and rounds is None else most
    modes = _modes(printer, mode, quick=quick)
    plan = Plan(rows, _peers(printer, peers, quick=quick), modes, most, close, workers)
    if not plan.steps():
        raise typer.BadParameter("none of these rows is measured in that mode", param_hint="--mode")
    output.mkdir(parents=True, exist_ok=True)
    with terminated_like_interrupted(), _showing(printer, plan) as show:
        results = run(plan, show)
    judged = list(judge(results.series))
    document = _write(output, results, judged, {row.name: row.title for row in rows})
    if as_json:
        printer.json(document)
    else:
        _print(printer, results, judged, rows)
        printer.talk(f"every sample: {output / 'results.json'}; tables and plots: {output / 'index.html'}")
    return 1 if quick and any(one.beyond_slack for one in judged) else 0


def _rows(known: "Mapping[str, Row]", wanted: list[str] | None, *, quick: bool) -> "list[Row]":
    names = wanted or (QUICK_ROWS if quick else tuple(known))
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"there is no row {name!r}, only {', '.join(known)}", param_hint="--only")
    return [row for name, row in known.items() if name in names]


def _modes(printer: Printer, wanted: str | None, *, quick: bool) -> "list[Mode]":
    import os

    from shoal.bench.figures import Mode

    if wanted is not None and wanted not in set(Mode):
        raise typer.BadParameter(f"is {' or '.join(Mode)}, not {wanted!r}", param_hint="--mode")
    modes = [Mode(wanted)] if wanted else [Mode.PINNED] if quick else list(Mode)
    if Mode.PINNED in modes and len(os.sched_getaffinity(0)) == 1:
        modes = [Mode.UNPINNED]
        printer.warning("this machine has one core: nothing is pinned")
    return modes


def _peers(printer: Printer, wanted: list[str] | None, *, quick: bool) -> "list[Peer]":
    """Those that are wanted and there; one that is asked for by name must be."""
    from shoal.bench.peers import PEERS

    by_name = {peer.name: peer for peer in PEERS}
    for name in wanted or ():
        if name not in by_name:
            raise typer.BadParameter(f"there is no peer {name!r}, only {', '.join(by_name)}", param_hint="--peer")
    chosen = []
    for name in wanted or (QUICK_PEERS if quick else tuple(by_name)):
        peer = by_name[name]
        if peer.find() is not None:
            chosen.append(peer)
        elif wanted:
            raise ConfigError(f"there is no program {peer.program}", hint=peer.install)
        else:
            printer.warning(f"{name} is left out: there is no program {peer.program} ({peer.install})")
    return chosen


@contextmanager
def _showing(printer: Printer, plan: "Plan") -> Iterator[Show]:
    if not printer.err.is_terminal:
        yield Show(printer, None, plan.steps())
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=printer.err, transient=True) as progress:
        yield Show(printer, progress, plan.steps())


def _write(
    output: Path, results: "Results", judged: "Sequence[Judged]", titles: Mapping[str, str]
) -> Mapping[str, object]:
    from shoal.bench.page import page
    from shoal.bench.tables import document

    written = document(results, judged, titles)
    (output / "results.json").write_text(json.dumps(written, indent=1) + "\n")
    (output / "index.html").write_text(page(results, judged, titles))
    return written


def _print(printer: Printer, results: "Results", judged: "Sequence[Judged]", rows: "Sequence[Row]") -> None:
    from shoal.bench.tables import goal_table, series_table

    titles = {row.name: row.title for row in rows}
    for name, value in {**results.machine, **results.versions}.items():
        printer.data(f"{name}: {value}")
    for series in results.series:
        printer.data()
        rounds = max(len(samples) for samples in series.samples.values())
        printer.data(f"{series.row}: {titles[series.row]}, {series.mode}, medians of {rounds}")
        for line in table(series_table(series)):
            printer.data(f"  {line}".rstrip())
    printer.data()
    if judged:
        for line in table(goal_table(judged)):
            printer.data(line)
    else:
        printer.data("no goal can be judged by what was measured")
