"""Searching memories in SQL: who may know them, by their words, and what stands around them."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    String,
    and_,
    bindparam,
    cast,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.orm import aliased

from persona_mcp.state import tables
from persona_mcp.state.full_text import count_query, match_of, match_own, terms_of, words_query
from persona_mcp.state.lexical import Statistics
from persona_mcp.state.prepared import Prepared

M = tables.Memory
W = tables.MemoryWitness
V = tables.MemoryVector

READER, NAMED = bindparam("reader", type_=String), bindparam("named", type_=String)
WORLD = bindparam("world", type_=String)
IDS = bindparam("ids", expanding=True, type_=String)
SEQS = bindparam("seqs", expanding=True, type_=Integer)


def visible() -> ColumnElement[bool]:
    """Return the condition under which a reader may be shown a memory: the witness rule.

    It is the reader's own; or the reader was there; or it is shared with the reader by name; or it
    is public. Every path on which a persona gets to know memories goes through here; reading them
    by id is for whoever manages their owner. Who reads is in the parameters (`reading`).
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


def neighbours_query() -> Select[int]:
    """Return the query for the memories of the turns before and after those of some memories."""
    one, found = aliased(M), aliased(M)
    next_to = and_(
        found.world_id == one.world_id,
        found.persona_id == one.persona_id,
        found.conversation_id == one.conversation_id,
        found.turn_number.in_([one.turn_number - 1, one.turn_number + 1]),
    )
    return (
        select(found.seq)
        .select_from(one)
        .join(found, next_to)
        .where(one.world_id == WORLD, or_(one.id.in_(IDS), one.seq.in_(SEQS)))
        .distinct()
    )


WORDS = Prepared(words_query(recallable()))
HAVING = Prepared(count_query())
# Archived ones too: the full-text index counts the words of all.
OWN = Prepared(
    select(func.count(), func.avg(func.length(M.indexed_text))).where(
        M.world_id == WORLD, M.persona_id == READER
    )
)
NEIGHBOURS = Prepared(neighbours_query())
CANDIDATES = Prepared(
    select(
        M.id,
        M.seq,
        M.persona_id,
        M.content,
        M.indexed_text,
        M.memory_type,
        M.importance,
        M.conversation_id,
        M.turn_id,
        M.created_at,
        M.turn_number,
        V.vector,
    )
    .outerjoin(
        V,
        and_(
            V.world_id == M.world_id,
            V.memory_id == M.id,
            V.model_id == bindparam("model", type_=String),
        ),
    )
    .where(recallable(), or_(M.id.in_(IDS), M.seq.in_(SEQS)))
    .order_by(M.id)
)


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
    matched = match_of(query, world_id, reader)
    if not matched:
        return {}
    rows = WORDS.all(connection, matched=matched, most=limit, **reading(world_id, reader))
    return {row[0]: row[1] for row in rows}


def statistics(connection: Connection, query: str, world_id: str, owner: str) -> Statistics:
    """Count a persona's own memories, and those that have each word of a query."""
    memories, length = OWN.first(connection, world=world_id, reader=owner)
    having = {
        term: HAVING.scalar(connection, matched=match_own(term, world_id, owner))
        for term in terms_of(query)
    }
    return Statistics(memories, length or 0.0, having)


def neighbours(
    connection: Connection, world_id: str, ids: Collection[str], seqs: Collection[int]
) -> list[int]:
    """Find the memories of the turns before and after those of some memories: their `seq`s."""
    found = NEIGHBOURS.all(connection, world=world_id, ids=list(ids), seqs=list(seqs))
    return [seq for (seq,) in found]


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
