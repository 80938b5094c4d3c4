"""Searching memories in SQL: who may know them, by their words, and what stands around them."""

import json
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    String,
    Subquery,
    and_,
    bindparam,
    cast,
    exists,
    func,
    or_,
    select,
    union,
)
from sqlalchemy.orm import aliased

from persona_mcp.state import tables
from persona_mcp.state.full_text import count_query, match_of, match_own, terms_of, words_query
from persona_mcp.state.lexical import Statistics
from persona_mcp.state.memory import ANYTHING, Sought
from persona_mcp.state.prepared import Prepared, listed

M = tables.Memory
W = tables.MemoryWitness
V = tables.MemoryVector

WIDER = 2
"""The full-text index is asked for so many times more than wanted: not all may be shown."""
READER, NAMED = bindparam("reader", type_=String), bindparam("named", type_=String)
WORLD = bindparam("world", type_=String)


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


def readable() -> ColumnElement[bool]:
    """Return the condition under which a search for a reader may read a memory.

    Others' private memories are left out even of those who were there: they have their own copies.
    """
    return and_(
        M.world_id == WORLD,
        M.active,
        or_(M.persona_id == READER, M.visibility != "private"),
        visible(),
    )


def recallable() -> ColumnElement[bool]:
    """Return the condition under which a search for a reader may find a memory."""
    return and_(readable(), M.archived_at.is_(None))


def reading(world_id: str, reader: str) -> dict[str, str]:
    """Return the parameters of `visible` and `recallable`."""
    return {"world": world_id, "reader": reader, "named": json.dumps(reader)}


def picked() -> Subquery:
    """Return the query for memories by id or by seq: their `seq`s.

    What is picked is joined with, so that each is looked up by its key: with conditions alone
    SQLite reads through the whole world.
    """
    by_id = select(M.seq).where(M.world_id == WORLD, M.id.in_(listed("ids")))
    return union(by_id, listed("seqs")).subquery()


def sought_for() -> ColumnElement[bool]:
    """Return the condition of `Sought`; its parameters come from `seeking`."""
    kind = bindparam("kind", type_=String)
    others = M.visibility.in_(listed("open"))
    private = bindparam("private", type_=Integer)
    return and_(
        or_(kind == "", M.memory_type == kind),
        M.importance >= bindparam("least"),
        or_(and_(M.persona_id == READER, or_(private == 1, M.visibility != "private")), others),
    )


def seeking(world_id: str, reader: str, sought: Sought) -> dict[str, Any]:
    """Return the parameters of `sought_for`, with those of `recallable`."""
    wanted = {"shared": sought.shared, "public": sought.public}
    return {
        **reading(world_id, reader),
        "kind": sought.memory_type or "",
        "least": sought.min_importance,
        "private": int(sought.private),
        "open": [visibility for visibility, is_wanted in wanted.items() if is_wanted],
    }


def neighbours_query() -> Select[int]:
    """Return the query for the memories of the turns before and after those of some memories."""
    one, found = aliased(M), aliased(M)
    next_to = and_(
        found.world_id == one.world_id,
        found.persona_id == one.persona_id,
        found.conversation_id == one.conversation_id,
        found.turn_number.in_([one.turn_number - 1, one.turn_number + 1]),
    )
    its = picked()
    return (
        select(found.seq)
        .select_from(its)
        .join(one, one.seq == its.c.seq)
        .join(found, next_to)
        .where(one.world_id == WORLD)
        .distinct()
    )


def sought_vectors_query() -> Select[*tuple[Any, ...]]:
    """Return the query for the vectors of everything that is sought.

    Two indexes know what can be the reader's at all; left alone, SQLite reads the whole world.
    """
    one = aliased(M)
    own = select(one.seq).where(one.world_id == WORLD, one.persona_id == READER)
    open_to_it = select(one.seq).where(one.world_id == WORLD, one.visibility.in_(listed("open")))
    its = own.union(open_to_it).subquery()
    return (
        select(M.id, V.vector)
        .select_from(its)
        .join(M, M.seq == its.c.seq)
        .join(V, and_(V.world_id == M.world_id, V.memory_id == M.id))
        .where(
            recallable(),
            sought_for(),
            V.model_id == bindparam("model", type_=String),
        )
        .order_by(M.id)
    )


