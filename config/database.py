"""The SQL engine, and its migrations."""

import asyncio
import importlib
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import structlog
from filelock import FileLock, Timeout
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    String,
    column,
    create_engine,
    event,
    inspect,
    select,
    table,
)
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

from persona_mcp import migrations
from persona_mcp.config.database_settings import DatabaseSettings
from persona_mcp.config.postgres import check_extra, is_postgres
from persona_mcp.config.settings import Settings
from persona_mcp.state.database import Database
from persona_mcp.state.database_faults import fault_of, state_of
from persona_mcp.state.dialect import POSTGRES
from persona_mcp.state.errors import DeadlineExceeded, StorageUnavailable
from persona_mcp.state.json_text import read_json, write_json

log = structlog.get_logger(__name__)

MIGRATION_LOCK = "migration.lock"
"""Held by the one process that changes the schema; everybody else waits for it at the start."""
MIGRATIONS = 0x506572736F6E62
"""The advisory lock of whoever migrates a database of PostgreSQL."""
MIGRATIONS_LOCK = "the lock of migrations"
LOCKED = "55P03"
LATER_S = 5.0
"""The wait for that lock ends by its own limit, and not by that of its statement."""
REVISION_FILES = "[0-9]*_*.py"
REVISION = table("alembic_version", column("version_num", String))
"""Where Alembic keeps which revision the schema has."""
PAGE_BYTES = 1024
"""Of worlds in memory: most of their tables are small, and each has a page and more."""


def database_path(settings: Settings) -> Path:
    """Return the SQLite file in the data folder."""
    return settings.data_dir / "persona.db"


def database_url(settings: Settings) -> URL:
    """Return the file's address; whatever characters its folder has, it is that file."""
    return URL.create("sqlite", database=str(database_path(settings)))


def sqlite_in(folder: Path) -> Settings:
    """Return settings for a database in a folder of its own, whatever the environment says."""
    settings = Settings(data_dir=folder, _env_file=None)
    return settings.model_copy(update={"database": DatabaseSettings()})


def open_database(settings: Settings) -> Database:
    """Open the database; the schema must be there (`upgrade_database`).

    Raises:
        NotConfigured: It is on PostgreSQL, and the extra for it is not installed.
    """
    queue_s = settings.database.queue_s
    if is_postgres(settings):
        engine = postgres_engine().open_engine(settings)
        database = Database(engine, settings.database.connections - 1, queue_s)
    else:
        database = Database(open_sqlite(settings), queue_s=queue_s)
    if settings.database.echo:

        @event.listens_for(database.engine, "before_cursor_execute")
        def echo(
            _: Connection, cursor: DBAPICursor, statement: str, parameters: Any, *rest: object
        ) -> None:
            log.debug("sql", statement=statement)

    return database


def postgres_engine() -> ModuleType:
    """Return the module that needs PostgreSQL's driver.

    Raises:
        NotConfigured: The extra for it is not installed.
    """
    check_extra()
    return importlib.import_module("persona_mcp.config.postgres_engine")


