"""Reading what pruning looks at: numbers of all memories of a persona, none of their words."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import (
    Connection,
    SQLColumnExpression,
    String,
    and_,
    bindparam,
    func,
    select,
)

from persona_mcp.state import tables
from persona_mcp.state.dialect import named, written
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.pruning import Columns, Numbers

M = tables.Memory
U = tables.MemoryUse
ITS = (
    M.world_id == bindparam("world", type_=String),
    M.persona_id == bindparam("persona", type_=String),
    M.active,
    M.archived_at.is_(None),
)
IDS = listed("ids")
BLOCKS = 67
"""Into so many blocks SQLite puts what it reads, while the event loop runs, so that Python has
nothing to do for each memory; a prime spreads memories evenly that were written in turns."""


def numbers_of(*which: SQLColumnExpression[bool]) -> Prepared:
    """Return the query for the numbers of memories, a row a block."""
    return Prepared(
        select(
            named(M.id),
            written(M.seq),
            written(M.importance),
            written(M.created_at),
            written(M.pinned),
        )
        .where(*which)
        .group_by(M.seq % BLOCKS)
    )


def uses_of(*which: SQLColumnExpression[bool]) -> Prepared:
    """Return the query for how often memories were used, and when last, a row a block.

    As `memory_store.uses_of` has it: a memory counts once a conversation, at its first use there.
    By an outer join, since SQLite would begin an inner one with all uses in the world.
    """
    first = (
        select(M.seq, func.min(U.at).label("at"))
        .outerjoin(U, and_(U.world_id == M.world_id, U.memory_id == M.id, U.active))
        .where(*which)
        .group_by(M.seq, U.conversation_id)
        .having(func.min(U.at).is_not(None))
        .subquery()
    )
    used = (
        select(first.c.seq, func.count().label("times"), func.max(first.c.at).label("last"))
        .group_by(first.c.seq)
        .subquery()
    )
    columns = written(used.c.seq), written(used.c.times), written(used.c.last)
    return Prepared(select(*columns).group_by(used.c.seq % BLOCKS))


ALL = numbers_of(*ITS), uses_of(*ITS)
SOME = numbers_of(*ITS, M.id.in_(IDS)), uses_of(*ITS, M.id.in_(IDS))


def read_columns(
    connection: Connection, world_id: str, persona_id: str, ids: Sequence[str] | None = None
) -> Columns:
    """Read the numbers of a persona's memories that are not archived, in any order.

    Args:
        connection: An open transaction.
        world_id: Where.
        persona_id: Whose memories.
        ids: Only of these.
    """
    its: dict[str, Any] = {"world": world_id, "persona": persona_id}
    its |= {} if ids is None else {"ids": ids}
    numbers, used_of = ALL if ids is None else SOME
    blocks = [(ids_in("[]"), numbers_in([""] * 4))]
    blocks += [
        (ids_in(first), numbers_in(rest)) for first, *rest in numbers.each(connection, **its)
    ]
    uses = [numbers_in([""] * 3), *map(numbers_in, used_of.each(connection, **its))]
    named = np.concatenate([block[0] for block in blocks])
    seqs, importance, created_at, pinned = np.concatenate([block[1] for block in blocks], axis=1)
    used, times, last = np.concatenate(uses, axis=1)
    order = np.argsort(seqs)
    rows = order[np.searchsorted(seqs, used, sorter=order)]
    accesses, used_at = np.zeros(len(named)), np.zeros(len(named))
    accesses[rows], used_at[rows] = times, last
    return Columns(named, importance, accesses, created_at, used_at, pinned > 0)


def ids_in(block: str) -> np.ndarray[Any, np.dtype[np.bytes_]]:
    """Make an array of the ids of a block."""
    return np.array(json.loads(block), dtype="S64")


def numbers_in(block: Sequence[str]) -> Numbers:
    """Make an array of the numbers of a block, a row a column: shape (columns, memories)."""
    return np.array([np.fromstring(text, sep=",") for text in block])
