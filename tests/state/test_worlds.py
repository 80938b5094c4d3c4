"""Worlds as wholes: what is in each is counted, and one that is removed is gone everywhere."""

import pytest
from sqlalchemy import func, insert, select

from persona_mcp.state import tables
from persona_mcp.state.commit import commit_exchange
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, NotFound
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.index.vector_index import VectorIndex
from persona_mcp.state.memory.memories import search_words
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.table_base import Base
from persona_mcp.state.worlds import list_worlds, remove_world, use_of
from tests.doubles import WordEmbedder
from tests.state.rows import NOW, PARAMS, begin, commit_of, remember, spec
from tests.state.test_erasing import indexer_of

pytestmark = [pytest.mark.anyio, pytest.mark.databases]

SAVED = {"note": "", "format": "f", "sha256": "", "size": 0, "counts": {}, "payload": b""}


async def live(database: Database) -> None:
    """Have a talk, memories and a saved state in the world `main`, and a memory in `other`."""
    lease = await begin(database)
    mara = await PersonaStore(database).resolve("main", "mara")
    await commit_exchange(database, commit_of(lease, mara), PARAMS)
    await remember(database, "m2", "The ferry did not come.")
    await PersonaStore(database).ensure_world("other", "Other", [spec("Mara")], NOW)
    await remember(database, "o1", "The ferry sank.", world_id="other")
    state = {"world_id": "main", "id": "s1", "name": "default", "version": 1, "created_at": NOW}
    with database.writing() as connection:
        connection.execute(insert(tables.Snapshot).values(**state, **SAVED))


def rows_in(database: Database, world_id: str) -> dict[str, int]:
    """Count what every table has of a world."""
    its = [table for table in Base.metadata.sorted_tables if "world_id" in table.c]
    with database.reading() as connection:
        counts = {
            table.name: connection.scalar(
                select(func.count()).select_from(table).where(table.c.world_id == world_id)
            )
            for table in its
        }
    return {name: count for name, count in counts.items() if count}


async def test_each_world_is_told_with_what_is_in_it(database: Database, world: str) -> None:
    await live(database)

    main, other = await database.read(list_worlds)

    assert (main.id, main.personas, main.conversations, main.memories) == (world, 2, 1, 2)
    assert (main.saved_states, main.dialogues) == (1, 0)
    assert (other.id, other.name, other.personas, other.conversations) == ("other", "Other", 1, 0)
    assert (other.memories, other.saved_states) == (1, 0)
    assert await database.read(use_of, "other") == other


async def test_a_world_is_last_used_when_something_was_last_written_in_it(
    database: Database, world: str
) -> None:
    unused = await database.read(use_of, world)
    await remember(database, "m1", "The ferry came.", now=NOW + 60)

    used = await database.read(use_of, world)

    assert (unused.used_at, used.used_at) == (NOW, NOW + 60)


async def test_a_removed_world_is_gone_from_every_table_and_from_the_index(
    database: Database, world: str, chroma: VectorIndex
) -> None:
    await live(database)
    index = SyncedIndex(database, chroma, "double-64", 4)
    await indexer_of(database, index).work_off()
    [vector] = await WordEmbedder().embed_documents(["ferry"])
    await index.search(world, vector, "mara", 5)
    assert await chroma.versions(world)
    before = rows_in(database, "other")

    found, conversations = await database.write(remove_world, world, NOW)
    await index.forget()

    assert (found.id, found.memories, list(conversations)) == (world, 2, ["c1"])
    assert rows_in(database, world) == {}
    assert rows_in(database, "other") == before
    assert [one.id for one in await database.read(list_worlds)] == ["other"]
    assert await chroma.versions(world) == {}
    with database.reading() as connection:
        assert not search_words(connection, "ferry", world, "mara", 10)
        assert search_words(connection, "ferry", "other", "mara", 10)


async def test_what_runs_while_its_world_is_removed_is_not_stored(
    database: Database, world: str
) -> None:
    lease = await begin(database)
    mara = await PersonaStore(database).resolve(world, "mara")
    await database.write(remove_world, world, NOW)

    with pytest.raises(Conflict):
        await commit_exchange(database, commit_of(lease, mara), PARAMS)

    assert rows_in(database, world) == {}


async def test_a_world_that_is_not_there_is_not_removed(database: Database, world: str) -> None:
    with pytest.raises(NotFound, match="world 'mian' not found; did you mean main"):
        await database.write(remove_world, "mian", NOW)

    assert (await database.read(use_of, world)).personas == 2
