"""Backups from the command line."""

from pathlib import Path

from persona_mcp.config.backups import FORMAT, Backup
from persona_mcp.server.cli_backup import described
from tests.command_line import Cli


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
