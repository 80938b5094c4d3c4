"""The SQL engine, and its migrations."""

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

from persona_mcp import migrations
from persona_mcp.config.settings import Settings
from persona_mcp.state.database import Database
from persona_mcp.state.errors import DeadlineExceeded, StorageUnavailable

log = structlog.get_logger(__name__)

MIGRATION_LOCK = "migration.lock"
"""Held by the one process that changes the schema; everybody else waits for it at the start."""
PAGE_BYTES = 1024
"""Of worlds in memory: most of their tables are small, and each has a page and more."""


def database_path(settings: Settings) -> Path:
    """Return the SQLite file in the data folder."""
    return settings.data_dir / "persona.db"


def database_url(settings: Settings) -> URL:
    """Return the file's address; whatever characters its folder has, it is that file."""
    return URL.create("sqlite", database=str(database_path(settings)))


def open_database(settings: Settings) -> Database:
    """Open the database; the schema must be there (`upgrade_database`)."""
    engine = create_engine(
        database_url(settings),
        hide_parameters=True,
        connect_args={"timeout": settings.database.busy_s},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # `Database` begins transactions, not the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a commit outlives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    if settings.database.echo:

        @event.listens_for(engine, "before_cursor_execute")
        def echo(
            _: Connection, cursor: DBAPICursor, statement: str, parameters: Any, *rest: object
        ) -> None:
            log.debug("sql", statement=statement)

    return Database(engine)


def alembic_config(settings: Settings) -> Config:
    """Point Alembic at the packaged migrations and this database."""
    config = Config()
    folder = str(Path(migrations.__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["url"] = database_url(settings)
    config.attributes["busy_s"] = settings.database.busy_s
    return config


def upgrade_database(settings: Settings) -> tuple[str | None, str]:
    """Bring the schema to the newest revision, one process at a time.

    Returns:
        The revision before (None for a new database) and after.

    Raises:
        DeadlineExceeded: Another process has been migrating for longer than `database.upgrade_s`.
        StorageUnavailable: The data folder cannot be written, the file is not a database, or a
            newer version of the program made it.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(settings.data_dir / MIGRATION_LOCK, timeout=settings.database.upgrade_s):
            return upgrade_alone(settings)
    except Timeout as error:
        raise DeadlineExceeded(
            "another process has been migrating the database for "
            f"{settings.database.upgrade_s:g} s; end it, or raise PERSONA_DATABASE__UPGRADE_S"
        ) from error
    except OSError as error:
        raise StorageUnavailable(
            "the data folder cannot be written; set PERSONA_DATA_DIR to one that can"
        ) from error
    except DBAPIError as error:
        raise StorageUnavailable(
            "the database cannot be opened or upgraded (locked, full, read-only, damaged, or not a "
            "database); nothing was changed"
        ) from error


def upgrade_alone(settings: Settings) -> tuple[str | None, str]:
    """Upgrade while no other process does.

    Raises:
        StorageUnavailable: A newer version of the program made the database.
    """
    config = alembic_config(settings)
    before, newest = revisions(settings, config)
    if before != newest:
        command.upgrade(config, "head")
    return before, newest


def check_revision(settings: Settings) -> None:
    """Make sure that a database can be read as it is; nothing is upgraded.

    Raises:
        StorageUnavailable: Another version of the program made it, or it is damaged.
    """
    try:
        before, newest = revisions(settings, alembic_config(settings))
    except DBAPIError as error:
        raise StorageUnavailable(
            "the database cannot be opened (locked, damaged, or not a database)"
        ) from error
    if before != newest:
        raise StorageUnavailable(
            "the database is of an older version of the program: run `persona db upgrade`",
            revision=before,
        )


def revisions(settings: Settings, config: Config) -> tuple[str | None, str]:
    """Return the revision of the database, None for a new one, and the newest one.

    Raises:
        StorageUnavailable: A newer version of the program made the database.
    """
    scripts = ScriptDirectory.from_config(config)
    before, newest = current_revision(settings), scripts.get_current_head() or ""
    known = {None, *(script.revision for script in scripts.walk_revisions())}
    if before not in known:
        raise StorageUnavailable(
            f"the database has revision '{before}', which this version does not know: a newer "
            "version made it; install that one, or set PERSONA_DATA_DIR to another folder",
            revision=before,
        )
    return before, newest


def current_revision(settings: Settings) -> str | None:
    """Read the schema's revision; None when there is no database yet."""
    if not database_path(settings).exists():
        return None
    engine = create_engine(
        database_url(settings), connect_args={"timeout": settings.database.busy_s}
    )
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


async def ready_database(settings: Settings) -> Database:
    """Upgrade, then open: what a program does at its start on SQLite."""
    await asyncio.to_thread(upgrade_database, settings)
    return open_database(settings)


@cache
def empty_database() -> bytes:
    """Return an SQLite database that the migrations made and that has no row, as bytes.

    Worlds of batches begin as copies of it (`InlineDatabase`). It is made once a process.

    Raises:
        StorageUnavailable: There is no room for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="persona-schema-") as folder:
        settings = Settings(data_dir=Path(folder), _env_file=None)
        upgrade_database(settings)
        with closing(sqlite3.connect(database_path(settings))) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")  # what is in memory has no log
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("VACUUM")
            return connection.serialize()
