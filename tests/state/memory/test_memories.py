from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, update

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.memory.memories import (
    CANDIDATES,
    NEIGHBOURS,
    read_candidates,
    reading,
    search_words,
    visible,
)
from persona_mcp.state.memory.store import (
    BY_IDS,
    WITNESSES,
    Source,
    add_memories,
    read_memories,
)
from persona_mcp.state.memory.uses import USED, add_uses
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.prepared import Prepared
from tests.state.rows import NOW, new_memory, remember, rows_of

pytestmark = pytest.mark.anyio

M = tables.Memory
EVERYBODY = ("mara", "tobin", "ann", "a_b", "aXb", "A_B", "", "%", '","')

# name: (values of the memory, who may see it, who may find it by a search)
CASES: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    "private": ({}, {"mara", "ann"}, {"mara"}),
    "private, nobody else was there": ({"witnesses": ()}, {"mara"}, {"mara"}),
    "private, though somebody is named": (
        {"witnesses": (), "related": ("tobin",)},
        {"mara"},
        {"mara"},
    ),
    "shared with who was there": (
        {"visibility": "shared"},
        {"mara", "ann"},
        {"mara", "ann"},
    ),
    "shared with who is named": (
        {"visibility": "shared", "witnesses": (), "related": ("tobin", "zoe")},
        {"mara", "tobin"},
        {"mara", "tobin"},
    ),
    "shared with an id that has a wildcard": (
        {"visibility": "shared", "witnesses": (), "related": ("a_b",)},
        {"mara", "a_b"},
        {"mara", "a_b"},
    ),
    "shared with an id of capitals": (
        {"visibility": "shared", "witnesses": (), "related": ("A_B", "other")},
        {"mara", "A_B"},
        {"mara", "A_B"},
    ),
    "public": (
        {"visibility": "public", "witnesses": ()},
        set(EVERYBODY),
        set(EVERYBODY),
    ),
}
every_case = pytest.mark.parametrize("case", CASES)


@every_case
async def test_a_memory_is_visible_to_the_owner_who_was_there_who_is_named_or_all(
    database: Database, world: str, case: str
) -> None:
    values, who, _ = CASES[case]
    await remember(database, "m1", "The harbour froze.", **values)

    with database.reading() as connection:
        found = {
            reader
            for reader in EVERYBODY
            if connection.scalar(select(M.id).where(visible()), reading("main", reader))
        }

    assert found == who


@every_case
async def test_no_search_finds_a_memory_for_a_reader_who_may_not_know_it(
    database: Database, world: str, case: str
) -> None:
    values, _, recallable = CASES[case]
    await remember(database, "m1", "The harbour froze.", **values)

    by_words, by_key = set(), set()
    with database.reading() as connection:
        for reader in EVERYBODY:
            if search_words(connection, "harbour", "main", reader, 10):
                by_words.add(reader)
            if read_candidates(connection, "main", reader, "double-64", ["m1"], [1]):
                by_key.add(reader)

    assert by_words == by_key == recallable


@pytest.mark.parametrize(
    ("values", "still_read"), [({"active": False}, []), ({"archived_at": NOW}, [NOW])]
)
async def test_what_is_switched_off_or_archived_is_not_found(
    database: Database, world: str, values: dict[str, Any], still_read: list[float]
) -> None:
    await remember(database, "m1", "The harbour froze.", values=values)

    with database.reading() as connection:
        assert search_words(connection, "harbour", "main", "mara", 10) == {}
        rows = read_candidates(connection, "main", "mara", "double-64", ["m1"], [1])
    assert [row.archived_at for row in rows] == still_read


async def test_worlds_do_not_know_of_each_other(database: Database, world: str) -> None:
    await PersonaStore(database).ensure_world("other", "other", [], NOW)
    await remember(database, "m1", "The harbour froze.", world_id="other", visibility="public")

    with database.reading() as connection:
        assert search_words(connection, "harbour", "main", "mara", 10) == {}
        assert read_candidates(connection, "main", "mara", "double-64", ["m1"], [1]) == []
        assert read_memories(connection, "main", ["m1"]) == []
        assert len(read_memories(connection, "other", ["m1"])) == 1


