"""Reading what pruning looks at: numbers of all memories of a persona, none of their words."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    SQLColumnExpression,
    String,
    and_,
    bindparam,
    cast,
    func,
    select,
)

from persona_mcp.state import tables
from persona_mcp.state.dialect import named, written
from persona_mcp.state.memory.pruning import Columns, Numbers
from persona_mcp.state.prepared import Prepared, listed

Scalar = TypeVar("Scalar", bound=np.generic)

M = tables.Memory
U = tables.MemoryUse
ITS = (
    M.world_id == bindparam("world", type_=String),
    M.persona_id == bindparam("persona", type_=String),
    M.active,
    M.archived_at.is_(None),
)
IDS = listed("ids")
BLOCK = 256
"""SQLite puts what it reads into blocks of about so many memories, while the event loop runs, so
that Python has nothing to do for each memory. What is then done with a block keeps every thread
waiting, the event loop's as well: with this many, for a tenth of a millisecond at a time."""


def block_of(seq: SQLColumnExpression[int]) -> ColumnElement[int]:
    """Return in which of `blocks` blocks a memory goes: alike many in each, in any order written.

    By the golden ratio in 2^16, since its multiples spread evenly; the remainder of `seq` itself
    would put all of a persona in one block where that many personas remember in turns.
    """
    return cast(seq, BigInteger) * 40503 // 65536 % bindparam("blocks", type_=BigInteger)


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
        .group_by(block_of(M.seq))
    )


def uses_of(*which: SQLColumnExpression[bool]) -> Prepared:
    """Return the query for how often memories were used, and when last, a row a block.

    As `memory.uses.uses_of` has it: a memory counts once a conversation, at its first use there.
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
    return Prepared(select(*columns).group_by(block_of(used.c.seq)))


MOST = Prepared(
    select(func.count()).where(
        M.world_id == bindparam("world", type_=String),
        M.persona_id == bindparam("persona", type_=String),
    )
)
"""A persona's memories, archived or not: an index alone has them, so that this is quick."""
ALL = numbers_of(*ITS), uses_of(*ITS)
SOME = numbers_of(*ITS, M.id.in_(IDS)), uses_of(*ITS, M.id.in_(IDS))


def read_columns(
    connection: Connection, world_id: str, persona_id: str, ids: Sequence[str] | None = None
) -> Columns:
    """Read the numbers of a persona's memories that are not archived, in the order of `seq`.

    Args:
        connection: An open transaction.
        world_id: Where.
        persona_id: Whose memories.
        ids: Only of these.
    """
    its: dict[str, Any] = {"world": world_id, "persona": persona_id}
    if ids is None:
        (numbers, used_of), count = ALL, MOST.scalar(connection, **its)
    else:
        (numbers, used_of), count, its = SOME, len(ids), its | {"ids": ids}
    its["blocks"] = count // BLOCK + 1
    blocks = [(ids_in("[]"), numbers_in([""] * 4))]
    blocks += [
        (ids_in(first), numbers_in(rest)) for first, *rest in numbers.each(connection, **its)
    ]
    uses = [numbers_in([""] * 3), *map(numbers_in, used_of.each(connection, **its))]
    named = side_by_side([block[0] for block in blocks])
    seqs, importance, created_at, pinned = side_by_side([block[1] for block in blocks])
    used, times, last = side_by_side(uses)
    order = np.argsort(seqs)
    rows = np.searchsorted(seqs[order], used)
    accesses, used_at = np.zeros(len(named)), np.zeros(len(named))
    accesses[rows], used_at[rows] = times, last
    importance, created_at, pinned = importance[order], created_at[order], pinned[order] > 0
    return Columns(named[order], importance, accesses, created_at, used_at, pinned)


def ids_in(block: str) -> NDArray[np.bytes_]:
    """Make an array of the ids of a block, as wide as the longest."""
    return np.array(json.loads(block), dtype="S")


def numbers_in(block: Sequence[str]) -> Numbers:
    """Make an array of the numbers of a block, a row a column: shape (columns, memories)."""
    return np.array([np.fromstring(text, sep=",") for text in block])


def side_by_side(blocks: Sequence[NDArray[Scalar]]) -> NDArray[Scalar]:
    """Join blocks along their last axis, one at a time: `np.concatenate` of ids lets nobody in."""
    *shape, _ = blocks[0].shape
    whole = np.empty((*shape, sum(b.shape[-1] for b in blocks)), np.result_type(*blocks))
    end = 0
    for block in blocks:
        begin, end = end, end + block.shape[-1]
        whole[..., begin:end] = block
    return whole
