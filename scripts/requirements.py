"""Prints the project's dependencies, with those of the extras named, one a line.

The set-up installs them before it builds the native module, so that a change of Rust sources rebuilds only that.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = [*project["dependencies"]]
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
sys.stdout.write("\n".join(wanted) + "\n")
