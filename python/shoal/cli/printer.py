"""The only writer to stdout and stderr.

Rule: data goes to stdout and nothing else does, so that it can be piped; talk, warnings and errors go to stderr. What
is printed is readable without colour; NO_COLOR and non-terminals are respected (by rich). Every command makes one
`Printer` and passes it down.
"""

import json
from typing import Any

from rich.console import Console
from rich.text import Text

from shoal.errors import ShoalError


class Printer:
    """Two streams: `out` for data, `err` for talk. Live views draw on these consoles."""

    def __init__(self) -> None:
        self.out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def data(self, text: str | Text = "") -> None:
        """A line of what was asked for."""
        self.out.print(text)

    def json(self, value: Any) -> None:
        """The same for programs: one JSON document."""
        self.out.print(json.dumps(value, indent=2, ensure_ascii=False))

    def talk(self, text: str | Text = "") -> None:
        """A line for the person in front of it."""
        self.err.print(text)

    def warning(self, text: str) -> None:
        self.err.print(Text.assemble(("warning: ", "bold yellow"), text))

    def error(self, error: ShoalError) -> None:
        """Every single error in it, each with its place and hint."""
        for single in error.each():
            self.err.print(Text.assemble(("error: ", "bold red"), str(single)))
