"""Puts the commands together and maps errors to exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.

To add a command: write `cli/NAME.py` (`NAME_.py` where Python has that word) with a typer function `command` that
returns an exit status (None is 0) or raises a ShoalError, and add it to COMMANDS, in the order of the help.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from shoal.cli import bench, check, demo, diff, down, import_, init, key, proxy, reload, status, switchover, up
from shoal.cli.printer import Printer
from shoal.errors import ShoalError

COMMANDS: dict[str, Callable[..., int | None]] = {
    "init": init.command,
    "check": check.command,
    "up": up.command,
    "down": down.command,
    "status": status.command,
    "key": key.command,
    "diff": diff.command,
    "import": import_.command,
    "proxy": proxy.command,
    "reload": reload.command,
    "switchover": switchover.command,
    "demo": demo.command,
    "bench": bench.command,
}

BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(
    name="shoal",
    help="One address for a sharded, self-healing Redis.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        Printer().data(f"shoal {version('shoal')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """One address for a sharded, self-healing Redis."""
    if context.invoked_subcommand is None:
        Printer().talk(context.get_help())
        raise typer.Exit(BAD_INPUT)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit status; errors are already printed."""
    printer = Printer()
    try:
        status = app(args=arguments, prog_name="shoal", standalone_mode=False)
    except ShoalError as error:
        printer.error(error)
        return error.exit_code
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "shoal"
        printer.error(ShoalError(error.format_message(), hint=f"see `{command} --help`"))
        return error.exit_code
    except typer.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def main() -> None:
    """The console script."""
    sys.exit(run())