WORDS = Prepared(words_query(recallable()))
SOUGHT_WORDS = Prepared(words_query(and_(recallable(), sought_for())))
SOUGHT_VECTORS = Prepared(sought_vectors_query())
HAVING = Prepared(count_query())
OWN = Prepared(select(func.count()).where(M.world_id == WORLD, M.persona_id == READER))
NEIGHBOURS = Prepared(neighbours_query())


class Found(NamedTuple):
    """What a search reads of a memory, and its vector, if it has one."""

    id: str
    persona_id: str
    content: str
    indexed_text: str
    memory_type: str
    importance: float
    visibility: str
    conversation_id: str | None
    turn_id: str | None
    turn_number: int | None
    created_at: float
    archived_at: float | None
    vector: bytes | None


def candidates_query() -> Select[*tuple[Any, ...]]:
    """Return the query for what a search reads of some memories that the reader may know.

    Archived ones too: they are found no more, but still tell what their neighbours are about.
    """
    its = picked()
    its_vector = and_(
        V.world_id == M.world_id,
        V.memory_id == M.id,
        V.model_id == bindparam("model", type_=String),
    )
    return (
        select(*(getattr(M, name) for name in Found._fields[:-1]), V.vector)
        .select_from(its)
        .join(M, M.seq == its.c.seq)
        .outerjoin(V, its_vector)
        .where(readable())
    )


CANDIDATES = Prepared(candidates_query())


def search_words(
    connection: Connection,
    query: str,
    world_id: str,
    reader: str,
    limit: int,
    sought: Sought = ANYTHING,
) -> dict[int, float]:
    """Find memories by their words, among those that the reader may know.

    Args:
        connection: An open transaction.
        query: Any text.
        world_id: Where.
        reader: Who asks.
        limit: How many, at most.
        sought: Which ones.

    Returns:
        Score (above 0, higher is better) by the memory's `seq`. Source: SQLite's bm25(), negated.
    """
    matched = match_of(query, world_id, reader)
    if not matched:
        return {}
    statement, who = WORDS, reading(world_id, reader)
    if sought != ANYTHING:
        statement, who = SOUGHT_WORDS, seeking(world_id, reader, sought)
    most = WIDER * limit
    while True:
        rows = statement.all(connection, matched=matched, most=most, **who)
        found = {seq: score for seq, score, fits in rows if fits}
        if len(found) >= limit or len(rows) < most:
            return dict(list(found.items())[:limit])
        most *= WIDER


def sought_vectors(
    connection: Connection, world_id: str, reader: str, model_id: str, sought: Sought
) -> dict[str, bytes]:
    """Read the vector of every memory that is sought and that the reader may know, by id."""
    rows = SOUGHT_VECTORS.all(connection, model=model_id, **seeking(world_id, reader, sought))
    return {row.id: row.vector for row in rows}


def statistics(connection: Connection, query: str, world_id: str, owner: str) -> Statistics:
    """Count a persona's own memories, and those that have each word of a query."""
    memories = OWN.scalar(connection, world=world_id, reader=owner)
    searches = {match_own(term, world_id, owner): term for term in terms_of(query)}
    counted = HAVING.all(connection, searches=list(searches))
    having = {searches[search]: number for search, number in counted}
    return Statistics(memories, having)


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
) -> list[Found]:
    """Read memories by id or seq, with their vectors; what the reader may not know drops out.

    They come in order of their ids.

    Args:
        connection: An open transaction.
        world_id: Where.
        reader: Who asks.
        model_id: Whose vectors.
        ids: Keys that the dense index found.
        seqs: Keys that the words found.
    """
    rows = CANDIDATES.all(
        connection, model=model_id, ids=list(ids), seqs=list(seqs), **reading(world_id, reader)
    )
    # SQLite would carry texts and vectors through its sorting.
    return sorted(map(Found._make, rows))
