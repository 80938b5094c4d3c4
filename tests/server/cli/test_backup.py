"""Backups from the command line."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from persona_mcp.config.backups import FORMAT, Backup
from persona_mcp.server.cli.backup import described
from persona_mcp.server.cli.run import INTERRUPTED, TERMINATED
from tests.command_line import Cli
from tests.keyboard import plain, typed

MEGABYTE = 1_000_000


def names(cli: Cli) -> list[str]:
    return [persona["name"] for persona in cli.good("list", "--json").json["personas"]]


def test_a_data_folder_is_backed_up_and_put_back(cli: Cli, tmp_path: Path) -> None:
    cli.good("list")
    folder = tmp_path / "copy"

    made = cli.good("db", "backup", str(folder))
    mira = tmp_path / "mira.yaml"
    mira.write_text("name: Mira\ndescription: A potter.\n", "utf-8")
    cli.good("create", str(mira))
    planned = cli.good("db", "restore", str(folder), "--dry-run")
    asked = cli("db", "restore", str(folder))
    before = names(cli)
    restored = cli.good("db", "restore", str(folder), "--yes", "--json").json

    assert "it was checked" in made.out
    assert "would be put into" in planned.out
    assert asked.code == 1
    assert "--yes: needed where nobody can be asked" in asked.err
    assert before == ["Aria", "Kira", "Mira", "Noor"]
    assert names(cli) == ["Aria", "Kira", "Noor"]
    assert restored["restored"] is True
    assert Path(restored["kept"], "persona.db").is_file()


@pytest.fixture
def much(cli: Cli) -> Path:
    """A data folder whose backup takes a while."""
    cli.good("list")
    with closing(sqlite3.connect(cli.data_dir / "checkpoints.db")) as connection, connection:
        connection.execute("CREATE TABLE ballast (bytes)")
        connection.executemany("INSERT INTO ballast VALUES (zeroblob(?))", [(MEGABYTE,)] * 200)
    return cli.data_dir


@pytest.mark.parametrize(
    ("end", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)]
)
def test_a_backup_that_is_stopped_leaves_nothing(
    much: Path, tmp_path: Path, end: signal.Signals, code: int
) -> None:
    there = sorted(tmp_path.iterdir())

    ended, shown = typed(
        ("db", "backup", str(tmp_path / "copy")),
        [("checkpoints.db", end)],
        PERSONA_DATA_DIR=str(much),
    )

    assert ended == code, shown
    assert "wrote" not in plain(shown)
    assert "Traceback" not in shown
    assert sorted(tmp_path.iterdir()) == there


def test_a_backup_in_a_pipe_writes_no_line_of_its_bar(cli: Cli, tmp_path: Path) -> None:
    cli.good("list")

    done = cli("db", "backup", str(tmp_path / "backup"))

    assert (done.code, done.err) == (0, "")


def test_a_folder_that_is_no_backup_is_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli("db", "restore", str(tmp_path), "--yes")

    assert done.code == 1
    assert "FOLDER: allowed is a backup: a folder with backup.json" in done.err


def test_a_folder_that_is_there_is_refused_in_json_too(cli: Cli, tmp_path: Path) -> None:
    cli.good("list")

    done = cli("db", "backup", str(tmp_path), "--json")

    assert done.json["error"]["data"]["given"] == str(tmp_path)


def test_a_backup_is_told_by_its_moment_and_its_size() -> None:
    files = {name: {"sha256": "", "bytes": 1500} for name in ("persona.db", "checkpoints.db")}

    told = described(Backup(FORMAT, "1", "0013", 0.0, files))

    assert told == "a backup of 1970-01-01 00:00:00 UTC, 3,000 bytes"
