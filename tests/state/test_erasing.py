"""What is erased is gone from SQL and from the index; what is another's stays."""

from typing import Any

import pytest
from sqlalchemy import func, insert, select

from persona_mcp.state import tables
from persona_mcp.state.commit import commit_exchange
from persona_mcp.state.database import Database
from persona_mcp.state.erasing import count_persona, erase_persona, erase_world, world_tables
from persona_mcp.state.errors import Conflict, NotFound
from persona_mcp.state.index.indexer import Indexer, IndexerLimits
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.index.vector_index import VectorIndex
from persona_mcp.state.memory.memories import search_words
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.table_base import Base
from tests.doubles import WordEmbedder
from tests.state.rows import (
    NOW,
    PARAMS,
    PROCESS,
    begin,
    commit_of,
    nobody_is_gone,
    remember,
    rows_of,
    spec,
)

pytestmark = [pytest.mark.anyio, pytest.mark.databases]

P, M, V = tables.Persona, tables.Memory, tables.MemoryVector


async def live(database: Database) -> None:
    """Let Mara talk once, and have rows of every kind; Tobin has a memory and an arrow to her."""
    lease = await begin(database)
    mara = await PersonaStore(database).resolve("main", "mara")
    await commit_exchange(database, commit_of(lease, mara), PARAMS)
    await remember(database, "m2", "The ferry did not come.")
    await remember(database, "t1", "The ferry came late.", persona_id="tobin")
    with database.writing() as connection:
        for table, values in of_mara():
            connection.execute(insert(table).values(world_id="main", **values))


def of_mara() -> list[tuple[type[Base], dict[str, Any]]]:
    visual = {"type": "general", "data": {}, "description": "A red coat.", "size": 20}
    run = {"persona_id": "mara", "memory_ids": [], "at": NOW}
    arrow = {"arrow": {}, "as_of": NOW, "last_seq": 1}
    means = {"importance_archived": 0.0, "importance_kept": 0.0, "took_s": 0.0}
    return [
        (
            tables.PersonaCard,
            {
                "persona_id": "mara",
                "spec": "v2",
                "spec_version": "2.0",
                "carrier": "json",
                "card": "{}",
                "imported_at": NOW,
            },
        ),
        (
            tables.VisualContext,
            {"target_kind": "persona", "target": "mara", "updated_at": NOW, **visual},
        ),
        (
            tables.VisualContext,
            {"target_kind": "scene", "target": "mara", "updated_at": NOW, **visual},
        ),
        (
            tables.PruneRun,
            {
                "id": "p1",
                "origin": "asked",
                "strategy": "score",
                "params": {},
                "scores": [],
                "before": 2,
                "archived": 0,
                "faded": 0,
                **means,
                **run,
            },
        ),
        (
            tables.DecayRun,
            {
                "id": "d1",
                "factor": 0.1,
                "processed": 2,
                "decayed": 0,
                "importance_before": [],
                "importance_after": [],
                **run,
            },
        ),
        (tables.RelationshipState, {"from_id": "tobin", "to_id": "mara", **arrow}),
        (tables.RelationshipState, {"from_id": "tobin", "to_id": "ann", **arrow}),
    ]


def indexer_of(database: Database, index: SyncedIndex) -> Indexer:
    limits = IndexerLimits(batch=16, claim_s=30.0, poll_s=0.01, attempts=3)
    return Indexer(database, index, WordEmbedder(), limits, PROCESS, nobody_is_gone, lambda: NOW)


async def hits(index: SyncedIndex, reader: str) -> set[str]:
    vector = await WordEmbedder().embed_query("ferry")
    return {hit.memory_id for hit in await index.search("main", vector, reader, 10)}


async def test_a_persona_goes_with_everything_that_is_its_own(
    database: Database, world: str, chroma: VectorIndex
) -> None:
    await live(database)
    index = SyncedIndex(database, chroma, "double-64", 4)
    await indexer_of(database, index).work_off()
    assert await hits(index, "mara") >= {"m2"}

    with database.writing() as connection:
        would = count_persona(connection, world, "mara")
        gone = erase_persona(connection, world, "mara", NOW)
    await index.forget()

    assert gone == would
    assert {name: n for name, n in gone.items() if n} == {
        "memories": 2,
        "vectors": 2,
        "relationships": 2,
        "relationship_events": 1,
        "mood_impulses": 1,
        "energy_spent": 2,
        "persona_states": 1,
        "prune_runs": 1,
        "decay_runs": 1,
        "persona_versions": 1,
        "persona_cards": 1,
        "visual_contexts": 1,
    }
    with database.reading() as connection:
        assert not any(count_persona(connection, world, "mara").values())
        assert search_words(connection, "ferry", world, "mara", 10) == {}
    assert await hits(index, "mara") == set()
    assert (await chroma.versions(world)).keys() == {"t1"}


