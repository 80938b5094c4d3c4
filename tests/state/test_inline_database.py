import sqlite3
import threading

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError, ResourceClosedError

from persona_mcp.config.database import empty_database
from persona_mcp.state import tables
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.inline_database import Copies, InlineDatabase
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


async def test_a_copy_that_is_used_again_is_as_it_was_frozen() -> None:
    with InlineDatabase(empty_database()) as first:
        await first.write(add_world, "main")
        frozen = first.freeze()
    copies = Copies()

    with copies.copy(frozen) as one:
        await one.write(add_world, "first")
    with copies.copy(bytes(bytearray(frozen))) as again:
        assert again is one
        assert await again.read(worlds) == ["main"]
        await again.write(add_world, "second")
        assert await again.read(worlds) == ["main", "second"]
    copies.close()


async def test_numbers_that_grow_begin_where_they_did() -> None:
    def newest(connection: Connection) -> int:
        connection.execute(
            text("CREATE TABLE IF NOT EXISTS counted (n INTEGER PRIMARY KEY AUTOINCREMENT)")
        )
        connection.execute(text("INSERT INTO counted DEFAULT VALUES"))
        return int(connection.execute(text("SELECT max(n) FROM counted")).scalar_one())

    copies = Copies()
    for _ in range(2):
        with copies.copy(empty_database()) as database:
            assert await database.write(newest) == 1
            assert await database.write(newest) == 2
    copies.close()


async def test_a_write_that_fails_in_a_copy_leaves_what_was_written_before() -> None:
    def half(connection: Connection) -> None:
        add_world(connection, "half")
        raise KeyError("half")

    copies = Copies()
    with copies.copy(empty_database()) as database:
        await database.write(add_world, "before")
        with pytest.raises(KeyError):
            await database.write(half)
        await database.write(add_world, "later")
        assert await database.read(worlds) == ["before", "later"]
    copies.close()


async def test_tasks_at_once_have_a_copy_each_and_other_worlds_others() -> None:
    with InlineDatabase(empty_database()) as first:
        await first.write(add_world, "main")
        frozen = first.freeze()
    copies = Copies()

    with copies.copy(frozen) as one, copies.copy(frozen) as other:
        assert one is not other
    with copies.copy(empty_database()) as empty:
        assert empty is not one and empty is not other
        assert await empty.read(worlds) == []
    copies.close()


async def test_a_copy_whose_task_failed_is_not_used_again() -> None:
    copies = Copies()

    with pytest.raises(KeyError), copies.copy(empty_database()) as failed:
        raise KeyError("a defect")
    with copies.copy(empty_database()) as next_one:
        assert next_one is not failed
    copies.close()
    with pytest.raises(ResourceClosedError):
        await failed.read(worlds)


async def test_no_more_copies_are_kept_than_asked_for_and_those_used_last() -> None:
    copies, frozen = Copies(kept=1), empty_database()

    with copies.copy(frozen) as last, copies.copy(frozen) as first:
        pass
    with copies.copy(frozen) as again, copies.copy(frozen) as another:
        assert again is last and another is not first
    with pytest.raises(ResourceClosedError):
        await first.read(worlds)
    copies.close()


async def test_copies_of_large_worlds_are_kept_as_long_as_they_are_not_too_large_together() -> None:
    frozen = empty_database()
    copies = Copies(most_bytes=len(frozen))

    with copies.copy(frozen) as last, copies.copy(frozen):
        pass
    with copies.copy(frozen) as again, copies.copy(frozen) as another:
        assert again is last
        assert another is not last
    copies.close()
    none = Copies(most_bytes=len(frozen) - 1)
    with none.copy(frozen) as one:
        pass
    with none.copy(frozen) as next_one:
        assert next_one is not one


async def test_a_copy_whose_transaction_sqlite_ended_is_not_used_again() -> None:
    def ends_it(connection: Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")
        raise KeyError("no memory left")

    copies = Copies()
    with copies.copy(empty_database()) as ended:
        await ended.write(add_world, "main")
        with pytest.raises(KeyError):
            await ended.write(ends_it)
    with copies.copy(empty_database()) as next_one:
        assert next_one is not ended
        assert await next_one.read(worlds) == []
    copies.close()
