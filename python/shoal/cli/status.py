"""`shoal status`: every part with its role and health, and a sentence for each thing that is not well.

The exit code is 0 only when all is well, so `shoal status` is a check. It asks everybody anew, for a second at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal import config, state
from shoal.cli.options import DEFAULT_FILE, FileOption, JsonOption, StateOption
from shoal.cli.printer import Printer
from shoal.errors import ProcessError
from shoal.topology import Layout, lay_out, ports_to_choose

if TYPE_CHECKING:
    from shoal.health import Status


def command(
    file: FileOption = DEFAULT_FILE,
    directory: StateOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Show it again and again, until Ctrl-C.")] = False,
) -> int:
    """Show how every part is; exit 0 only when all is well."""
    from shoal.status import gather

    topology = config.load(file)
    directory = directory or state.beside(file.absolute())
    ports = state.load_ports(directory)
    if not set(ports_to_choose(topology)) <= ports.keys():
        raise ProcessError(f"the cluster was never up: {directory} holds no ports", hint="start it with `shoal up`")
    layout = lay_out(topology, ports)
    printer = Printer()
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(layout, directory, printer, as_json=as_json)
        return 0
    status = asyncio.run(gather(layout, directory))
    _show(status, printer, as_json=as_json)
    return 0 if status.ok else 1


def _show(status: Status, printer: Printer, *, as_json: bool) -> None:
    from shoal.cli.view import status_json, status_text

    if as_json:
        printer.json(status_json(status))
    else:
        printer.data(status_text(status))


def _watch(layout: Layout, directory: Path, printer: Printer, *, as_json: bool) -> None:
    from shoal.cli.view import INTERVAL, View
    from shoal.status import gather

    if printer.out.is_terminal and not as_json:
        asyncio.run(View(printer.out, layout, directory).follow())
    while True:
        _show(asyncio.run(gather(layout, directory)), printer, as_json=as_json)
        time.sleep(INTERVAL)