async def test_what_is_anothers_stays_when_a_persona_goes(database: Database, world: str) -> None:
    await live(database)

    with database.writing() as connection:
        erase_persona(connection, world, "mara", NOW)

    assert [row.id for row in await rows_of(database, M)] == ["t1"]
    assert [row.to_id for row in await rows_of(database, tables.RelationshipState)] == ["ann"]
    assert [row.target_kind for row in await rows_of(database, tables.VisualContext)] == ["scene"]
    assert [row.content for row in await rows_of(database, tables.Turn, tables.Turn.number)] == [
        "What happened that winter?",
        "The harbour froze.",
    ]


async def test_an_erased_persona_leaves_its_id_taken_its_name_free_and_nothing_else(
    database: Database, world: str
) -> None:
    store = PersonaStore(database)
    made = await store.create(
        world, spec("Vesna", description="You keep bees.", tags=["bees"]), NOW
    )

    with database.writing() as connection:
        erase_persona(connection, world, made.id, NOW + 1)

    with pytest.raises(NotFound):
        await store.resolve(world, "Vesna")
    again = await store.create(world, spec("Vesna"), NOW + 2)
    assert again.id == "vesna-2"
    (left,) = [row for row in await rows_of(database, P) if row.id == made.id]
    assert (left.name, left.description, left.tags) == ("", "", [])
    assert left.deleted_at == NOW + 1


async def test_a_world_is_emptied_and_is_still_there(
    database: Database, world: str, chroma: VectorIndex
) -> None:
    await live(database)
    store = PersonaStore(database)
    await store.ensure_world("other", "other", [spec("Mara")], NOW)
    await remember(database, "o1", "The ferry sank.", world_id="other")
    index = SyncedIndex(database, chroma, "double-64", 4)
    await indexer_of(database, index).work_off()
    await hits(index, "mara")

    with database.writing() as connection:
        gone = erase_world(connection, world, NOW)
    await index.forget()

    assert (gone["personas"], gone["memories"], gone["exchanges"], gone["turns"]) == (2, 3, 1, 2)
    with database.reading() as connection:
        for table in world_tables():
            query = select(func.count()).select_from(table).where(table.c.world_id == world)
            assert connection.scalar(query) == 0, table.name
    assert await chroma.versions(world) == {}
    await store.check_world(world)
    assert [row.id for row in await rows_of(database, M)] == ["o1"]
    assert (await store.resolve("other", "mara")).name == "Mara"


async def test_an_emptied_world_can_be_filled_with_the_same_ids_in_one_transaction(
    database: Database, world: str, chroma: VectorIndex
) -> None:
    await live(database)
    index = SyncedIndex(database, chroma, "double-64", 4)
    indexer = indexer_of(database, index)
    await indexer.work_off()
    await hits(index, "mara")
    kept = [dict(row._mapping) for row in await rows_of(database, M, M.seq)]
    vectors = [dict(row._mapping) for row in await rows_of(database, V, V.seq)]
    personas = [dict(row._mapping) for row in await rows_of(database, P)]

    with database.writing() as connection:
        erase_world(connection, world, NOW)
        connection.execute(insert(P), personas)
        for table, rows in ((M, kept), (V, vectors)):
            connection.execute(
                insert(table), [{k: v for k, v in row.items() if k != "seq"} for row in rows]
            )

    assert await hits(index, "mara") >= {"m2"}
    await index.forget()
    assert await hits(index, "mara") >= {"m2"}
    assert (await chroma.versions(world)).keys() == {row["id"] for row in kept}
    with database.reading() as connection:
        found = search_words(connection, "ferry", world, "tobin", 10)
        assert {row.seq for row in await rows_of(database, M) if row.id == "t1"} == found.keys()


async def test_what_runs_while_its_world_is_emptied_is_not_stored(
    database: Database, world: str
) -> None:
    lease = await begin(database)
    mara = await PersonaStore(database).resolve(world, "mara")
    with database.writing() as connection:
        erase_world(connection, world, NOW)

    with pytest.raises(Conflict):
        await commit_exchange(database, commit_of(lease, mara), PARAMS)

    assert await rows_of(database, tables.Turn) == []
