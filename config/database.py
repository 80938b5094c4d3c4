"""The SQL engine, and its migrations."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from persona_mcp import migrations
from persona_mcp.config.settings import Settings
from persona_mcp.config.sqlite import open_sqlite
from persona_mcp.state.database import IMMEDIATE, Database
from persona_mcp.state.errors import DeadlineExceeded, StorageUnavailable

log = structlog.get_logger(__name__)


def database_path(settings: Settings) -> Path:
    """Return the SQLite file in the data folder."""
    return settings.data_dir / "persona.db"


def database_url(settings: Settings, driver: str = "sqlite") -> URL:
    """Return the file's address; whatever characters its folder has, it is that file."""
    return URL.create(driver, database=str(database_path(settings)))


def open_database(settings: Settings) -> Database:
    """Open the database; the schema must be there (`upgrade_database`)."""
    engine = create_async_engine(
        database_url(settings, "sqlite+aiosqlite"),
        hide_parameters=True,
        # SQLAlchemy begins transactions by itself (below); the driver must not.
        async_creator=partial(open_sqlite, database_path(settings), settings.database.busy_s),
    )
    sync = engine.sync_engine

    @event.listens_for(sync, "connect")
    def prepare(connection: DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a commit outlives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(sync, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get(IMMEDIATE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    if settings.database.echo:

        @event.listens_for(sync, "before_cursor_execute")
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
        with FileLock(settings.data_dir / "migration.lock", timeout=settings.database.upgrade_s):
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
    scripts = ScriptDirectory.from_config(config)
    before, newest = current_revision(settings), scripts.get_current_head() or ""
    known = {None, *(script.revision for script in scripts.walk_revisions())}
    if before not in known:
        raise StorageUnavailable(
            f"the database has revision '{before}', which this version does not know: a newer "
            "version made it; install that one, or set PERSONA_DATA_DIR to another folder",
            revision=before,
        )
    if before != newest:
        command.upgrade(config, "head")
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