def open_sqlite(settings: Settings) -> Engine:
    """Return the engine of the file in the data folder."""
    engine = sqlite_engine(settings, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # `Database` begins transactions, not the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a commit outlives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    return engine


def sqlite_engine(settings: Settings, **how: Any) -> Engine:
    """Return an engine of the file that waits for other processes as the settings say."""
    arguments = {"timeout": settings.database.busy_s}
    # SQLite forgets the pages that a connection has read once another one wrote: what is used next
    # is the one that was used last.
    return create_engine(
        database_url(settings),
        connect_args=arguments,
        pool_use_lifo=True,
        json_serializer=write_json,
        json_deserializer=read_json,
        **how,
    )


def migration_engine(settings: Settings) -> Engine:
    """Return the engine that a migration runs on.

    Raises:
        NotConfigured: It is on PostgreSQL, and the extra for it is not installed.
    """
    if not is_postgres(settings):
        return sqlite_engine(settings)
    engine: Engine = postgres_engine().open_alone(settings, settings.database.busy_s)
    return engine


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
        with migrating(settings):
            return upgrade_alone(settings)
    except OSError as error:
        raise StorageUnavailable(
            f"the data folder cannot be written: {settings.data_dir} ({error.strerror or error}); "
            "set PERSONA_DATA_DIR to one that can"
        ) from error
    except DBAPIError as error:
        raise not_upgraded(settings, error) from error


@contextmanager
def migrating(settings: Settings) -> Iterator[None]:
    """Be the one process that migrates the database.

    Raises:
        DeadlineExceeded: Another process has been migrating for longer than `database.upgrade_s`.
        OSError: The data folder cannot be written.
        DBAPIError: PostgreSQL cannot be reached.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with (
            FileLock(settings.data_dir / MIGRATION_LOCK, timeout=settings.database.upgrade_s),
            migrating_postgres(settings) if is_postgres(settings) else nullcontext(),
        ):
            yield
    except Timeout as error:
        raise DeadlineExceeded(
            "another process has been migrating the database for "
            f"{settings.database.upgrade_s:g} s; end it, or raise PERSONA_DATABASE__UPGRADE_S"
        ) from error


@contextmanager
def migrating_postgres(settings: Settings) -> Iterator[None]:
    """Hold the lock of migrations, which processes on other machines see too."""
    wait_s = settings.database.upgrade_s
    engine: Engine = postgres_engine().open_alone(settings, wait_s, wait_s + LATER_S)
    # Outside of a transaction, or PostgreSQL would end it for being silent.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATIONS})")
        except DBAPIError as error:
            if state_of(error) == LOCKED:
                raise Timeout(MIGRATIONS_LOCK) from error
            raise
        yield


def not_upgraded(settings: Settings, error: DBAPIError) -> StorageUnavailable:
    """Return what is told of an upgrade that the database refused."""
    if not is_postgres(settings):
        return StorageUnavailable(
            "the database cannot be opened or upgraded (locked, full, read-only, damaged, or not a "
            "database); nothing was changed"
        )
    return StorageUnavailable(f"{fault_of(error).message}; the schema was not changed")


def upgrade_alone(settings: Settings) -> tuple[str | None, str]:
    """Upgrade while no other process does.

    Raises:
        StorageUnavailable: A newer version of the program made the database.
    """
    before, newest = revisions(settings)
    if before != newest:
        importlib.import_module("persona_mcp.config.migrating").upgrade(settings)
    return before, newest


def has_database(settings: Settings) -> bool:
    """Tell whether anything was stored yet; nothing is made.

    Raises:
        StorageUnavailable: PostgreSQL did not answer.
    """
    if not is_postgres(settings):
        return database_path(settings).is_file()
    try:
        return current_revision(settings) is not None
    except DBAPIError as error:
        raise fault_of(error) from error


def check_revision(settings: Settings) -> None:
    """Make sure that a database can be read as it is; nothing is upgraded.

    Raises:
        StorageUnavailable: Another version of the program made it, or it is damaged.
    """
    try:
        before, newest = revisions(settings)
    except DBAPIError as error:
        if is_postgres(settings):
            raise fault_of(error) from error
        raise StorageUnavailable(
            "the database cannot be opened (locked, damaged, or not a database)"
        ) from error
    if before != newest:
        raise StorageUnavailable(
            "the database is of an older version of the program: run `persona db upgrade`",
            revision=before,
        )


def revisions(settings: Settings) -> tuple[str | None, str]:
    """Return the revision of the database, None for a new one, and the newest one.

    Raises:
        StorageUnavailable: A newer version of the program made the database.
    """
    before, known = current_revision(settings), known_revisions()
    if before not in (None, *known):
        raise StorageUnavailable(
            f"the database has revision '{before}', which this version does not know: a newer "
            "version made it; install that one, or set PERSONA_DATA_DIR to another folder",
            revision=before,
        )
    return before, known[-1]


def known_revisions() -> list[str]:
    """Return the revisions that the program has, the oldest first, from the names of their files.

    Alembic, which reads each file for that, is left to an upgrade: a command that has none to make
    would import and run more of it than of all else.
    """
    files = (Path(migrations.__file__).parent / "versions").glob(REVISION_FILES)
    return sorted(file.name.partition("_")[0] for file in files)


def current_revision(settings: Settings) -> str | None:
    """Read the schema's revision; None when there is no database yet."""
    if not is_postgres(settings) and not database_path(settings).exists():
        return None
    engine = migration_engine(settings)
    try:
        with engine.connect() as connection:
            if connection.dialect.name == POSTGRES:
                check_encoding(connection)
            if not inspect(connection).has_table(REVISION.name):
                return None
            return connection.scalar(select(REVISION.c.version_num))
    finally:
        engine.dispose()


def check_encoding(connection: Connection) -> None:
    """Make sure that a database of PostgreSQL can keep every text.

    Raises:
        StorageUnavailable: It cannot.
    """
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        raise StorageUnavailable(
            f"the database keeps text as {encoding}; create one with ENCODING 'UTF8'"
        )


async def ready_database(settings: Settings) -> Database:
    """Upgrade, then open: what a program does at its start."""
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
        settings = sqlite_in(Path(folder))
        upgrade_database(settings)
        with closing(sqlite3.connect(database_path(settings))) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")  # what is in memory has no log
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("VACUUM")
            return connection.serialize()
