"""A copy of the data folder, taken while it is in use, and its way back.

A backup is a folder: both databases, the folders of background dialogues, and `backup.json` with
the hash of each file. Chroma's index is not in it: it is made anew from the vectors in SQL.
"""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from persona_mcp.config.database import MIGRATION_LOCK, current_revision
from persona_mcp.config.index import FOLDER as INDEX
from persona_mcp.config.postgres import is_postgres
from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import (
    Conflict,
    InvalidParams,
    NotConfigured,
    NotFound,
    StorageUnavailable,
)
from persona_mcp.state.ids import new_id

FORMAT = "persona-mcp-backup/1"
MANIFEST = "backup.json"
CHECKPOINTS, DATABASE = "checkpoints.db", "persona.db"
DIALOGUES = "dialogues"
DATABASES = (CHECKPOINTS, DATABASE)
"""In the order in which they are copied: what a checkpoint tells of is in SQL already."""
PAGES = 1024
"""Copied between two looks at the caller: 4 MiB."""
SQLITE = b"SQLite format 3\x00"
LOGS = ("-wal", "-shm")
ASIDE = "before-restore"

Told = Callable[[str, int, int], None]
"""Is told the name of a file, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Backup:
    """What `backup.json` says.

    Attributes:
        format: Of the folder.
        version: Of the program that made it.
        revision: Of the database's schema.
        made_at: Seconds since the epoch, UTC.
        files: By path within the folder: `sha256` and `bytes` of each.
    """

    format: str
    version: str
    revision: str | None
    made_at: float
    files: dict[str, dict[str, Any]]

    @property
    def bytes(self) -> int:
        """How much it is, in bytes."""
        return sum(int(file["bytes"]) for file in self.files.values())


def back_up(settings: Settings, folder: Path, told: Told) -> Backup:
    """Copy the data folder into a new folder; servers go on meanwhile.

    Each database is copied as it stood at one moment, and checked. The folder appears when it is
    whole; until then its name ends in `.part`.

    Args:
        settings: Whose data folder.
        folder: To be made; it must not be there.
        told: Is told of progress.

    Raises:
        InvalidParams: The folder is there already, or lies in the data folder.
        NotFound: There is no database yet.
        NotConfigured: The data is in PostgreSQL, which has tools of its own for that.
        StorageUnavailable: It cannot be read, or there is no room.
    """
    refuse_postgres(settings)
    folder = folder.expanduser().absolute()
    source = settings.data_dir
    if folder.exists():
        raise InvalidParams.one("FOLDER", "a folder that is not there yet", str(folder))
    if folder.resolve().is_relative_to(source.resolve()):
        raise InvalidParams.one("FOLDER", "a folder outside the data folder", str(folder))
    if not (source / DATABASE).exists():
        raise NotFound(
            "there is no database in the data folder yet: nothing to back up", kind="database"
        )
    part = folder.with_name(f"{folder.name}.{new_id()[:8]}.part")
    try:
        part.mkdir(parents=True, mode=0o700)
        names = copied(settings, source, part, told)
        made = Backup(
            format=FORMAT,
            version=version("persona-mcp"),
            revision=current_revision(settings.model_copy(update={"data_dir": part})),
            made_at=time.time(),
            files={name: identity(part / name) for name in names},
        )
        (part / MANIFEST).write_text(json.dumps(asdict(made), indent=1) + "\n", encoding="utf-8")
        settle(part)
        part.rename(folder)
    except (OSError, sqlite3.Error) as error:
        raise StorageUnavailable(
            "the backup could not be made (no room, not allowed, or the database is damaged: "
            "`persona doctor` tells); nothing was left behind"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def refuse_postgres(settings: Settings) -> None:
    """Leave PostgreSQL to its own tools.

    Raises:
        NotConfigured: The data is there.
    """
    if is_postgres(settings):
        raise NotConfigured(
            "the data is in PostgreSQL (PERSONA_DATABASE__URL): back it up with pg_dump and put it "
            "back with pg_restore; docs/running.md says what else to copy"
        )


def copied(settings: Settings, source: Path, part: Path, told: Told) -> list[str]:
    """Copy what a backup holds, and return the names of the files."""
    names = [name for name in DATABASES if (source / name).exists()]
    for name in names:
        copy_database(source / name, part / name, settings.database.busy_s, told)
    for file in files_in(source / DIALOGUES):
        name = file.relative_to(source).as_posix()
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        if is_database(file):
            copy_database(file, part / name, settings.database.busy_s, told)
        else:
            shutil.copyfile(file, part / name)
        names.append(name)
    return names


def copy_database(source: Path, target: Path, busy_s: float, told: Told) -> None:
    """Copy a database as it stands now, and check the copy.

    Raises:
        StorageUnavailable: The copy is damaged, and so is what it was made of.
        sqlite3.Error: It cannot be read or written.
    """

    def progress(_: int, left: int, total: int) -> None:
        told(source.name, total - left, total)

    address = f"{source.resolve().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(address, uri=True, timeout=busy_s)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        reader.isolation_level = None
        reader.execute("BEGIN")  # or each write of others would make the copy begin again
        reader.execute("SELECT 1 FROM sqlite_master").fetchall()
        reader.backup(writer, pages=PAGES, progress=progress)
        writer.execute("PRAGMA journal_mode=DELETE")
        (found,) = writer.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise StorageUnavailable(f"{source.name} is damaged ({found}); no backup was made of it")


def read_backup(folder: Path) -> Backup:
    """Read what a backup says of itself, and check each of its files against it.

    Raises:
        InvalidParams: It is no backup, is incomplete, or was changed.
    """
    try:
        made = Backup(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        known = made.format == FORMAT and DATABASE in made.files
    except (OSError, ValueError, TypeError) as error:
        raise InvalidParams.one(
            "FOLDER", f"a backup: a folder with {MANIFEST}", str(folder)
        ) from error
    if not known:
        raise InvalidParams.one("FOLDER", f"a backup of format {FORMAT}", str(folder))
    for name, expected in made.files.items():
        file = folder / name
        inside = file.resolve().is_relative_to(folder.resolve())
        if not inside or not file.is_file() or identity(file) != expected:
            raise InvalidParams.one(
                "FOLDER", f"a backup whose {name} is whole and unchanged", str(folder)
            )
    return made


def restore(settings: Settings, folder: Path) -> tuple[Backup, Path | None]:
    """Put a backup in the place of the data folder's content, which is kept beside it.

    Nothing else may use the data folder. What a failure interrupts can be run again.

    Returns:
        The backup, and the folder into which the old content went; None where there was none.

    Raises:
        InvalidParams: It is no backup, is incomplete, or was changed.
        Conflict: A process uses the data folder.
        NotConfigured: The data is in PostgreSQL, which has tools of its own for that.
        StorageUnavailable: It cannot be written.
    """
    refuse_postgres(settings)
    made = read_backup(folder)
    target = settings.data_dir
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Who starts meanwhile waits for this lock before it opens the database.
        with FileLock(target / MIGRATION_LOCK, timeout=settings.database.busy_s):
            refuse_users(target)
            return made, put_in_place(made, folder, target)
    except Timeout as error:
        raise in_use() from error
    except (OSError, sqlite3.Error) as error:
        raise StorageUnavailable(
            "the data folder could not be written; its old content is in it or in its folder "
            f"{ASIDE}-..., run this again"
        ) from error


def put_in_place(made: Backup, folder: Path, target: Path) -> Path | None:
    """Copy a backup beside what is there, put that aside, and move the copy in."""
    new = target / f".restoring-{new_id()[:8]}"
    try:
        for name in made.files:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, new / name)
        settle(new)
        with undisturbed():
            aside = put_aside(target)
            for name in (DIALOGUES, CHECKPOINTS, DATABASE):  # the truth last
                if (new / name).exists():
                    os.replace(new / name, target / name)
            settle(target, deep=False)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return aside


@contextmanager
def undisturbed() -> Iterator[None]:
    """Take no notice of Ctrl-C and SIGTERM in a block that is soon over, and bad to be cut."""
    if threading.current_thread() is not threading.main_thread():
        yield  # they are raised in the main thread alone
        return
    ends = (signal.SIGINT, signal.SIGTERM)
    usual = [(end, signal.signal(end, signal.SIG_IGN)) for end in ends]
    try:
        yield
    finally:
        for end, handler in usual:
            signal.signal(end, handler)


def put_aside(target: Path) -> Path | None:
    """Move what a data folder holds into a folder of its own within it."""
    for name in DATABASES:
        if (target / name).exists():
            fold_log(target / name)
    logs = [f"{name}{end}" for name in DATABASES for end in LOGS]
    held = (*DATABASES, *logs, DIALOGUES, INDEX)
    there = [target / name for name in held if (target / name).exists()]
    if not there:
        return None
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = target / f"{ASIDE}-{moment}-{new_id()[:8]}"
    aside.mkdir()
    for path in there:
        path.rename(aside / path.name)
    return aside


def fold_log(file: Path) -> None:
    """Bring a database's log into the file; of a damaged one it stays, and is put aside too."""
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def refuse_users(target: Path) -> None:
    """Make sure that no process uses a data folder.

    Raises:
        Conflict: One does.
    """
    for file in (target / "processes").glob("*.lock"):
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise in_use() from error
        lock.release()


def in_use() -> Conflict:
    """Say that somebody is at work in the data folder."""
    return Conflict(
        "a process uses the data folder; end `persona serve`, `persona mcp` and the MCP clients "
        "that started it, then run this again"
    )


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files under a folder, but for the logs of databases."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.endswith((*LOGS, ".lock")):
            yield file


def is_database(file: Path) -> bool:
    """Tell an SQLite database by its first bytes."""
    with file.open("rb") as opened:
        return opened.read(len(SQLITE)) == SQLITE


def identity(file: Path) -> dict[str, Any]:
    """Return hash and length of a file."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"sha256": digest, "bytes": file.stat().st_size}


def settle(folder: Path, *, deep: bool = True) -> None:
    """Have the disk keep a folder, and what is in it, before we go on."""
    for path in [*(folder.rglob("*") if deep else ()), folder]:
        if os.name == "nt" and path.is_dir():
            continue
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
