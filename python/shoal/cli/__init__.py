"""The `shoal` command: one file for each subcommand, one printer, one place that turns errors into exit codes."""

from shoal.cli.app import main

__all__ = ["main"]
