"""Near duplicates merged: nothing is lost, nobody learns anything, and it can be undone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import pack
from persona_mcp.state.errors import Conflict, NotFound
from persona_mcp.state.memory.memory import WholeMemory
from persona_mcp.state.memory.merging import Apart, Merge, Merging, merge, plan_merges, take_apart
from persona_mcp.state.memory.params import ConsolidationParams
from persona_mcp.state.memory.store import read_memories, whole_of
from persona_mcp.state.memory.uses import add_uses
from tests.doubles import WordEmbedder
from tests.state.rows import NOW, remember, rows_of

pytestmark = pytest.mark.anyio

MERGING = Merging("double-64", ConsolidationParams())
LATER = NOW + 100
V = tables.MemoryVector
FROZE = "The harbour froze."


async def embed(database: Database) -> None:
    """Write the vectors that are missing."""
    with database.writing() as connection:
        seen = set(connection.scalars(select(tables.MemoryVector.memory_id)))
        for row in connection.execute(select(tables.Memory)).all():
            if row.id not in seen:
                values = {
                    "world_id": row.world_id,
                    "memory_id": row.id,
                    "persona_id": row.persona_id,
                    "model_id": "double-64",
                    "version": row.version,
                    "vector": pack(await WordEmbedder().embed_query(row.content)),
                }
                connection.execute(insert(tables.MemoryVector).values(values))


async def plan(database: Database, merging: Merging = MERGING) -> list[Merge]:
    with database.reading() as connection:
        return plan_merges(connection, "main", "mara", merging)


async def merge_all(database: Database) -> list[Merge]:
    await embed(database)
    planned = await plan(database)
    with database.writing() as connection:
        return merge(connection, "main", planned, LATER)


async def memory(database: Database, id: str) -> WholeMemory:
    with database.reading() as connection:
        return whole_of(connection, "main", id)


async def snapshot(database: Database, ids: Sequence[str]) -> list[Any]:
    """Read the memories as searches and pages see them."""
    with database.reading() as connection:
        return list(read_memories(connection, "main", ids))


async def test_duplicates_become_one_that_keeps_every_source(
    database: Database, world: str
) -> None:
    await remember(database, "m1", FROZE, importance=0.4, turn_id="t1")
    await remember(database, "m2", FROZE, importance=0.8, turn_id="t2", now=NOW + 5)
    await remember(database, "m3", "A dog barked.")
    with database.writing() as connection:
        for id, conversation, exchange in (
            ("m1", "c1", "x1"),
            ("m2", "c1", "x1"),
            ("m2", "c2", "x2"),
        ):
            add_uses(connection, "main", [id], conversation, exchange, NOW + 50)

    (made,) = await merge_all(database)

    whole = await memory(database, made.id)
    assert made.sources == ("m2", "m1")
    known = {"sources": ["m2", "m1"], "merged_at": LATER, "beside": ["conversation"]}
    assert whole.origin == known
    found = whole.memory
    assert (found.content, found.importance, found.turn_id) == (FROZE, 0.8, None)
    assert (found.indexed_text, found.created_at) == (
        "[14 November 2023] Ann: The harbour froze.",
        NOW + 5,
    )
    assert (found.accessed_count, found.used_at) == (2, NOW + 50)
    assert whole.witnesses == ("ann", "mara")
    archived = {m.id: m.archived_at for m in await snapshot(database, ["m1", "m2", "m3"])}
    assert archived == {"m1": LATER, "m2": LATER, "m3": None}
    work = [row.memory_id for row in await rows_of(database, tables.OutboxEntry)]
    assert made.id in work


async def test_a_second_run_finds_nothing_and_a_plan_changes_nothing(
    database: Database, world: str
) -> None:
    for number in range(4):
        await remember(database, f"m{number}", FROZE, importance=number / 10)
    await embed(database)
    before = await rows_of(database, tables.Memory)

    planned = await plan(database)
    assert await rows_of(database, tables.Memory) == before

    assert await merge_all(database) == planned
    assert await merge_all(database) == []


async def test_taken_apart_the_sources_are_back_as_they_were_and_are_not_merged_again(
    database: Database, world: str
) -> None:
    await remember(database, "m1", FROZE)
    await remember(database, "m2", FROZE)
    before = await snapshot(database, ["m1", "m2"])
    (made,) = await merge_all(database)

    with database.writing() as connection:
        apart = take_apart(connection, "main", [made.id, "nowhere", made.id], NOW)

    assert apart == Apart((made.id,), ("m1", "m2"), ("nowhere",))
    after = await snapshot(database, ["m1", "m2"])
    assert after == [replace(one, pinned=True) for one in before]
    with pytest.raises(NotFound):
        await memory(database, made.id)
    assert await merge_all(database) == []


async def test_the_index_is_told_what_was_merged_and_what_is_back(
    database: Database, world: str
) -> None:
    await remember(database, "m1", FROZE)
    await remember(database, "m2", FROZE)
    (made,) = await merge_all(database)

    before = {row.memory_id: row.seq for row in await rows_of(database, V, V.seq)}
    gone = [("upsert", made.id), ("delete", "m1"), ("delete", "m2")]
    assert (await work(database))[-3:] == gone
    with database.writing() as connection:
        take_apart(connection, "main", [made.id], NOW)

    assert (await work(database))[-1:] == [("delete", made.id)]
    seqs = {row.memory_id: row.seq for row in await rows_of(database, V, V.seq)}
    assert all(seqs[id] > before[id] for id in ("m1", "m2"))


async def work(database: Database) -> list[tuple[str, str]]:
    rows = await rows_of(database, tables.OutboxEntry, tables.OutboxEntry.seq)
    return [(row.operation, row.memory_id) for row in rows]


async def test_what_was_merged_may_be_merged_again_and_still_leads_to_every_source(
    database: Database, world: str
) -> None:
    await remember(database, "m1", FROZE)
    await remember(database, "m2", FROZE)
    (first,) = await merge_all(database)
    await remember(database, "m3", FROZE, importance=0.9)

    (second,) = await merge_all(database)

    assert set(second.sources) == {first.id, "m3"}
    with database.writing() as connection:
        with pytest.raises(Conflict, match="archived"):
            take_apart(connection, "main", [second.id, first.id], NOW)
        with pytest.raises(Conflict, match="not merged"):
            take_apart(connection, "main", ["m3"], NOW)
        assert set(take_apart(connection, "main", [second.id], NOW).sources) == {first.id, "m3"}
        assert take_apart(connection, "main", [first.id], NOW).sources == ("m1", "m2")


@pytest.mark.parametrize(
    "other",
    [
        {"witnesses": ("mara",)},
        {"witnesses": ("ann", "mara", "tobin")},
        {"visibility": "public"},
        {"memory_type": "fact"},
        {"speaker_id": "tobin"},
        {"source_id": "tobin"},
        {"pinned": True},
        {"persona_id": "tobin"},
        {"related": ("tobin",)},
        {"values": {"active": False}},
        {"values": {"archived_at": NOW}},
    ],
)
async def test_only_what_the_same_parties_know_alike_is_merged(
    database: Database, world: str, other: dict[str, Any]
) -> None:
    await remember(database, "m1", FROZE)
    await remember(database, "m2", FROZE, **other)

    assert await merge_all(database) == []


async def test_what_has_no_vector_yet_waits(database: Database, world: str) -> None:
    await remember(database, "m1", FROZE)
    await remember(database, "m2", FROZE)

    assert await plan(database) == []


async def test_only_the_newest_are_compared(database: Database, world: str) -> None:
    for number in range(3):
        await remember(database, f"m{number}", FROZE, now=NOW + number)
    await embed(database)

    (found,) = await plan(database, Merging("double-64", ConsolidationParams(newest=2)))

    assert set(found.sources) == {"m1", "m2"}


@pytest.mark.parametrize(
    "since", [{"archived_at": NOW}, {"pinned": True}, {"version": 2}, {"active": False}]
)
async def test_what_has_changed_since_it_was_planned_is_not_merged(
    database: Database, world: str, since: dict[str, Any]
) -> None:
    await remember(database, "m1", FROZE)
    await remember(database, "m2", FROZE)
    await embed(database)
    planned = await plan(database)
    with database.writing() as connection:
        connection.execute(update(tables.Memory).where(tables.Memory.id == "m2").values(since))

    with database.writing() as connection:
        assert merge(connection, "main", planned, LATER) == []
