"""The driver's connection: one visit to its thread a statement, and nothing else is different."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.config.sqlite import WholeConnection, open_sqlite

pytestmark = pytest.mark.anyio


class Watched(WholeConnection):
    """Counts the visits to the thread."""

    visits = 0

    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self.visits += 1
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[WholeConnection]:
    opened = await open_sqlite(tmp_path / "some.db", 0.1)
    await opened.cursor().execute("CREATE TABLE t (n INTEGER PRIMARY KEY, word TEXT)")
    yield opened
    await opened.close()


async def test_rows_counts_and_columns_are_those_of_the_statement(
    connection: WholeConnection,
) -> None:
    cursor = connection.cursor()

    await cursor.executemany("INSERT INTO t (word) VALUES (?)", [("one",), ("two",)])
    inserted = cursor.rowcount
    await cursor.execute("SELECT n, word FROM t ORDER BY n")
    rows = await cursor.fetchall()
    columns = [column[0] for column in cursor.description]

    assert (inserted, columns) == (2, ["n", "word"])
    assert rows == [(1, "one"), (2, "two")]
    assert list(await cursor.fetchall()) == []


async def test_rows_that_a_change_returns_are_read_too(connection: WholeConnection) -> None:
    cursor = connection.cursor()

    await cursor.execute("INSERT INTO t (word) VALUES (?) RETURNING n", ("one",))

    assert await cursor.fetchall() == [(1,)]


async def test_a_statement_from_cursor_to_end_visits_the_thread_once(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    connection = Watched(lambda: sqlite3.connect(path, check_same_thread=False), 64)
    async with connection:
        before = connection.visits

        cursor = connection.cursor()
        await cursor.execute("SELECT 1")
        await cursor.fetchall()
        await cursor.close()

        assert connection.visits == before + 1


async def test_a_statement_that_is_wrong_raises_the_drivers_error(
    connection: WholeConnection,
) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await connection.cursor().execute("SELECT * FROM elsewhere")


async def test_a_caller_that_gives_up_leaves_a_connection_that_works(
    connection: WholeConnection,
) -> None:
    slow = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 300000) "
    call = asyncio.create_task(connection.cursor().execute(f"{slow} SELECT max(x) FROM c"))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])

    cursor = await connection.cursor().execute("SELECT 7")

    assert await cursor.fetchall() == [(7,)]
