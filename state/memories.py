"""Memories in SQL: written with their witnesses and outbox rows, read by who may know them."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, String, and_, cast, exists, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from persona_mcp.state import tables
from persona_mcp.state.memory import Memory, NewMemory

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


def visible_to(reader: str) -> ColumnElement[bool]:
    """Return the condition under which a reader may be shown a memory: the witness rule.

    It is the reader's own; or the reader was there; or it is shared with the reader by name; or it
    is public. Every path that shows memories goes through here.
    """
    was_there = exists().where(W.world_id == M.world_id, W.memory_id == M.id, W.party_id == reader)
    # Not LIKE: it has wildcards, and on SQLite it takes Bob for bob.
    names = cast(M.related_personas, String)
    named = func.replace(names, json.dumps(reader), "") != names
    return or_(
        M.persona_id == reader,
        M.visibility == "public",
        and_(M.visibility == "shared", named),
        was_there,
    )


def recallable_by(world_id: str, reader: str) -> ColumnElement[bool]:
    """Return the condition under which a search for a reader may find a memory.

    Others' private memories are left out even of those who were there: they have their own copies.
    """
    return and_(
        M.world_id == world_id,
        M.active,
        M.archived_at.is_(None),
        or_(M.persona_id == reader, M.visibility != "private"),
        visible_to(reader),
    )


async def add_memories(
    connection: AsyncConnection,
    world_id: str,
    memories: Sequence[NewMemory],
    conversation_id: str,
    exchange_id: str,
    now: float,
) -> None:
    """Write memories, their witnesses and the work for the index, inside a transaction."""
    if not memories:
        return
    await connection.execute(
        insert(M),
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
    await connection.execute(
        insert(W),
        [
            {"world_id": world_id, "memory_id": m.id, "party_id": party}
            for m in memories
            for party in sorted({m.persona_id, *m.witnesses})
        ],
    )
    await connection.execute(
        insert(tables.OutboxEntry),
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


async def add_uses(
    connection: AsyncConnection,
    world_id: str,
    memory_ids: Sequence[str],
    conversation_id: str,
    exchange_id: str,
    now: float,
) -> None:
    """Write that memories were in the prompt of an exchange, inside its transaction.

    One that was deleted meanwhile is passed over: the exchange is not lost over it.
    """
    wanted = select(M.id).where(M.world_id == world_id, M.id.in_(memory_ids)).order_by(M.seq)
    there = list(await connection.scalars(wanted))
    if there:
        await connection.execute(
            insert(U),
            [
                {
                    "world_id": world_id,
                    "memory_id": memory_id,
                    "exchange_id": exchange_id,
                    "conversation_id": conversation_id,
                    "at": now,
                }
                for memory_id in there
            ],
        )


async def read_candidates(
    connection: AsyncConnection,
    world_id: str,
    reader: str,
    model_id: str,
    ids: Collection[str],
    seqs: Collection[int],
) -> list[Row[Any]]:
    """Read memories by id or seq, with their vectors; what the reader may not know drops out.

    Args:
        connection: An open transaction.
        world_id: Where.
        reader: Who asks.
        model_id: Whose vectors.
        ids: Keys that the dense index found.
        seqs: Keys that the words found.
    """
    vector = and_(V.world_id == M.world_id, V.memory_id == M.id, V.model_id == model_id)
    query = (
        select(M, USES, V.vector)
        .outerjoin(V, vector)
        .where(recallable_by(world_id, reader), or_(M.id.in_(ids), M.seq.in_(seqs)))
        .order_by(M.id)
    )
    return list((await connection.execute(query)).all())


async def read_memories(
    connection: AsyncConnection, world_id: str, ids: Collection[str]
) -> list[Memory]:
    """Read memories by id, in order of their ids; who may see them is the caller's to know."""
    query = select(M, USES).where(M.world_id == world_id, M.id.in_(ids)).order_by(M.id)
    return [to_memory(row) for row in await connection.execute(query)]


def to_memory(row: Row[Any]) -> Memory:
    """Read a row."""
    values = {name: getattr(row, name) for name in Memory.__dataclass_fields__}
    return Memory(**{**values, "related_personas": tuple(row.related_personas)})
