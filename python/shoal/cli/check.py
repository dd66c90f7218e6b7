"""`shoal check`: validates a topology file and prints what it means."""

from pathlib import Path
from typing import Annotated

import typer

from shoal import config
from shoal.cli.printer import Printer


def command(
    file: Annotated[Path, typer.Option("-f", "--file", help="The topology file.")] = Path("shoal.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Validate a topology file and print what it means."""
    topology = config.load(file)
    printer = Printer()
    if as_json:
        printer.json(topology.model_dump(mode="json"))
    else:
        printer.data(f"{file}: valid")
    return 0
