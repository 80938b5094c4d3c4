"""Operations on relationships: get."""

import time

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.operations import Arguments, Call, Result, operation
from persona_mcp.state import relationship
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.effects import read_arrow
from persona_mcp.state.errors import InvalidParams, NotFound
from persona_mcp.state.fields import Reference
from persona_mcp.state.memory import rfc3339
from persona_mcp.state.relationship import RelationshipParams


class RelationshipGetArguments(Arguments):
    """Arguments of relationship_get."""

    persona1_id: Reference = Field(description="Who sees: a persona's id or name")
    persona2_id: Reference = Field(
        description="Who is seen: a persona's id or name, or the user_id of who talked to it"
    )


class Relationship(Result):
    """How one party sees another now."""

    persona1_id: str
    persona2_id: str
    affinity: float = Field(description="Dislike -1 to liking 1")
    trust: float = Field(description="-1 to 1")
    respect: float = Field(description="-1 to 1")
    intimacy: float = Field(description="0 to 1; never more than familiarity and trust allow")
    familiarity: float = Field(description="0 to 1; never falls")
    relationship_type: str
    relationship_strength: float = Field(description="-1 to 1, all dimensions together")
    compatibility_score: float = Field(description="0 to 1; 0.5 is neutral")
    interaction_count: int
    total_interaction_time: float = Field(description="Minutes")
    recent_interaction_quality: float = Field(description="Warmth of the last contact, -1 to 1")
    first_meeting: str | None
    last_interaction: str | None
    as_of: str


class RelationshipGet(Result):
    """Result of relationship_get."""

    exists: bool
    relationship: Relationship | None
    reverse: Relationship | None = Field(description="The other direction, if there is one")
    message: str | None


@operation("Get a relationship", "relationship", "read")
async def relationship_get(call: Call, arguments: RelationshipGetArguments) -> RelationshipGet:
    """Return how a persona sees another persona or a user now: affinity, trust, respect, intimacy.

    Relationships have a direction: persona1's view of persona2 is not persona2's of persona1.
    """
    laws, now = call.service.laws.effects.relationships, time.time()
    one = (await call.service.personas.resolve(call.world_id, arguments.persona1_id)).id
    other = await other_party(call, one, arguments.persona2_id)

    def read(connection: Connection) -> tuple[Arrow | None, Arrow | None]:
        there = arrow_now(connection, call.world_id, one, other, now, laws)
        return there, arrow_now(connection, call.world_id, other, one, now, laws)

    there, back = await call.service.database.read(read)
    return RelationshipGet(
        exists=there is not None,
        relationship=shown(one, other, there, back, laws) if there else None,
        reverse=shown(other, one, back, there, laws) if back else None,
        message=None if there else f"'{one}' has not met '{other}' yet",
    )


async def other_party(call: Call, one: str, reference: str) -> str:
    """Find whom an operation names in `persona2_id`, beside a persona.

    Raises:
        NotFound: Neither a persona nor a user is there.
        InvalidParams: It is the same persona.
    """
    other = await party(call, reference)
    if one == other:
        fault = {"field": "persona2_id", "allowed": "somebody else", "given": other}
        raise InvalidParams.of([fault])
    return other


async def party(call: Call, reference: str) -> str:
    """Find a persona, else a user who has talked to one.

    Raises:
        NotFound: Neither is there.
    """
    try:
        return (await call.service.personas.resolve(call.world_id, reference)).id
    except NotFound:
        if await call.service.conversations.knows_user(call.world_id, reference):
            return reference
        raise


def arrow_now(
    connection: Connection,
    world_id: str,
    one: str,
    other: str,
    now: float,
    laws: RelationshipParams,
) -> Arrow | None:
    """Return how one sees the other now."""
    arrow = read_arrow(connection, world_id, one, other)
    return relationship.decay(arrow, now, laws) if arrow else None


def shown(
    one: str, other: str, arrow: Arrow, reverse: Arrow | None, laws: RelationshipParams
) -> Relationship:
    """Show an arrow."""
    values = relationship.shown(arrow, laws)
    return Relationship(
        persona1_id=one,
        persona2_id=other,
        affinity=values.affinity,
        trust=values.trust,
        respect=values.respect,
        intimacy=values.intimacy,
        familiarity=values.familiarity,
        relationship_type=relationship.relationship_type(arrow, reverse, laws),
        relationship_strength=values.strength,
        compatibility_score=values.compatibility_score,
        interaction_count=arrow.interactions,
        total_interaction_time=arrow.minutes,
        recent_interaction_quality=arrow.last_quality,
        first_meeting=None if arrow.first_meeting is None else rfc3339(arrow.first_meeting),
        last_interaction=None
        if arrow.last_interaction is None
        else rfc3339(arrow.last_interaction),
        as_of=rfc3339(arrow.as_of),
    )
