"""The options that several commands have, declared once."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_FILE = Path("shoal.yaml")

FileOption = Annotated[Path, typer.Option("-f", "--file", metavar="FILE", help="The topology file.")]
StateOption = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="The state directory; by default .shoal beside the file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
