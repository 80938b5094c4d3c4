import asyncio
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from persona_mcp.state import tables
from persona_mcp.state.commit import commit_exchange
from persona_mcp.state.conversations import ConversationStore
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import pack
from persona_mcp.state.errors import Conflict
from persona_mcp.state.exchanges import ExchangeStore
from persona_mcp.state.index.work import Vectors
from persona_mcp.state.persona import Persona
from persona_mcp.state.personas import PersonaStore
from tests.state.rows import (
    LEASE_S,
    NOW,
    PARAMS,
    begin,
    commit_of,
    counts,
    lease_of,
    new_memory,
    nobody_is_gone,
    rows_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.databases]


@pytest.fixture
async def mara(database: Database, world: str) -> Persona:
    return await PersonaStore(database).resolve(world, "mara")


@pytest.fixture
def store(database: Database) -> ExchangeStore:
    return ExchangeStore(database, nobody_is_gone)


async def test_a_commit_writes_everything_that_an_exchange_leaves_behind(
    database: Database, mara: Persona, store: ExchangeStore
) -> None:
    lease = await begin(database)

    await commit_exchange(database, commit_of(lease, mara, NOW + 1), PARAMS)

    assert await counts(database) == {
        "turns": 2,
        "turn_witnesses": 4,
        "relationship_events": 1,
        "relationship_states": 1,
        "mood_impulses": 1,
        "energy_spent": 2,
        "persona_states": 1,
        "memories": 1,
        "memory_witnesses": 2,
        "memory_uses": 0,
        "outbox": 1,
    }
    exchange = await store.get("main", "x1")
    assert (exchange.status, exchange.response) == ("done", "The harbour froze.")
    assert (exchange.outcome["tokens_used"], exchange.finished_at) == (12, NOW + 1)
    conversation = await ConversationStore(database).get("main", "c1")
    assert (conversation.head_exchange_id, conversation.turn_count) == ("x1", 2)
    assert conversation.updated_at == NOW + 1


async def test_what_was_embedded_before_is_committed_with_its_vector_and_the_rest_is_work(
    database: Database, mara: Persona
) -> None:
    lease = await begin(database)
    memories = new_memory("m1", "The ice broke."), new_memory("m2", "Ann sells bread.")
    vector = pack(np.array([0.6, 0.8], dtype=np.float32))
    vectors = Vectors("double-64", {memories[0].indexed_text(NOW): vector})

    whole = commit_of(lease, mara, memories=memories, vectors=vectors)
    stored = await commit_exchange(database, whole, PARAMS)

    assert stored.has_work
    (row,) = await rows_of(database, tables.MemoryVector)
    assert (row.memory_id, row.persona_id, row.version) == ("m1", "mara", 1)
    assert (row.model_id, row.vector) == ("double-64", vector)
    assert [row.memory_id for row in await rows_of(database, tables.OutboxEntry)] == ["m2"]


async def test_a_commit_of_which_all_is_embedded_leaves_no_work(
    database: Database, mara: Persona
) -> None:
    lease = await begin(database)
    memory = new_memory("m1")
    vectors = Vectors("double-64", {memory.indexed_text(NOW): b"\0\0"})

    commit = commit_of(lease, mara, memories=(memory,), vectors=vectors)
    stored = await commit_exchange(database, commit, PARAMS)

    assert not stored.has_work
    assert await rows_of(database, tables.OutboxEntry) == []


async def test_a_commit_that_comes_twice_changes_nothing(database: Database, mara: Persona) -> None:
    lease = await begin(database)
    commit = commit_of(lease, mara)
    await commit_exchange(database, commit, PARAMS)
    before = await counts(database), await rows_of(database, tables.PersonaState)

    await commit_exchange(database, commit, PARAMS)

    assert (await counts(database), await rows_of(database, tables.PersonaState)) == before


async def test_a_commit_that_fails_at_its_end_leaves_nothing(
    database: Database, mara: Persona, store: ExchangeStore
) -> None:
    first = await begin(database)
    await commit_exchange(database, commit_of(first, mara), PARAMS)
    before = await counts(database), await rows_of(database, tables.PersonaState)
    second = await begin(database, 2, NOW + 10)
    taken = new_memory("m-x1")

    with pytest.raises(IntegrityError):
        await commit_exchange(
            database, commit_of(second, mara, NOW + 11, memories=(taken,)), PARAMS
        )

    assert (await counts(database), await rows_of(database, tables.PersonaState)) == before
    assert (await store.get("main", "x2")).status == "running"
    conversation = await ConversationStore(database).get("main", "c1")
    assert (conversation.head_exchange_id, conversation.turn_count) == ("x1", 2)


