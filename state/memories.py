"""Memories in SQL: written with their witnesses and outbox rows, read by who may know them."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    String,
    and_,
    bindparam,
    cast,
    exists,
    func,
    insert,
    or_,
    select,
)

from persona_mcp.state import tables
from persona_mcp.state.full_text import match_of, words_query
from persona_mcp.state.memory import Memory, NewMemory
from persona_mcp.state.prepared import Prepared

M = tables.Memory
W = tables.MemoryWitness
U = tables.MemoryUse
V = tables.MemoryVector

USES = (
    select(func.count())
    .where(U.world_id == M.world_id, U.memory_id == M.id, U.active)
    .correlate(M)
    .scalar_subquery()
    .label("accessed_count")
)


READER, NAMED = bindparam("reader", type_=String), bindparam("named", type_=String)
WORLD = bindparam("world", type_=String)


def visible() -> ColumnElement[bool]:
    """Return the condition under which a reader may be shown a memory: the witness rule.

    It is the reader's own; or the reader was there; or it is shared with the reader by name; or it
    is public. Every path that shows memories goes through here. Who reads is in the parameters
    (`reading`).
    """
    was_there = exists().where(W.world_id == M.world_id, W.memory_id == M.id, W.party_id == READER)
    # Not LIKE: it has wildcards, and on SQLite it takes Bob for bob.
    names = cast(M.related_personas, String)
    named = func.replace(names, NAMED, "") != names
    return or_(
        M.persona_id == READER,
        M.visibility == "public",
        and_(M.visibility == "shared", named),
        was_there,
    )


def recallable() -> ColumnElement[bool]:
    """Return the condition under which a search for a reader may find a memory.

    Others' private memories are left out even of those who were there: they have their own copies.
    """
    return and_(
        M.world_id == WORLD,
        M.active,
        M.archived_at.is_(None),
        or_(M.persona_id == READER, M.visibility != "private"),
        visible(),
    )


def reading(world_id: str, reader: str) -> dict[str, str]:
    """Return the parameters of `visible` and `recallable`."""
    return {"world": world_id, "reader": reader, "named": json.dumps(reader)}


WORDS = Prepared(words_query(recallable()))
CANDIDATES = Prepared(
    select(M.id, M.seq, M.content, M.memory_type, M.importance, V.vector)
    .outerjoin(
        V,
        and_(
            V.world_id == M.world_id,
            V.memory_id == M.id,
            V.model_id == bindparam("model", type_=String),
        ),
    )
    .where(
        recallable(),
        or_(
            M.id.in_(bindparam("ids", expanding=True)), M.seq.in_(bindparam("seqs", expanding=True))
        ),
    )
    .order_by(M.id)
)
BY_IDS = Prepared(
    select(M, USES)
    .where(M.world_id == WORLD, M.id.in_(bindparam("ids", expanding=True)))
    .order_by(M.id)
)
THERE = Prepared(
    select(M.id)
    .where(M.world_id == WORLD, M.id.in_(bindparam("ids", expanding=True)))
    .order_by(M.seq)
)
ADD = Prepared(insert(M))
ADD_WITNESSES = Prepared(insert(W))
ADD_WORK = Prepared(insert(tables.OutboxEntry))
ADD_USES = Prepared(insert(U))


def search_words(
    connection: Connection, query: str, world_id: str, reader: str, limit: int
) -> dict[int, float]:
    """Find memories by their words, among those that the reader may know.

    Args:
        connection: An open transaction.
        query: Any text.
        world_id: Where.
        reader: Who asks.
        limit: How many, at most.

    Returns:
        Score (above 0, higher is better) by the memory's `seq`. Source: SQLite's bm25(), negated.
    """
    matched = match_of(query)
    if not matched:
        return {}
    rows = WORDS.all(connection, matched=matched, most=limit, **reading(world_id, reader))
    return {row[0]: row[1] for row in rows}


def add_memories(
    connection: Connection,
    world_id: str,
    memories: Sequence[NewMemory],
    conversation_id: str,
    exchange_id: str,
    now: float,
) -> None:
    """Write memories, their witnesses and the work for the index, inside a transaction."""
    if not memories:
        return
    ADD.run(
        connection,
        [
            {
                "world_id": world_id,
                "id": m.id,
                "version": 1,
                "persona_id": m.persona_id,
                "content": m.content,
                "indexed_text": m.indexed_text(now),
                "memory_type": m.memory_type,
                "speaker_id": m.speaker_id,
                "importance": m.importance,
                "importance_terms": m.importance_terms,
                "emotional_valence": 0.0,
                "visibility": m.visibility,
                "related_personas": [],
                "details": {},
                "conversation_id": conversation_id,
                "exchange_id": exchange_id,
                "turn_id": m.turn_id,
                "created_at": now,
                "updated_at": now,
            }
            for m in memories
        ],
    )
    ADD_WITNESSES.run(
        connection,
        [
            {"world_id": world_id, "memory_id": m.id, "party_id": party}
            for m in memories
            for party in sorted({m.persona_id, *m.witnesses})
        ],
    )
    ADD_WORK.run(
        connection,
        [
            {
                "world_id": world_id,
                "memory_id": m.id,
                "operation": "upsert",
                "version": 1,
                "created_at": now,
            }
            for m in memories
        ],
    )


def add_uses(
    connection: Connection,
    world_id: str,
    memory_ids: Sequence[str],
    conversation_id: str,
    exchange_id: str,
    now: float,
) -> None:
    """Write that memories were in the prompt of an exchange, inside its transaction.

    One that was deleted meanwhile is passed over: the exchange is not lost over it.
    """
    there = THERE.all(connection, world=world_id, ids=memory_ids)
    if there:
        ADD_USES.run(
            connection,
            [
                {
                    "world_id": world_id,
                    "memory_id": memory_id,
                    "exchange_id": exchange_id,
                    "conversation_id": conversation_id,
                    "at": now,
                }
                for (memory_id,) in there
            ],
        )


def read_candidates(
    connection: Connection,
    world_id: str,
    reader: str,
    model_id: str,
    ids: Collection[str],
    seqs: Collection[int],
) -> Sequence[Row[Any]]:
    """Read memories by id or seq, with their vectors; what the reader may not know drops out.

    Args:
        connection: An open transaction.
        world_id: Where.
        reader: Who asks.
        model_id: Whose vectors.
        ids: Keys that the dense index found.
        seqs: Keys that the words found.
    """
    return CANDIDATES.all(
        connection, model=model_id, ids=list(ids), seqs=list(seqs), **reading(world_id, reader)
    )


def read_memories(connection: Connection, world_id: str, ids: Collection[str]) -> list[Memory]:
    """Read memories by id, in order of their ids; who may see them is the caller's to know."""
    rows = BY_IDS.all(connection, world=world_id, ids=list(ids))
    return [to_memory(row) for row in rows]


def to_memory(row: Row[Any]) -> Memory:
    """Read a row."""
    values = {name: getattr(row, name) for name in Memory.__dataclass_fields__}
    return Memory(**{**values, "related_personas": tuple(row.related_personas)})
