"""What somebody may pass on: in SQL, under the witness rule of the one who tells."""

from sqlalchemy import Connection, String, bindparam, select

from persona_mcp.state import relationship, tables
from persona_mcp.state.effects import read_arrow
from persona_mcp.state.errors import NotFound
from persona_mcp.state.hearsay import UNMET, Hearsay, Hop, hearsay_of, pass_on
from persona_mcp.state.memory.memories import reading, visible
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.relationship_params import RelationshipParams

M = tables.Memory
TOLD = Prepared(
    select(M.origin).where(
        M.world_id == bindparam("world", type_=String),
        M.id == bindparam("memory", type_=String),
        M.active,
        M.archived_at.is_(None),
        visible(),
    )
)


def telling(
    connection: Connection,
    world_id: str,
    teller: str,
    listener: str,
    source_memory_id: str | None,
    now: float,
    params: RelationshipParams,
) -> Hearsay:
    """Return the origin of what a listener is told now.

    Args:
        connection: An open transaction.
        world_id: Where.
        teller: Persona or user who tells.
        listener: Persona who is told.
        source_memory_id: The memory that it is told from; None if that is not known.
        now: Seconds since the epoch, UTC.
        params: Constants of relationships.

    Raises:
        NotFound: The memory is not there, or the teller does not know it.
    """
    before = None
    if source_memory_id is not None:
        row = TOLD.first(connection, memory=source_memory_id, **reading(world_id, teller))
        if row is None:
            raise NotFound.of("memory", source_memory_id)
        before = hearsay_of(row.origin)
    trust = trust_in(connection, world_id, listener, teller, now, params)
    return pass_on(before, Hop(teller, listener, trust), source_memory_id)


def trust_in(
    connection: Connection,
    world_id: str,
    listener: str,
    teller: str,
    now: float,
    params: RelationshipParams,
) -> float:
    """Return a listener's trust in a teller now, [0, 1]: (1 + shown trust) / 2, 0.5 if unmet."""
    arrow = read_arrow(connection, world_id, listener, teller)
    if arrow is None:
        return UNMET
    shown = relationship.shown(relationship.decay(arrow, now, params), params)
    return (1 + shown.trust) / 2
