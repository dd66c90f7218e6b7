"""Who imports whom: the layers of pyproject.toml hold, and no two modules need each other."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from shoal.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
CLI_MODULES_WITHOUT_A_COMMAND = {"__init__", "app", "moved", "nutcracker", "options", "printer", "ring", "text", "view"}


def test_the_layers_hold(capfd: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capfd.readouterr().out


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Also within a package, of which the layers see only the outside; what only type checkers see counts too."""
    graph = grimp.build_graph("shoal", cache_dir=None)
    imports = {
        module: graph.find_modules_directly_imported_by(module) - {"shoal"} for module in graph.modules - {"shoal"}
    }
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_every_command_of_the_command_line_is_in_its_help() -> None:
    files = {path.stem for path in (ROOT / "python" / "shoal" / "cli").glob("*.py")}
    assert {name.removesuffix("_") for name in files - CLI_MODULES_WITHOUT_A_COMMAND} == set(COMMANDS)