async def test_a_run_that_lost_its_lease_writes_nothing(
    database: Database, mara: Persona, store: ExchangeStore
) -> None:
    lease = await begin(database)
    assert await store.claim(lease_of("x1", "host-2"), LEASE_S, NOW + 60)

    with pytest.raises(Conflict, match="lost its conversation"):
        await commit_exchange(database, commit_of(lease, mara), PARAMS)

    assert set((await counts(database)).values()) == {0}
    assert (await store.get("main", "x1")).status == "running"


async def test_a_run_that_was_marked_as_interrupted_writes_nothing(
    database: Database, mara: Persona, store: ExchangeStore
) -> None:
    lease = await begin(database)
    assert await store.sweep("main", NOW + 60) == 1

    with pytest.raises(Conflict):
        await commit_exchange(database, commit_of(lease, mara), PARAMS)

    assert set((await counts(database)).values()) == {0}


async def test_an_exchange_that_is_not_there_cannot_be_committed(
    database: Database, mara: Persona
) -> None:
    with pytest.raises(Conflict):
        await commit_exchange(database, commit_of(lease_of("x9"), mara), PARAMS)


async def test_turns_are_numbered_through_the_conversation(
    database: Database, mara: Persona, store: ExchangeStore
) -> None:
    for number in range(1, 4):
        lease = await begin(database, number, NOW + number)
        await commit_exchange(database, commit_of(lease, mara, NOW + number), PARAMS)

    turns = await rows_of(database, tables.Turn, tables.Turn.number)
    assert [(t.number, t.exchange_id, t.position) for t in turns] == [
        (1, "x1", 0),
        (2, "x1", 1),
        (3, "x2", 0),
        (4, "x2", 1),
        (5, "x3", 0),
        (6, "x3", 1),
    ]
    assert [t.speaker_version for t in turns[:2]] == [None, 1]


async def test_who_speaks_witnesses_what_it_says(database: Database, mara: Persona) -> None:
    lease = await begin(database)
    commit = commit_of(lease, mara)
    unheard = tuple(replace(turn, witnesses=()) for turn in commit.turns)

    await commit_exchange(database, replace(commit, turns=unheard), PARAMS)

    found = await rows_of(database, tables.TurnWitness, tables.TurnWitness.turn_id)
    assert [(w.turn_id, w.party_id) for w in found] == [("x1-0", "ann"), ("x1-1", "mara")]


async def test_the_use_of_a_memory_is_written_and_one_that_is_gone_is_passed_over(
    database: Database, mara: Persona, store: ExchangeStore
) -> None:
    for number in (1, 2):
        lease = await begin(database, number, NOW + number)
        await commit_exchange(database, commit_of(lease, mara, NOW + number), PARAMS)
    with database.writing() as connection:
        connection.execute(delete(tables.Memory).where(tables.Memory.id == "m-x1"))
    lease = await begin(database, 3, NOW + 3)

    await commit_exchange(
        database, commit_of(lease, mara, NOW + 3, used_memories=("m-x2", "m-x1", "m-x2")), PARAMS
    )

    uses = await rows_of(database, tables.MemoryUse)
    assert [(u.memory_id, u.exchange_id, u.conversation_id) for u in uses] == [("m-x2", "x3", "c1")]


async def test_an_exchange_may_leave_only_its_turns(database: Database, mara: Persona) -> None:
    lease = await begin(database)

    await commit_exchange(
        database, commit_of(lease, mara, relationships=(), feelings=(), memories=()), PARAMS
    )

    left = {table for table, number in (await counts(database)).items() if number}
    assert left == {"turns", "turn_witnesses"}


async def test_two_commits_of_one_exchange_at_once_write_it_once(
    database: Database, mara: Persona
) -> None:
    lease = await begin(database)
    commit = commit_of(lease, mara)

    await asyncio.gather(*(commit_exchange(database, commit, PARAMS) for _ in range(4)))

    with database.reading() as connection:
        numbers = list(connection.scalars(select(tables.Turn.number)))
    assert sorted(numbers) == [1, 2]