async def test_a_memory_is_written_with_its_witnesses_and_the_work_for_the_index(
    database: Database, world: str
) -> None:
    with database.writing() as connection:
        add_memories(connection, "main", [new_memory("m1")], NOW, Source("c1", "x1", {}))

    (memory,) = await rows_of(database, M)
    assert memory.indexed_text == "[14 November 2023] Ann: The harbour froze."
    assert (memory.version, memory.active, memory.conversation_id) == (1, True, "c1")
    witnesses = await rows_of(database, tables.MemoryWitness, tables.MemoryWitness.party_id)
    assert [w.party_id for w in witnesses] == ["ann", "mara"]
    (entry,) = await rows_of(database, tables.OutboxEntry)
    assert (entry.memory_id, entry.operation, entry.version) == ("m1", "upsert", 1)
    assert (entry.attempts, entry.claimed_by, entry.claimed_until) == (0, None, 0.0)


async def test_nothing_to_remember_writes_nothing(database: Database, world: str) -> None:
    with database.writing() as connection:
        add_memories(connection, "main", [], NOW)
        add_uses(connection, "main", [], "c1", "x1", NOW)

    assert await rows_of(database, M) == []


async def test_a_use_counts_once_a_conversation_at_its_first_time_there_while_it_is_active(
    database: Database, world: str
) -> None:
    await remember(database, "m1", "The harbour froze.")
    used = (("c1", "x1", 5), ("c1", "x2", 9), ("c2", "x3", 7), ("c2", "x4", 6), ("c3", "x5", 20))
    with database.writing() as connection:
        for conversation, exchange, after in used:
            add_uses(connection, "main", ["m1", "m9"], conversation, exchange, NOW + after)
        for gone in ("x4", "x5"):
            uses = update(tables.MemoryUse).where(tables.MemoryUse.exchange_id == gone)
            connection.execute(uses.values(active=False))

        (memory,) = read_memories(connection, "main", ["m1", "m9"])

    assert (memory.accessed_count, memory.used_at) == (2, NOW + 7)
    assert memory.age_days(NOW + 7 + 86_400) == 1.0
    assert memory.age_days(NOW) == 0.0
    assert memory.related_personas == ()


async def test_a_memory_that_was_never_used_ages_from_when_it_was_made(
    database: Database, world: str
) -> None:
    await remember(database, "m1", "The harbour froze.")
    with database.reading() as connection:
        (memory,) = read_memories(connection, "main", ["m1"])

    assert (memory.accessed_count, memory.used_at) == (0, None)
    assert memory.age_days(NOW + 43_200) == 0.5


async def test_candidates_come_with_the_vector_of_the_right_embedder(
    database: Database, world: str
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await remember(database, "m2", "The harbour thawed.")
    with database.writing() as connection:
        for model_id, vector in (("double-64", b"ours"), ("another", b"theirs")):
            row = {"persona_id": "mara", "model_id": model_id, "version": 1, "vector": vector}
            connection.execute(
                insert(tables.MemoryVector).values(world_id="main", memory_id="m1", **row)
            )

        rows = read_candidates(connection, "main", "mara", "double-64", ["m1"], [1, 2])

    assert [(row.id, row.vector) for row in rows] == [("m1", b"ours"), ("m2", None)]


async def test_a_memory_that_is_deleted_takes_its_words_witnesses_and_uses_with_it(
    database: Database, world: str
) -> None:
    await remember(database, "m1", "The harbour froze.")
    with database.writing() as connection:
        add_uses(connection, "main", ["m1"], "c1", "x1", NOW)
        connection.execute(delete(M))

        assert search_words(connection, "harbour", "main", "mara", 10) == {}
    assert await rows_of(database, tables.MemoryWitness) == []
    assert await rows_of(database, tables.MemoryUse) == []


@pytest.mark.sqlite
@pytest.mark.parametrize("query", [CANDIDATES, NEIGHBOURS, WITNESSES, BY_IDS, USED])
async def test_memories_are_looked_up_by_key_and_no_query_walks_through_a_world(
    database: Database, world: str, query: Prepared
) -> None:
    its: dict[str, Any] = {"ids": ["m1"], "seqs": [1], "model": "m", **reading("main", "mara")}
    run: list[tuple[str, Any]] = []
    event.listen(
        database.engine,
        "before_cursor_execute",
        lambda c, cursor, sql, given, *_: run.append((sql, given)),
    )
    with database.reading() as connection:
        query.all(connection, **its)
        sql, given = run[-1]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given).all()

    assert plan
    assert not [step.detail for step in plan if step.detail.endswith("(world_id=?)")]
