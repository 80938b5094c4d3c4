import asyncio
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from persona_mcp.config.database import database_path, open_database, ready_database
from persona_mcp.config.settings import DatabaseSettings, Settings
from persona_mcp.state.database import Database
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.tables import World

pytestmark = pytest.mark.anyio

BUSY_S = 0.2


def world(id: str) -> dict[str, object]:
    return {"id": id, "name": id, "created_at": 0.0}


async def worlds(database: Database) -> list[str]:
    async with database.read() as connection:
        return list(await connection.scalars(select(World.id).order_by(World.id)))


async def test_a_write_is_there_when_the_block_ends(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert(World).values(world("a")))

    assert await worlds(database) == ["a"]
    assert database.is_sqlite


async def test_an_exception_in_a_write_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        async with database.write() as connection:
            await connection.execute(insert(World).values(world("a")))
            raise RuntimeError("half way")

    assert await worlds(database) == []


async def test_a_write_that_is_cancelled_leaves_nothing_and_the_next_one_works(
    database: Database,
) -> None:
    written = asyncio.Event()

    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(insert(World).values(world("a")))
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with database.write() as connection:
        await connection.execute(insert(World).values(world("b")))
    assert await worlds(database) == ["b"]


async def test_a_read_sees_one_moment(database: Database) -> None:
    async with database.read() as connection:
        before = list(await connection.scalars(select(World.id)))
        async with database.write() as other:
            await other.execute(insert(World).values(world("a")))
        after = list(await connection.scalars(select(World.id)))

    assert (before, after) == ([], [])
    assert await worlds(database) == ["a"]


async def test_writers_of_one_process_wait_for_each_other(database: Database) -> None:
    async def count_up() -> None:
        async with database.write() as connection:
            found = await connection.scalar(text("SELECT count(*) FROM worlds"))
            await asyncio.sleep(0)
            await connection.execute(insert(World).values(world(f"w{found:03}")))

    await asyncio.gather(*(count_up() for _ in range(30)))

    assert await worlds(database) == [f"w{n:03}" for n in range(30)]


async def test_a_broken_constraint_is_left_to_the_caller(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert(World).values(world("a")))

    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            await connection.execute(insert(World).values(world("a")))


async def test_a_locked_database_is_unavailable_after_the_limit(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None, database=DatabaseSettings(busy_s=BUSY_S))
    database = await ready_database(settings)
    other = sqlite3.connect(database_path(settings), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()

    with pytest.raises(StorageUnavailable, match="locked"):
        async with database.write():
            pass

    took = time.monotonic() - began
    assert BUSY_S <= took < BUSY_S + 2
    assert await worlds(database) == []
    other.execute("ROLLBACK")
    other.close()
    async with database.write() as connection:
        await connection.execute(insert(World).values(world("a")))
    await database.aclose()


async def test_a_database_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    database = open_database(Settings(data_dir=tmp_path / "nowhere", _env_file=None))

    with pytest.raises(StorageUnavailable, match="persona doctor") as caught:
        async with database.read():
            pass

    assert caught.value.retryable
    assert str(tmp_path) not in caught.value.message
    await database.aclose()
    await end_of_workers(others)


async def end_of_workers(others: set[threading.Thread]) -> None:
    """Wait for the driver's threads: after a failed connect nothing else waits for them."""
    async with asyncio.timeout(5):
        while any(
            "_connection_worker_thread" in t.name for t in set(threading.enumerate()) - others
        ):
            await asyncio.sleep(0.001)


async def test_a_statement_that_fails_is_unavailable_storage(database: Database) -> None:
    with pytest.raises(StorageUnavailable):
        async with database.read() as connection:
            await connection.execute(text("SELECT * FROM no_such_table"))
