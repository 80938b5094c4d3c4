import sqlite3
import threading

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError

from persona_mcp.config.database import empty_database
from persona_mcp.state import tables
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.inline_database import InlineDatabase
from tests.state.rows import NOW

pytestmark = pytest.mark.anyio


def add_world(connection: Connection, name: str) -> None:
    row = {"id": name, "name": name, "created_at": NOW, "bundled_at": None}
    connection.execute(insert(tables.World).values(row))


def worlds(connection: Connection) -> list[str]:
    return list(connection.scalars(select(tables.World.id).order_by(tables.World.id)))


async def test_what_is_written_is_in_the_frozen_copy_and_not_in_the_first() -> None:
    empty = empty_database()
    with InlineDatabase(empty) as first, InlineDatabase(empty) as second:
        await first.write(add_world, "main")
        assert await first.read(worlds) == ["main"]
        assert await second.read(worlds) == []
        frozen = first.freeze()
    with InlineDatabase(frozen) as copy:
        assert await copy.read(worlds) == ["main"]
        assert copy.freeze() == frozen


async def test_a_write_that_fails_leaves_nothing_and_the_next_one_works() -> None:
    def half(connection: Connection) -> None:
        add_world(connection, "half")
        raise KeyError("half")

    with InlineDatabase(empty_database()) as database:
        with pytest.raises(KeyError):
            await database.write(half)
        await database.write(add_world, "whole")
        assert await database.read(worlds) == ["whole"]


async def test_transactions_run_in_the_callers_thread() -> None:
    def where(_: Connection) -> threading.Thread:
        return threading.current_thread()

    with InlineDatabase(empty_database()) as database:
        here = threading.current_thread()
        assert await database.read(where) is here
        assert await database.write(where) is here


async def test_rows_without_what_they_refer_to_are_refused() -> None:
    def orphan(connection: Connection) -> None:
        connection.execute(
            text("INSERT INTO turn_witnesses VALUES ('nowhere', 'no turn', 'nobody')")
        )

    with (
        InlineDatabase(empty_database()) as database,
        pytest.raises(IntegrityError, match="FOREIGN KEY"),
    ):
        await database.write(orphan)


async def test_a_statement_that_the_database_refuses_is_an_error_of_ours() -> None:
    with InlineDatabase(empty_database()) as database, pytest.raises(StorageUnavailable):
        await database.read(lambda connection: connection.execute(text("SELECT * FROM nothing")))


def test_an_empty_database_has_every_table_and_no_log_beside_it() -> None:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(empty_database())
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert set(tables.World.metadata.tables) < names
    assert empty_database() is empty_database()
