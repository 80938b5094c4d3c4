import asyncio
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError

from persona_mcp.config.database import database_path, open_database, ready_database
from persona_mcp.config.database_settings import DatabaseSettings
from persona_mcp.config.settings import Settings
from persona_mcp.state.correlation import correlation, current_correlation_id
from persona_mcp.state.database import Database
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.tables import World

pytestmark = pytest.mark.anyio

BUSY_S = 0.2


def world(id: str) -> dict[str, object]:
    return {"id": id, "name": id, "created_at": 0.0}


async def worlds(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.scalars(select(World.id).order_by(World.id)))


async def test_a_write_is_there_when_the_block_ends(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(insert(World).values(world("a")))

    assert await worlds(database) == ["a"]


async def test_an_exception_in_a_write_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError, match="half way"), database.writing() as connection:
        connection.execute(insert(World).values(world("a")))
        raise RuntimeError("half way")

    assert await worlds(database) == []


def add(connection: Connection, id: str) -> str:
    connection.execute(insert(World).values(world(id)))
    return id


async def test_a_function_runs_in_a_transaction_with_its_arguments_and_returns_its_result(
    database: Database,
) -> None:
    def count(connection: Connection, *, least: str) -> int:
        return len(connection.execute(select(World.id).where(World.id >= least)).all())

    assert await database.write(add, "a") == "a"
    assert await database.write(add, id="b") == "b"
    assert await database.read(count, least="b") == 1


async def test_transactions_run_in_threads_with_the_callers_correlation_id(
    database: Database,
) -> None:
    def where(connection: Connection) -> tuple[int, str | None]:
        return threading.get_ident(), current_correlation_id()

    with correlation("abc"):
        found = [await database.read(where), await database.write(where)]

    assert [id for _, id in found] == ["abc", "abc"]
    assert threading.get_ident() not in {thread for thread, _ in found}


async def test_a_write_that_is_cancelled_leaves_nothing_and_the_next_one_works(
    database: Database,
) -> None:
    written, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def write(connection: Connection) -> None:
        add(connection, "a")
        loop.call_soon_threadsafe(written.set)
        assert go_on.wait(5)

    task = asyncio.create_task(database.write(write))
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()

    await database.write(add, "b")
    assert await worlds(database) == ["b"]


async def test_a_write_that_is_cancelled_before_its_turn_never_runs(database: Database) -> None:
    go_on, ran = threading.Event(), []
    first = asyncio.create_task(database.write(lambda _: go_on.wait(5)))
    second = asyncio.create_task(database.write(lambda _: ran.append("second")))
    await asyncio.sleep(0)

    second.cancel()
    await asyncio.wait([second])
    go_on.set()

    assert await first
    await database.write(add, "a")
    assert ran == []


async def test_a_transaction_whose_turn_does_not_come_in_time_is_given_up(
    settings: Settings,
) -> None:
    limits = settings.database.model_copy(update={"queue_s": 0.1})
    database = await ready_database(settings.model_copy(update={"database": limits}))
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        begun.set()
        go_on.wait(BUSY_S * 100)

    writing = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(begun.wait)
    with pytest.raises(StorageUnavailable, match=r"took all of 0\.1 s.*QUEUE_S") as late:
        await database.write(add, "late")
    go_on.set()
    await writing

    assert late.value.data == {"limit": "queue_s", "seconds": 0.1}
    assert await worlds(database) == []
    assert await database.write(add, "in time") == "in time"
    await database.aclose()


async def test_closing_waits_for_what_still_runs(settings: Settings) -> None:
    database = await ready_database(settings)
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def write(connection: Connection) -> None:
        loop.call_soon_threadsafe(started.set)
        add(connection, "a")

    task = asyncio.create_task(database.write(write))
    await started.wait()
    await database.aclose()
    await task

    again = open_database(settings)
    assert await worlds(again) == ["a"]
    await again.aclose()


async def test_a_read_sees_one_moment(database: Database) -> None:
    with database.reading() as connection:
        before = list(connection.scalars(select(World.id)))
        with database.writing() as other:
            other.execute(insert(World).values(world("a")))
        after = list(connection.scalars(select(World.id)))

    assert (before, after) == ([], [])
    assert await worlds(database) == ["a"]


