"""Reading what pruning looks at: numbers of all memories of a persona, none of their words."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    SQLColumnExpression,
    String,
    and_,
    bindparam,
    func,
    select,
)

from persona_mcp.state import tables
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.pruning import Columns, Numbers

M = tables.Memory
U = tables.MemoryUse
ITS = (
    M.world_id == bindparam("world", type_=String),
    M.persona_id == bindparam("persona", type_=String),
    M.active,
    M.archived_at.is_(None),
)
BLOCKS = 199
"""Into so many blocks SQLite puts what it reads, while the event loop runs, so that Python has
nothing to do for each memory; a prime spreads memories evenly that were written in turns."""


def joined(column: SQLColumnExpression[Any]) -> ColumnElement[str]:
    """Write the numbers of a block one after another; JSON would round them to 15 digits."""
    return func.group_concat(func.printf("%!.17g", column))


NUMBERS = Prepared(
    select(
        func.json_group_array(M.id),
        func.group_concat(M.seq),
        joined(M.importance),
        joined(M.created_at),
        func.group_concat(M.pinned),
    )
    .where(*ITS)
    .group_by(M.seq % BLOCKS)
)
FIRST = (
    select(M.seq, func.min(U.at).label("at"))
    .outerjoin(U, and_(U.world_id == M.world_id, U.memory_id == M.id, U.active))
    .where(*ITS)
    .group_by(M.seq, U.conversation_id)
    .having(func.min(U.at).is_not(None))
    .subquery()
)
"""As `memory_store.uses_of` has it: a memory counts once a conversation, at its first use there.

By an outer join, since SQLite would begin an inner one with all uses in the world.
"""
USED = (
    select(FIRST.c.seq, func.count().label("times"), func.max(FIRST.c.at).label("last"))
    .group_by(FIRST.c.seq)
    .subquery()
)
USES = Prepared(
    select(
        func.group_concat(USED.c.seq), func.group_concat(USED.c.times), joined(USED.c.last)
    ).group_by(USED.c.seq % BLOCKS)
)


def read_columns(connection: Connection, world_id: str, persona_id: str) -> Columns:
    """Read the numbers of a persona's memories that are not archived, in any order."""
    its = {"world": world_id, "persona": persona_id}
    blocks = [(ids_in("[]"), numbers_in([""] * 4))]
    blocks += [(ids_in(ids), numbers_in(texts)) for ids, *texts in NUMBERS.each(connection, **its)]
    uses = [numbers_in([""] * 3), *map(numbers_in, USES.each(connection, **its))]
    ids = np.concatenate([block[0] for block in blocks])
    seqs, importance, created_at, pinned = np.concatenate([block[1] for block in blocks], axis=1)
    used, times, last = np.concatenate(uses, axis=1)
    order = np.argsort(seqs)
    rows = order[np.searchsorted(seqs, used, sorter=order)]
    accesses, used_at = np.zeros(len(ids)), np.zeros(len(ids))
    accesses[rows], used_at[rows] = times, last
    return Columns(ids, importance, accesses, created_at, used_at, pinned > 0)


def ids_in(block: str) -> np.ndarray[Any, np.dtype[np.bytes_]]:
    """Make an array of the ids of a block."""
    return np.array(json.loads(block), dtype="S64")


def numbers_in(block: Sequence[str]) -> Numbers:
    """Make an array of the numbers of a block, a row a column: shape (columns, memories)."""
    return np.array([np.fromstring(text, sep=",") for text in block])
