"""Writes the pages of docs/reference that are made of tables in the code. Run it after changing such a table."""

from pathlib import Path

from shoal import commands
from shoal.nutcracker import reference

PAGES = {"commands.md": commands.page, "nutcracker-yml.md": reference.page}
DIRECTORY = Path(__file__).parents[1] / "docs" / "reference"

if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (DIRECTORY / name).write_text(page(), encoding="utf-8")
