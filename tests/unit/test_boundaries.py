"""Borders that an import linter cannot draw: who may touch the native module, and what a pure module may know."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "python" / "shoal"
MODULES = sorted(PACKAGE.rglob("*.py"))
PURE = ("topology", "sentinel", "rules", "render", "promises", "nutcracker", "conversion", "draft", "staleness")
IMPURE = {
    "asyncio",
    "os",
    "random",
    "secrets",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "base"}


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports, also inside functions; what only type checkers see is left out."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
    assert path.stem not in NAMES_THAT_SAY_NOTHING


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_plane_knows_the_native_module(path: Path) -> None:
    knows = any(name.endswith("_native") for name in imported(path))
    assert not knows or path == PACKAGE / "plane.py"


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.relative_to(PACKAGE).parts[0].removesuffix(".py") in PURE], ids=name_of
)
def test_a_pure_module_knows_no_clock_no_process_and_no_network(path: Path) -> None:
    found = {name.split(".")[0] for name in imported(path)} & IMPURE
    assert not found, f"{path} imports {found}"
