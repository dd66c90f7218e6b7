"""`shoal init`: writes a commented shoal.yaml for this machine and says what to do next."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("shoal.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> int:
    """Write a commented shoal.yaml for this machine."""
    raise NotImplementedError
