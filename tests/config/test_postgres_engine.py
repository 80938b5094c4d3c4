"""The database on PostgreSQL: one writer, reads of one moment, and an end to every wait."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import IntegrityError

from persona_mcp.config.database import (
    MIGRATIONS,
    current_revision,
    has_database,
    open_database,
    ready_database,
    upgrade_database,
)
from persona_mcp.config.database_settings import DatabaseSettings
from persona_mcp.config.postgres_engine import NumberLoader
from persona_mcp.config.settings import Settings
from persona_mcp.state.database import Database
from persona_mcp.state.dialect import savepoint
from persona_mcp.state.errors import DeadlineExceeded, StorageUnavailable
from persona_mcp.state.soundness import fault_in
from persona_mcp.state.tables import Memory, World
from persona_mcp.state.transactions import WRITERS
from tests.postgres import Postgres, execute, fresh_database, stored
from tests.state.rows import fill

pytestmark = pytest.mark.anyio

LIMIT_S = 0.5
DIES_AT_COMMIT = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON worlds DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION die()
"""


def settings_of(url: str, tmp_path: Path, **limits: Any) -> Settings:
    database = DatabaseSettings(url=url, **limits)
    return Settings(_env_file=None, data_dir=tmp_path / "data", database=database)


@pytest.fixture
async def database(migrated_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    opened = open_database(settings_of(migrated_url, tmp_path))
    yield opened
    await opened.aclose()


def add(connection: Connection, id: str) -> None:
    connection.execute(insert(World).values(id=id, name=id, created_at=0.0))


async def worlds(database: Database) -> list[str]:
    return await database.read(lambda c: list(c.scalars(select(World.id).order_by(World.id))))


async def test_a_program_that_starts_makes_the_schema(postgres_url: str, tmp_path: Path) -> None:
    settings = settings_of(postgres_url, tmp_path)
    assert not has_database(settings)

    database = await ready_database(settings)
    await database.write(add, "a")

    assert has_database(settings)
    assert stored(postgres_url, "SELECT id FROM worlds") == [("a",)]
    assert not (settings.data_dir / "persona.db").exists()
    await database.aclose()


async def test_who_migrates_is_alone_on_every_machine(postgres_url: str, tmp_path: Path) -> None:
    settings = settings_of(postgres_url, tmp_path, upgrade_s=LIMIT_S)
    with psycopg.connect(postgres_url, autocommit=True) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(%s)", [MIGRATIONS])

        with pytest.raises(DeadlineExceeded, match="PERSONA_DATABASE__UPGRADE_S"):
            upgrade_database(settings)

    assert current_revision(settings) is None
    upgrade_database(settings)
    assert current_revision(settings) is not None


def test_a_database_that_cannot_keep_every_text_is_refused(
    postgres: Postgres, tmp_path: Path
) -> None:
    with fresh_database(postgres.url()) as url:
        execute(url, "CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", "latin")
        try:
            with pytest.raises(StorageUnavailable, match="ENCODING 'UTF8'"):
                upgrade_database(settings_of(postgres.url("latin"), tmp_path))
        finally:
            execute(url, "DROP DATABASE {} WITH (FORCE)", "latin")


def test_text_is_compared_by_its_bytes_and_whole_numbers_are_wide(migrated_url: str) -> None:
    kinds = stored(
        migrated_url,
        "SELECT table_name, column_name, data_type, collation_name FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name <> 'alembic_version'",
    )

    found = {kind for _, _, kind, _ in kinds}
    assert found <= {"text", "bigint", "double precision", "boolean", "json", "bytea", "tsvector"}
    assert [row for row in kinds if row[2] == "text" and row[3] != "C"] == []


async def test_processes_write_one_after_the_other(
    database: Database, migrated_url: str, tmp_path: Path
) -> None:
    other = open_database(settings_of(migrated_url, tmp_path))

    def count_up(connection: Connection) -> None:
        found = connection.scalar(select(func.count()).select_from(World))
        time.sleep(0.001)
        add(connection, f"w{found:03}")

    writes = [which.write(count_up) for _ in range(10) for which in (database, other)]
    await asyncio.gather(*writes)

    assert await worlds(database) == [f"w{n:03}" for n in range(20)]
    await other.aclose()


async def test_a_read_sees_one_moment_and_changes_nothing(database: Database) -> None:
    with database.reading() as connection:
        before = list(connection.scalars(select(World.id)))
        await database.write(add, "a")
        after = list(connection.scalars(select(World.id)))

    assert (before, after) == ([], [])
    with pytest.raises(StorageUnavailable, match="only reads"):
        await database.read(add, "b")
    assert await worlds(database) == ["a"]


async def test_the_wait_for_another_process_s_write_ends(migrated_url: str, tmp_path: Path) -> None:
    database = open_database(settings_of(migrated_url, tmp_path, busy_s=LIMIT_S))
    with psycopg.connect(migrated_url) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_xact_lock(%s)", [WRITERS])
        began = time.monotonic()

        with pytest.raises(StorageUnavailable, match="PERSONA_DATABASE__BUSY_S"):
            await database.write(add, "a")

        assert LIMIT_S <= time.monotonic() - began < LIMIT_S + 5
        assert await worlds(database) == []
    await database.write(add, "a")
    await database.aclose()


async def test_a_statement_that_takes_too_long_ends(migrated_url: str, tmp_path: Path) -> None:
    database = open_database(settings_of(migrated_url, tmp_path, statement_s=1))

    with pytest.raises(StorageUnavailable, match="PERSONA_DATABASE__STATEMENT_S"):
        await database.read(lambda c: c.execute(text("SELECT pg_sleep(20)")).all())

    assert await worlds(database) == []
    await database.aclose()


async def test_a_process_that_stands_still_in_a_write_holds_up_no_other(
    database: Database, migrated_url: str, tmp_path: Path
) -> None:
    still = open_database(settings_of(migrated_url, tmp_path, idle_s=1))
    began, go_on = threading.Event(), threading.Event()

    def stand(connection: Connection) -> None:
        add(connection, "a")
        began.set()
        go_on.wait(20)

    stuck = asyncio.create_task(still.write(stand))
    assert await asyncio.to_thread(began.wait, 20)

    await database.write(add, "b")
    go_on.set()

    with pytest.raises(StorageUnavailable, match="PERSONA_DATABASE__IDLE_S"):
        await stuck
    assert await worlds(database) == ["b"]
    await still.aclose()


async def test_more_at_once_than_there_are_connections_wait_and_the_wait_ends(
    migrated_url: str, tmp_path: Path
) -> None:
    database = open_database(settings_of(migrated_url, tmp_path, connections=2, pool_s=LIMIT_S))
    with database.reading(), database.reading(), ThreadPoolExecutor(1) as threads:

        def read() -> None:
            with database.reading():
                pass

        with pytest.raises(StorageUnavailable, match="PERSONA_DATABASE__POOL_S"):
            threads.submit(read).result(20)

    assert await worlds(database) == []
    await database.aclose()


async def test_what_may_have_been_stored_is_not_said_to_be_lost(
    database: Database, migrated_url: str
) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(DIES_AT_COMMIT)

    with pytest.raises(StorageUnavailable, match="same request_id"):
        await database.write(add, "a")

    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("DROP TRIGGER dies ON worlds")
    await database.write(add, "b")
    assert await worlds(database) == ["b"]


async def test_a_connection_that_is_lost_in_a_write_leaves_nothing(
    database: Database, migrated_url: str
) -> None:
    def work(connection: Connection) -> None:
        add(connection, "a")
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        execute(migrated_url, f"SELECT pg_terminate_backend({pid})")
        add(connection, "b")

    with pytest.raises(StorageUnavailable, match="connection was lost"):
        await database.write(work)

    assert await worlds(database) == []


async def test_a_server_that_was_restarted_is_found_again_without_an_error(
    postgres: Postgres, tmp_path: Path
) -> None:
    with fresh_database(postgres.url()) as url:
        database = await ready_database(settings_of(url, tmp_path))
        await database.write(add, "a")
        assert await worlds(database) == ["a"]

        postgres.restart()

        await database.write(add, "b")
        assert await worlds(database) == ["a", "b"]
        await database.aclose()


async def test_a_server_that_is_gone_is_unavailable_and_its_address_untold(
    postgres: Postgres, tmp_path: Path
) -> None:
    with fresh_database(postgres.url()) as url:
        database = await ready_database(settings_of(url, tmp_path))
        with postgres.stopped():
            with pytest.raises(StorageUnavailable, match="persona doctor") as caught:
                await worlds(database)
            with pytest.raises(StorageUnavailable):
                has_database(settings_of(url, tmp_path))
        assert caught.value.retryable
        assert str(postgres.folder) not in caught.value.message

        assert await worlds(database) == []
        await database.aclose()


async def test_a_refused_row_leaves_the_rest_of_its_transaction(database: Database) -> None:
    def work(connection: Connection) -> None:
        add(connection, "a")
        with pytest.raises(IntegrityError), savepoint(connection):
            add(connection, "a")
        add(connection, "b")

    await database.write(work)

    assert await worlds(database) == ["a", "b"]


async def test_sums_and_means_are_plain_numbers(database: Database) -> None:
    await database.write(add, "main")
    fill(database, 3)

    def read(connection: Connection) -> list[Any]:
        whole = select(func.sum(Memory.version), func.avg(Memory.version), func.sum(Memory.seq))
        return list(connection.execute(whole).one())

    assert [(type(n), n) for n in await database.read(read)] == [(int, 3), (float, 1.0), (int, 6)]


def test_numbers_of_any_size_keep_their_kind() -> None:
    read = NumberLoader(0).load

    assert [read(b"-3"), read(str(2**70).encode()), read(b"0.25")] == [-3, 2**70, 0.25]
    assert isinstance(read(b"2.0"), float)


async def test_a_character_that_cannot_be_kept_is_named_as_such(database: Database) -> None:
    with pytest.raises(StorageUnavailable, match="characters"):
        await database.write(add, "a\0b")


async def test_the_doctor_finds_memories_that_have_no_words(
    database: Database, migrated_url: str
) -> None:
    await database.write(add, "main")
    fill(database, 3)
    assert await database.read(fault_in) == ""

    with psycopg.connect(migrated_url) as connection:
        connection.execute("DELETE FROM memory_words WHERE seq = 2")

    assert (await database.read(fault_in)).startswith("1 memories")
