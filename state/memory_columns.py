"""Reading what pruning looks at: numbers of all memories of a persona, none of their words."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, String, bindparam, func, select

from persona_mcp.state import tables
from persona_mcp.state.memory_store import uses_of
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.pruning import Columns

M = tables.Memory
U = tables.MemoryUse
ITS = (
    M.world_id == bindparam("world", type_=String),
    M.persona_id == bindparam("persona", type_=String),
    M.active,
    M.archived_at.is_(None),
)
USED = uses_of(U.memory_id.in_(select(M.id).where(*ITS))).subquery()
NUMBERS = Prepared(
    select(
        M.id,
        M.importance,
        func.coalesce(USED.c.times, 0),
        M.created_at,
        func.coalesce(USED.c.last, 0.0),
        M.pinned,
    )
    .outerjoin(USED, USED.c.memory_id == M.id)
    .where(*ITS)
)
BATCH = 200
BREATH_S = 0.0002
"""A thread that computes lets the event loop run only each 5 ms, unless it waits for something."""
KINDS = ("S64", "f8", "f8", "f8", "f8", "?")


def read_columns(connection: Connection, world_id: str, persona_id: str) -> Columns:
    """Read the numbers of a persona's memories that are not archived, in any order."""
    its = {"world": world_id, "persona": persona_id}
    read = [to_arrays(())]
    for rows in NUMBERS.batches(connection, BATCH, **its):
        read.append(to_arrays(rows))
        time.sleep(BREATH_S)
    return Columns(*(np.concatenate(parts) for parts in zip(*read, strict=True)))


def to_arrays(rows: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    """Make an array of each column."""
    columns = zip(*rows, strict=True) if rows else [()] * len(KINDS)
    return [np.array(values, dtype=kind) for values, kind in zip(columns, KINDS, strict=True)]
