"""What tells how much memories weigh and how far they have faded: numbers alone, in one pass."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import Connection, String, bindparam, case, func, select

from persona_mcp.state import tables
from persona_mcp.state.memory.params import RetentionParams
from persona_mcp.state.memory.retention import retention
from persona_mcp.state.memory.uses import uses_of
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.prepared import Prepared

M = tables.Memory
BINS = 10
USES = uses_of().subquery()
WEIGHTS = Prepared(
    select(
        M.importance,
        func.coalesce(USES.c.last, M.created_at),
        func.coalesce(USES.c.times, 0),
        case((M.pinned, 1), else_=0),
    )
    .outerjoin(USES, USES.c.memory_id == M.id)
    .where(
        M.world_id == bindparam("world", type_=String),
        M.persona_id == bindparam("persona", type_=String),
        M.active,
        M.archived_at.is_(None),
    )
)


@dataclass(frozen=True, eq=False)
class Weights:
    """Numbers of a persona's memories that are not archived; all of shape (n,), float64.

    Attributes:
        importance: 0..1.
        since: When it was last used, else made, in seconds since the epoch, UTC.
        uses: In how many conversations.
        pinned: 1 where it never fades, else 0.
    """

    importance: NDArray[np.float64]
    since: NDArray[np.float64]
    uses: NDArray[np.float64]
    pinned: NDArray[np.float64]

    def retention(self, now: float, params: RetentionParams) -> NDArray[np.float64]:
        """Return what share of each is left, (0, 1]."""
        age_days = (now - self.since) / DAY_S
        return retention(age_days, self.importance, self.uses, self.pinned, params)


def read_weights(connection: Connection, world_id: str, persona_id: str) -> Weights:
    """Read the numbers of a persona's memories, without a word of them."""
    rows = WEIGHTS.all(connection, world=world_id, persona=persona_id)
    table = np.asarray([tuple(row) for row in rows], dtype=np.float64).reshape(len(rows), 4)
    return Weights(*table.T)


def by_tenths(shares: ArrayLike) -> list[int]:
    """Count shares of 0..1 by tenths: [0, .1), [.1, .2), ..., [.9, 1]."""
    # Edges of float64 would put .3 into the tenth below.
    tenths = np.minimum(np.floor(np.asarray(shares, dtype=np.float64) * BINS), BINS - 1)
    return [int(count) for count in np.bincount(tenths.astype(np.int64), minlength=BINS)]
