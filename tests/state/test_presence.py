"""Processes on several machines, or data folders, that share a database of PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.workers import alive
from persona_mcp.state.database import Database
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.liveness import Liveness
from persona_mcp.state.presence import FORGOTTEN_S, Presence
from tests.postgres import Postgres, on_postgres, stored

pytestmark = pytest.mark.anyio

QUICK = {"connect_s": 2.0, "statement_s": 1.0, "pool_s": 2.0}
GONE_S = 60.0
"""Long enough that nobody shows life by itself within a test."""


@pytest.fixture
async def shared(settings: Settings, migrated_url: str) -> AsyncIterator[Database]:
    opened = open_database(on_postgres(settings, migrated_url))
    yield opened
    await opened.aclose()


def process(database: Database, name: str) -> Presence:
    return Presence(database, name, GONE_S)


def age(url: str, name: str, seconds: float) -> None:
    """Let a process's last sign of life be so long ago."""
    stored(
        url,
        "UPDATE processes SET seen_at = seen_at - sign(seen_at) * %s WHERE id = %s RETURNING 1",
        seconds,
        name,
    )


async def test_a_process_that_shows_life_is_not_gone_and_one_that_fell_silent_is(
    shared: Database, migrated_url: str
) -> None:
    one, two = process(shared, "one"), process(shared, "two")
    await one.turn()
    await two.turn()
    assert not one.is_gone("two")

    age(migrated_url, "two", GONE_S + 1)
    await one.turn()
    assert one.is_gone("two")

    await two.turn()
    await one.turn()
    assert not one.is_gone("two")


async def test_a_process_that_says_that_it_ends_is_gone_at_once(shared: Database) -> None:
    one, two = process(shared, "one"), process(shared, "two")
    await one.turn()
    await two.turn()

    await two.end()
    await one.turn()

    assert one.is_gone("two")


async def test_of_a_process_never_heard_of_nothing_is_known(shared: Database) -> None:
    one = process(shared, "one")
    await one.turn()

    await process(shared, "late").turn()

    assert not one.is_gone("late")
    assert not one.is_gone("never-seen")


async def test_a_process_is_never_gone_to_itself_even_when_it_stood_still(
    shared: Database, migrated_url: str
) -> None:
    one = process(shared, "one")
    await one.turn()
    age(migrated_url, "one", 10 * GONE_S)

    await one.turn()

    assert not one.is_gone("one")


async def test_rows_of_processes_long_gone_are_removed(shared: Database, migrated_url: str) -> None:
    for name in ("ended", "killed", "young"):
        await process(shared, name).turn()
    await process(shared, "ended").end()
    age(migrated_url, "ended", FORGOTTEN_S + 60)
    age(migrated_url, "killed", FORGOTTEN_S + 60)

    await process(shared, "new").turn()

    found = stored(migrated_url, "SELECT id FROM processes ORDER BY id")
    assert found == [("new",), ("young",)]


async def test_the_clock_is_the_databases_whatever_this_machine_says(
    shared: Database, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600.0)  # as if it had been set back
    one = process(shared, "one")
    await one.turn()

    [(now,)] = stored(migrated_url, "SELECT extract(epoch FROM clock_timestamp())::float8")

    assert one.now() == pytest.approx(now, abs=5.0)
    assert stored(migrated_url, "SELECT seen_at FROM processes")[0][0] == pytest.approx(now, abs=5)


@asynccontextmanager
async def living(settings: Settings, database: Database, folder: str) -> AsyncIterator[Liveness]:
    chosen = settings.model_copy(update={"data_dir": settings.data_dir / folder})
    async with alive(chosen, database) as liveness:
        yield liveness


async def test_two_data_folders_see_each_other_through_the_database(
    settings: Settings, shared: Database, migrated_url: str
) -> None:
    given = on_postgres(settings, migrated_url, gone_s=6.0)
    async with living(given, shared, "a") as one:
        async with living(given, shared, "b") as two:
            assert not one.is_gone(two.owner)
            ended = two.owner
        rows = dict(stored(migrated_url, "SELECT id, seen_at FROM processes"))
        assert rows[ended] < 0 < rows[one.owner]

        async def heard() -> None:
            while not one.is_gone(ended):
                await asyncio.sleep(0.05)

        await asyncio.wait_for(heard(), 30.0)


async def test_two_on_one_data_folder_know_at_once(
    settings: Settings, shared: Database, migrated_url: str
) -> None:
    given = on_postgres(settings, migrated_url)
    async with living(given, shared, "a") as one:
        async with living(given, shared, "a") as two:
            assert not one.is_gone(two.owner)

        assert one.is_gone(two.owner)


async def test_a_process_ends_though_the_database_is_away(
    settings: Settings, postgres: Postgres, migrated_url: str
) -> None:
    given = on_postgres(settings, migrated_url, **QUICK)
    database = open_database(given)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(living(given, database, "a"))
        with postgres.stopped():
            await stack.aclose()
    await database.aclose()

    assert not list((given.data_dir / "a" / "processes").glob(f"{one.owner}*"))


async def test_no_process_begins_while_the_database_is_away(
    settings: Settings, postgres: Postgres, migrated_url: str
) -> None:
    given = on_postgres(settings, migrated_url, **QUICK)
    database = open_database(given)
    with postgres.stopped(), pytest.raises(StorageUnavailable):
        async with living(given, database, "a"):
            pass
    await database.aclose()
