"""Deleting for good what pruning archived long ago; off unless it is switched on."""

from sqlalchemy import Connection, Float, String, bindparam, select

from persona_mcp.state import tables
from persona_mcp.state.memory.changes import purge_memories
from persona_mcp.state.memory.params import PruningParams
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.prepared import Prepared

M = tables.Memory
LONG_GONE = Prepared(
    select(M.id).where(
        M.world_id == bindparam("world", type_=String),
        M.persona_id == bindparam("persona", type_=String),
        M.prune_id.is_not(None),
        M.archived_at <= bindparam("until", type_=Float),
    )
)


def remove_long_gone(
    connection: Connection, world_id: str, persona_id: str, now: float, params: PruningParams
) -> int:
    """Delete what runs archived `removal_days` ago or longer, inside a transaction.

    What somebody archived by hand, or what was merged into another memory, stays. The audit rows
    of the runs stay too; undoing one brings back what is left of it.

    Returns:
        How many memories were deleted; 0 while `params.removal` is off.
    """
    if not params.removal:
        return 0
    until = now - params.removal_days * DAY_S
    its = {"world": world_id, "persona": persona_id, "until": until}
    ids = [id for (id,) in LONG_GONE.all(connection, **its)]
    purge_memories(connection, world_id, ids, now)
    return len(ids)
