"""How much there is in a world, and how much of it is free now: counted in SQL."""

from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    String,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
)

from persona_mcp.state import tables
from persona_mcp.state.dialect import larger, number_in
from persona_mcp.state.interaction import InteractionParams
from persona_mcp.state.prepared import Prepared

P = tables.Persona
S = tables.PersonaState
C = tables.Conversation
WORLD = bindparam("world", type_=String)
NOW = bindparam("now", type_=Double)


def left(name: str) -> ColumnElement[float]:
    """Return what a persona had left of something after its last talk."""
    return number_in(S.interaction, name)


RESTED = larger(0.0, NOW - left("as_of"))
"""Seconds since its last talk."""
FREE = or_(
    S.persona_id.is_(None),  # it has never talked
    and_(
        func.coalesce(left("cooldown_until"), 0.0) <= larger(NOW, left("as_of")),
        left("energy") + RESTED / bindparam("energy_seconds", type_=Double)
        > bindparam("energy_needed", type_=Double),
        left("time") + RESTED * P.available_time / bindparam("refill_seconds", type_=Double)
        > bindparam("time_needed", type_=Double),
    ),
)
"""As `interaction.available` after `interaction.regenerate` has it: what is below its rest rises at
a steady rate, and no rest is below what is needed."""
PERSONAS = Prepared(
    select(func.count(), func.coalesce(func.sum(case((FREE, 1), else_=0)), 0))
    .select_from(P)
    .outerjoin(S, and_(S.world_id == P.world_id, S.persona_id == P.id))
    .where(P.world_id == WORLD, P.deleted_at.is_(None))
)
TALKS = Prepared(select(func.count()).where(C.world_id == WORLD, C.status == "active"))


@dataclass(frozen=True)
class Census:
    """How much there is in a world.

    Attributes:
        personas: Deleted ones left out.
        available: Of these, how many may talk to another persona now.
        talks: Conversations that are not ended.
    """

    personas: int
    available: int
    talks: int


def count_world(
    connection: Connection, world_id: str, now: float, params: InteractionParams
) -> Census:
    """Count what is in a world, inside a transaction, in two queries however much it is."""
    personas, available = PERSONAS.first(
        connection,
        world=world_id,
        now=now,
        energy_seconds=params.energy_seconds,
        energy_needed=params.energy_needed,
        refill_seconds=params.time_refill_seconds,
        time_needed=params.time_needed,
    )
    return Census(personas, available, TALKS.scalar(connection, world=world_id))
