"""Backups of a data folder in use, and putting them back."""

import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from pydantic import SecretStr

from persona_mcp.config.backups import MANIFEST, back_up, read_backup, restore, undisturbed
from persona_mcp.config.database import database_path, upgrade_database
from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import (
    Conflict,
    InvalidParams,
    NotConfigured,
    NotFound,
    StorageUnavailable,
)


def silent(name: str, done: int, total: int) -> None:
    """Tell nobody."""


@contextmanager
def opened(settings: Settings) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database_path(settings))) as connection:
        connection.isolation_level = None
        yield connection


def add(settings: Settings, *worlds: str) -> None:
    with opened(settings) as connection:
        for world in worlds:
            connection.execute("INSERT INTO worlds VALUES (?, ?, 1.0, NULL)", (world, world))


def worlds(settings: Settings) -> list[str]:
    with opened(settings) as connection:
        return [id for (id,) in connection.execute("SELECT id FROM worlds ORDER BY id")]


@pytest.fixture
def kept(settings: Settings) -> Settings:
    upgrade_database(settings)
    add(settings, "first")
    return settings


def test_a_backup_holds_what_was_there_and_comes_back(kept: Settings, tmp_path: Path) -> None:
    run = kept.data_dir / "dialogues" / "main" / "d1"
    run.mkdir(parents=True)
    (run / "spec.yaml").write_text("x", "utf-8")
    with closing(sqlite3.connect(run / "run.db")) as connection:
        connection.execute("CREATE TABLE calls (a)")
    (kept.data_dir / "chroma").mkdir()

    made = back_up(kept, tmp_path / "copy", silent)
    add(kept, "second")
    shutil.rmtree(run)
    restored, aside = restore(kept, tmp_path / "copy")

    assert restored == made == read_backup(tmp_path / "copy")
    assert set(made.files) == {
        "persona.db",
        "dialogues/main/d1/spec.yaml",
        "dialogues/main/d1/run.db",
    }
    assert worlds(kept) == ["first"]
    assert (run / "spec.yaml").read_text("utf-8") == "x"
    assert not (kept.data_dir / "chroma").exists()
    assert aside is not None
    assert worlds(Settings(data_dir=aside, _env_file=None)) == ["first", "second"]
    assert (aside / "chroma").is_dir()


def test_a_backup_is_of_one_moment_though_others_write(kept: Settings, tmp_path: Path) -> None:
    with opened(kept) as connection:
        filler = ((f"w{number:05}", "x" * 80) for number in range(40_000))
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO worlds VALUES (?, ?, 1.0, NULL)", filler)
        connection.execute("COMMIT")
    steps = []

    def write_between(name: str, done: int, total: int) -> None:
        steps.append((done, total))
        add(kept, f"later-{len(steps)}")

    back_up(kept, tmp_path / "copy", write_between)

    held = worlds(Settings(data_dir=tmp_path / "copy", _env_file=None))
    assert len(steps) > 1
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert len(held) == 40_001
    assert "later-1" in worlds(kept)


def test_a_backup_is_made_while_another_process_writes(kept: Settings, tmp_path: Path) -> None:
    with opened(kept) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO worlds VALUES ('open', 'open', 1.0, NULL)")

        back_up(kept, tmp_path / "copy", silent)

        connection.execute("COMMIT")
    assert worlds(Settings(data_dir=tmp_path / "copy", _env_file=None)) == ["first"]
    assert worlds(kept) == ["first", "open"]


def test_no_folder_is_overwritten_and_none_within_the_data_folder_made(
    kept: Settings, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()

    with pytest.raises(InvalidParams, match="a folder that is not there yet"):
        back_up(kept, tmp_path / "there", silent)
    with pytest.raises(InvalidParams, match="outside the data folder"):
        back_up(kept, kept.data_dir / "copy", silent)
    assert not (kept.data_dir / "copy").exists()


def test_without_a_database_there_is_nothing_to_back_up(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing to back up"):
        back_up(settings, tmp_path / "copy", silent)
    assert not (tmp_path / "copy").exists()


def test_postgresql_is_left_to_its_own_tools(kept: Settings, tmp_path: Path) -> None:
    back_up(kept, tmp_path / "copy", silent)
    url = {"url": SecretStr("postgresql://somebody@nowhere/persona")}
    there = kept.model_copy(update={"database": kept.database.model_copy(update=url)})

    with pytest.raises(NotConfigured, match="pg_dump"):
        back_up(there, tmp_path / "other", silent)
    with pytest.raises(NotConfigured, match="pg_restore"):
        restore(there, tmp_path / "copy")
    assert not (tmp_path / "other").exists()


def test_a_damaged_database_gives_no_backup(kept: Settings, tmp_path: Path) -> None:
    with opened(kept) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    data = bytearray(database_path(kept).read_bytes())
    data[8192:40_000] = b"\x55" * (40_000 - 8192)
    database_path(kept).write_bytes(data)

    with pytest.raises(StorageUnavailable):
        back_up(kept, tmp_path / "copy", silent)
    assert not list(tmp_path.glob("copy*"))


@pytest.mark.parametrize("name", ["persona.db", MANIFEST])
def test_a_backup_that_was_changed_or_lost_a_file_is_refused(
    kept: Settings, tmp_path: Path, name: str
) -> None:
    back_up(kept, tmp_path / "copy", silent)
    file = tmp_path / "copy" / name
    whole = file.read_bytes()
    add(kept, "second")

    file.write_bytes(whole[:-9] + b"x")
    with pytest.raises(InvalidParams):
        restore(kept, tmp_path / "copy")
    file.unlink()
    with pytest.raises(InvalidParams):
        restore(kept, tmp_path / "copy")

    assert worlds(kept) == ["first", "second"]


def test_nothing_is_put_back_while_a_process_uses_the_folder(
    kept: Settings, tmp_path: Path
) -> None:
    back_up(kept, tmp_path / "copy", silent)
    add(kept, "second")
    (kept.data_dir / "processes").mkdir()
    held, done = threading.Event(), threading.Event()

    def serve() -> None:
        with FileLock(kept.data_dir / "processes" / "p.lock"):
            held.set()
            done.wait(60)

    server = threading.Thread(target=serve)
    server.start()
    held.wait(60)
    try:
        with pytest.raises(Conflict, match="a process uses the data folder"):
            restore(kept, tmp_path / "copy")
    finally:
        done.set()
        server.join()

    assert worlds(kept) == ["first", "second"]


def test_a_log_beside_the_old_database_is_not_read_into_the_new_one(
    kept: Settings, tmp_path: Path
) -> None:
    back_up(kept, tmp_path / "copy", silent)
    with closing(sqlite3.connect(database_path(kept), isolation_level=None)) as held:
        held.execute("PRAGMA journal_mode=WAL")
        held.execute("PRAGMA wal_autocheckpoint=0")
        held.execute("INSERT INTO worlds VALUES ('logged', 'logged', 1.0, NULL)")
        kept_log = (kept.data_dir / "persona.db-wal").read_bytes()
    (kept.data_dir / "persona.db-wal").write_bytes(kept_log)  # as a killed process leaves it

    _, aside = restore(kept, tmp_path / "copy")

    assert worlds(kept) == ["first"]
    assert not (kept.data_dir / "persona.db-wal").exists()
    assert aside is not None


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_nothing_cuts_the_moment_in_which_a_backup_is_put_in_place(end: signal.Signals) -> None:
    usual = signal.getsignal(end)

    with undisturbed():
        os.kill(os.getpid(), end)

    assert signal.getsignal(end) is usual
