"""Searching memories in SQL: who may know them, by their words, and what stands around them."""

import json
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
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
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.memory.memory import ANYTHING, OPEN, Sought
from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.memory.words import WordQuery, WordSearch
from persona_mcp.state.prepared import Prepared, listed, listed_numbers

M = tables.Memory
W = tables.MemoryWitness
V = tables.MemoryVector

PARAMS = RetrievalParams()
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
    return union(by_id, listed_numbers("seqs")).subquery()


def reachable() -> CompoundSelect[int]:
    """Return the query for all that a reader may know at most, by their `seq`s.

    Two indexes know it; left alone, SQLite reads the whole world.
    """
    own = select(M.seq).where(M.world_id == WORLD, M.persona_id == READER)
    is_open = or_(*(M.visibility == visibility for visibility in OPEN))
    return own.union(select(M.seq).where(M.world_id == WORLD, is_open))


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


WORDS = WordSearch(recallable())
SOUGHT_WORDS = WordSearch(and_(recallable(), sought_for()))
SOUGHT_VECTORS = Prepared(sought_vectors_query())
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


def candidates_query(its: Subquery) -> Select[*tuple[Any, ...]]:
    """Return the query for what a search reads of some memories that the reader may know.

    Archived ones too: they are found no more, but still tell what their neighbours are about.

    Args:
        its: Their `seq`s.
    """
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


CANDIDATES = Prepared(candidates_query(picked()))
REACHABLE = Prepared(
    select(func.count()).select_from(reachable().limit(bindparam("most", type_=INTEGER)).subquery())
)
EVERYTHING = Prepared(candidates_query(reachable().subquery()))


def search_words(
    connection: Connection,
    query: str,
    world_id: str,
    reader: str,
    limit: int,
    sought: Sought = ANYTHING,
    params: RetrievalParams = PARAMS,
) -> dict[int, float]:
    """Find memories by their words, among those that the reader may know.

    Args:
        connection: An open transaction.
        query: Any text.
        world_id: Where.
        reader: Who asks.
        limit: How many, at most.
        sought: Which ones.
        params: How words are scored on PostgreSQL.

    Returns:
        Score (above 0, higher is better) by the memory's `seq`, the best first.
    """
    if sought == ANYTHING:
        statement, fitting = WORDS, reading(world_id, reader)
    else:
        statement, fitting = SOUGHT_WORDS, seeking(world_id, reader, sought)
    return statement.best(connection, WordQuery(query, world_id, reader, limit, params), fitting)


def sought_vectors(
    connection: Connection, world_id: str, reader: str, model_id: str, sought: Sought
) -> dict[str, bytes]:
    """Read the vector of every memory that is sought and that the reader may know, by id."""
    rows = SOUGHT_VECTORS.all(connection, model=model_id, **seeking(world_id, reader, sought))
    return {row.id: row.vector for row in rows}


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
