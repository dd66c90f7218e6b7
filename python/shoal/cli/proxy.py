"""`shoal proxy`: one proxy in the foreground, for systemd, a container or the supervisor.

What it serves stands in a topology, of which it is one node (`-f`, `--node`), or in a nutcracker.yml (`-c`), which
says nothing of the process itself: those options are for it alone.
"""

import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from shoal import config, nutcracker, state
from shoal.cli.options import DEFAULT_FILE
from shoal.errors import ConfigError
from shoal.log import Log, LogFormat
from shoal.nutcracker.flags import MOST_WORKERS
from shoal.serving import Ports, Service, of_layout, of_nutcracker
from shoal.topology import Endpoint, lay_out

STATS = "127.0.0.1:22222"
ADMIN = "127.0.0.1:22180"


def command(  # noqa: PLR0913, PLR0917  a command's options are its parameters
    node: Annotated[str | None, typer.Option("--node", help="Which of the topology's proxies this is.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="FILE", help=f"The topology file; by default {DEFAULT_FILE}."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="DIR", help="State directory of `shoal up`; by default .shoal beside the file."
        ),
    ] = None,
    nutcracker_file: Annotated[
        Path | None, typer.Option("-c", "--conf-file", metavar="FILE", help="Serve this nutcracker.yml instead.")
    ] = None,
    stats: Annotated[
        str | None,
        typer.Option("--stats", metavar="HOST:PORT", help=f"With -c: the statistics port; by default {STATS}."),
    ] = None,
    admin: Annotated[
        str | None, typer.Option("--admin", metavar="HOST:PORT", help=f"With -c: the admin HTTP; by default {ADMIN}.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, max=MOST_WORKERS, help="With -c: threads that serve; by default one for each CPU."
        ),
    ] = None,
    log_format: Annotated[LogFormat, typer.Option("--log-format", help="How log lines are written.")] = (
        LogFormat.CONSOLE
    ),
) -> int:
    """Run one proxy in the foreground until SIGTERM or SIGINT."""
    from shoal.daemon import serve

    of_topology = {"-f": file, "--node": node, "--state": directory}
    of_process = {"--stats": stats, "--admin": admin, "--workers": workers}
    load: Callable[[], Service]
    if nutcracker_file is not None:
        _refuse(of_topology, "belongs to a topology, and -c FILE is a nutcracker.yml", "give -f and --node, or -c")
        ports = Ports(_endpoint("--admin", admin or ADMIN), _endpoint("--stats", stats or STATS), workers)
        load = partial(_of_nutcracker, nutcracker_file, ports)
    else:
        _refuse(of_process, "goes with -c only", "in a topology it stands under `proxy`")
        if node is None:
            raise ConfigError("which of the topology's proxies is this?", hint="say --node NAME; or -c nutcracker.yml")
        load = partial(_of_topology, file or DEFAULT_FILE, directory, node)
    serve(load(), Log(log_format), load)
    return 0


def _refuse(options: Mapping[str, object], why: str, hint: str) -> None:
    """Refuse these options, those of them that are given."""
    for option, value in options.items():
        if value is not None:
            raise ConfigError(f"{option} {why}", hint=hint)


def _endpoint(option: str, text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except ValueError as error:
        raise ConfigError(f"{option} is not HOST:PORT: {error}", hint=f'for example "{STATS}"') from None


def _of_nutcracker(file: Path, ports: Ports) -> Service:
    return of_nutcracker(nutcracker.load(file), socket.gethostname(), ports, str(file))


def _of_topology(file: Path, directory: Path | None, name: str) -> Service:
    topology = config.load(file)
    layout = lay_out(topology, state.load_ports(directory or state.beside(file)))
    try:
        return of_layout(layout, layout.proxy(name))
    except KeyError:
        names = ", ".join(proxy.name for proxy in layout.proxies)
        raise ConfigError(f'there is no proxy "{name}"', hint=f"the topology has {names}") from None
