"""Writes the next revision from what state/tables.py says: `make migration name="a nickname"`."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory

from persona_mcp.config.database import sqlite_in
from persona_mcp.config.migrating import alembic_config

DIGITS = 4


def write_revision(name: str, folder: Path) -> Path:
    """Compare the tables with the revisions in `folder`, and write the difference as the next one.

    Args:
        name: What changes, in a few words; becomes the first line and the name of the file.
        folder: The folder `migrations`.
    """
    with tempfile.TemporaryDirectory() as data_dir:
        config = alembic_config(sqlite_in(Path(data_dir)))
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        head = ScriptDirectory.from_config(config).get_current_head() or "0"
        number = f"{int(head) + 1:0{DIGITS}}"
        command.upgrade(config, "head")
        command.revision(config, message=name, autogenerate=True, rev_id=number)
    return next((folder / "versions").glob(f"{number}_*.py"))


if __name__ == "__main__":
    write_revision(" ".join(sys.argv[1:]), Path(__file__).parent)