async def test_writers_of_one_process_wait_for_each_other(database: Database) -> None:
    def count_up(connection: Connection) -> None:
        found = connection.scalar(text("SELECT count(*) FROM worlds"))
        add(connection, f"w{found:03}")

    await asyncio.gather(*(database.write(count_up) for _ in range(30)))

    assert await worlds(database) == [f"w{n:03}" for n in range(30)]


async def test_a_broken_constraint_is_left_to_the_caller(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(insert(World).values(world("a")))

    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.execute(insert(World).values(world("a")))


async def test_a_locked_database_is_unavailable_after_the_limit(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None, database=DatabaseSettings(busy_s=BUSY_S))
    database = await ready_database(settings)
    other = sqlite3.connect(database_path(settings), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()

    with pytest.raises(StorageUnavailable, match="locked"), database.writing():
        pass

    took = time.monotonic() - began
    assert BUSY_S <= took < BUSY_S + 2
    assert await worlds(database) == []
    other.execute("ROLLBACK")
    other.close()
    with database.writing() as connection:
        connection.execute(insert(World).values(world("a")))
    await database.aclose()


async def test_a_database_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    database = open_database(Settings(data_dir=tmp_path / "nowhere", _env_file=None))

    with pytest.raises(StorageUnavailable, match="persona doctor") as caught:
        await worlds(database)

    assert caught.value.retryable
    assert str(tmp_path) not in caught.value.message
    await database.aclose()


async def test_a_statement_that_fails_is_unavailable_storage_and_the_next_one_works(
    database: Database,
) -> None:
    for transaction in (database.reading, database.writing):
        with pytest.raises(StorageUnavailable), transaction() as connection:
            connection.execute(text("SELECT * FROM no_such_table"))
        assert await database.write(add, transaction.__name__) == transaction.__name__

    assert await worlds(database) == ["reading", "writing"]


async def test_what_a_read_writes_is_undone(database: Database) -> None:
    with suppress(StorageUnavailable), database.reading() as connection:
        add(connection, "a")

    assert await worlds(database) == []


async def test_transactions_one_after_another_share_a_connection(database: Database) -> None:
    await database.write(add, "a")
    await database.write_unsynced(add, "b")
    await worlds(database)

    assert (database.connections()["open"], database.connections()["used"]) == (1, 0)
    with database.reading(), database.reading():
        assert (database.connections()["open"], database.connections()["used"]) == (2, 2)
    assert (database.connections()["open"], database.connections()["used"]) == (2, 0)


def level(connection: Connection) -> str:
    """Read what the commit of a transaction waits for."""
    asked = (
        "PRAGMA synchronous" if connection.dialect.name == "sqlite" else "SHOW synchronous_commit"
    )
    return str(connection.exec_driver_sql(asked).scalar())


@pytest.mark.databases
async def test_a_write_waits_for_the_disk_unless_it_is_of_no_use_after_a_power_cut(
    database: Database,
) -> None:
    waits = await database.write(level)
    found = [
        await database.write_unsynced(level),
        await database.write(level),
        await database.write_unsynced(level),
    ]

    assert found == ["1", waits, "1"] if waits == "2" else ["off", waits, "off"]
    assert waits in ("2", "on")


@pytest.mark.databases
async def test_a_write_waits_for_the_disk_after_one_that_did_not_wait_has_failed(
    database: Database,
) -> None:
    waits = await database.write(level)

    with pytest.raises(StorageUnavailable):
        await database.write_unsynced(lambda connection: connection.execute(text("SELECT nothing")))

    assert await database.write(level) == waits


@pytest.mark.databases
async def test_a_write_that_does_not_wait_for_the_disk_is_seen_at_once_all_or_nothing(
    database: Database,
) -> None:
    def half(connection: Connection) -> None:
        add(connection, "b")
        raise RuntimeError("half way")

    assert await database.write_unsynced(add, id="a") == "a"
    with pytest.raises(RuntimeError, match="half way"):
        await database.write_unsynced(half)

    assert await worlds(database) == ["a"]
