"""`shoal key KEY`: which shard holds a key, and why."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    key: Annotated[str, typer.Argument(help="The key.")],
    file: Annotated[Path, typer.Option("-f", "--file", help="The topology file.")] = Path("shoal.yaml"),
) -> int:
    """Which shard holds a key, and why."""
    raise NotImplementedError
