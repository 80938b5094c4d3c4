import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock
from sqlalchemy import text
from structlog.testing import capture_logs

from persona_mcp.config.database import (
    current_revision,
    database_path,
    open_database,
    ready_database,
    upgrade_database,
)
from persona_mcp.config.database_settings import DatabaseSettings
from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import DeadlineExceeded, StorageUnavailable

pytestmark = pytest.mark.anyio

HEAD = "0014"

START = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import text
from persona_mcp.config.database import ready_database
from persona_mcp.config.settings import Settings

async def main():
    database = await ready_database(Settings(data_dir=Path(sys.argv[1]), _env_file=None))
    with database.writing() as connection:
        row = {"id": sys.argv[2]}
        connection.execute(text("INSERT INTO worlds VALUES (:id, :id, 0.0, NULL)"), row)
    await database.aclose()

sys.stdin.readline()
asyncio.run(main())
"""


def settings_in(folder: Path, **limits: float | bool) -> Settings:
    database = DatabaseSettings.model_validate(limits)
    return Settings(data_dir=folder, _env_file=None, database=database)


@pytest.mark.parametrize("name", ["plain", "a b", "what?mode=ro", "50%25", "ö#x", "it's"])
async def test_data_lies_in_the_data_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    settings = settings_in(tmp_path / name)

    database = await ready_database(settings)

    assert (tmp_path / name / "persona.db").is_file()
    assert current_revision(settings) == HEAD
    with database.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM worlds")) == 0
    await database.aclose()


def test_an_upgrade_says_where_it_began_and_ended(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "new")

    assert current_revision(settings) is None
    assert upgrade_database(settings) == (None, HEAD)
    assert upgrade_database(settings) == (HEAD, HEAD)


async def test_connections_are_safe_and_patient(tmp_path: Path) -> None:
    database = await ready_database(settings_in(tmp_path, busy_s=3))

    with database.reading() as connection:
        pragmas = {
            name: connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }

    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 3000,
    }
    await database.aclose()


async def test_statements_are_logged_on_request_and_never_their_values(tmp_path: Path) -> None:
    upgrade_database(settings_in(tmp_path))
    with capture_logs() as logs:
        for echo in (False, True):
            database = open_database(settings_in(tmp_path, echo=echo))
            with database.reading() as connection:
                connection.execute(text("SELECT :secret"), {"secret": "swordfish"})
            await database.aclose()

    assert [entry["statement"] for entry in logs] == ["BEGIN", "SELECT ?"]
    assert "swordfish" not in str(logs)


def test_processes_that_start_at_once_on_a_new_folder_all_work(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(tmp_path), f"w{n}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]

    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate() for process in processes]

    assert [p.returncode for p in processes] == [0, 0, 0], [error for _, error in ends]
    with closing(sqlite3.connect(tmp_path / "persona.db")) as connection:
        assert connection.execute("SELECT count(*) FROM worlds").fetchone() == (3,)
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [(HEAD,)]


async def test_upgrades_of_one_process_at_once_take_turns(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)

    ends = await asyncio.gather(*(asyncio.to_thread(upgrade_database, settings) for _ in range(3)))

    assert sorted(ends, key=str) == [(HEAD, HEAD), (HEAD, HEAD), (None, HEAD)]


def test_a_migration_of_another_process_is_waited_for_within_the_limit(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / "migration.lock"),
        pytest.raises(DeadlineExceeded, match=r"for 0\.2 s; .*PERSONA_DATABASE__UPGRADE_S"),
    ):
        began = time.monotonic()
        upgrade_database(settings_in(tmp_path, upgrade_s=0.2))

    assert time.monotonic() - began >= 0.2


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    upgrade_database(settings)
    with closing(sqlite3.connect(database_path(settings))) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()

    with pytest.raises(StorageUnavailable, match=r"'9999'.*a newer version made it") as caught:
        upgrade_database(settings)

    assert caught.value.data == {"revision": "9999"}
    assert current_revision(settings) == "9999"


def test_a_file_that_is_no_database_is_told_about_and_left_as_it_is(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    content = b"this is not a database" * 1000
    database_path(settings).write_bytes(content)

    with pytest.raises(StorageUnavailable, match="damaged, or not a database") as caught:
        upgrade_database(settings)

    assert str(tmp_path) not in caught.value.message
    assert database_path(settings).read_bytes() == content


def test_a_database_that_is_locked_is_not_upgraded(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, busy_s=0.2)
    with closing(sqlite3.connect(database_path(settings), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(StorageUnavailable, match="locked"):
            upgrade_database(settings)


def test_a_data_folder_that_cannot_be_made_is_told_about(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    folder = tmp_path / "file" / "folder"
    told = f"the data folder cannot be written: {folder} .*; set PERSONA_DATA_DIR"
    with pytest.raises(StorageUnavailable, match=told):
        upgrade_database(settings_in(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_that_cannot_be_written_is_told_about(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)

    with pytest.raises(StorageUnavailable, match="set PERSONA_DATA_DIR"):
        upgrade_database(settings_in(folder))
