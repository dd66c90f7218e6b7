"""`shoal proxy`: one proxy in the foreground, for systemd, a container or the supervisor."""

from pathlib import Path
from typing import Annotated

import typer

from shoal import config, state
from shoal.log import Log, LogFormat
from shoal.topology import lay_out


def command(
    node: Annotated[str, typer.Option("--node", help="Which of the topology's proxies this is.")],
    file: Annotated[Path, typer.Option("-f", "--file", help="The topology file.")] = Path("shoal.yaml"),
    directory: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="DIR", help="State directory of `shoal up`; by default .shoal beside the file."
        ),
    ] = None,
    log_format: Annotated[LogFormat, typer.Option("--log-format", help="How log lines are written.")] = (
        LogFormat.CONSOLE
    ),
) -> int:
    """Run one proxy in the foreground until SIGTERM or SIGINT."""
    from shoal.daemon import serve

    topology = config.load(file)
    layout = lay_out(topology, state.load_ports(directory or state.beside(file)))
    serve(layout, node, Log(log_format))
    return 0
