"""How a persona stands now, all in one; and its relationships under their old name."""

import time
from typing import Any

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations.emotions import ShownEmotions, shown
from persona_mcp.server.operations.memory_reading import (
    MemoryStats,
    MemoryStatsArguments,
    memory_stats,
)
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.operations.relationship_reading import (
    ListedRelationship,
    RelationshipListArguments,
    relationship_list,
)
from persona_mcp.server.operations.relationships import Relationship, arrow_now, party
from persona_mcp.server.operations.relationships import shown as shown_arrow
from persona_mcp.server.operations.visuals import ShownContext, shown_context
from persona_mcp.state import interaction
from persona_mcp.state.availability import NAMES
from persona_mcp.state.feelings import Feelings, at_rest, at_time, stored_feelings
from persona_mcp.state.fields import Reference
from persona_mcp.state.interaction import InteractionState
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.persona import Persona
from persona_mcp.state.visual import VisualContext, of_persona

SHOWN_RELATIONSHIPS = 200


class PersonaStatusArguments(Arguments):
    """Arguments of persona_status."""

    persona_id: Reference | None = Field(
        None, description="Whose: id or name, from persona_list; left out: the session's"
    )


class Self(Result):
    """Who a persona is."""

    id: str
    name: str
    description: str
    personality_traits: dict[str, Any]
    topic_preferences: dict[str, int]
    charisma: int
    intelligence: int
    social_rank: str


class InteractionNow(Result):
    """What a persona has left for talking now."""

    interest_level: float = Field(description="0..100; kept for old clients, bears on nothing")
    interaction_fatigue: float = Field(description="Fresh 0 to exhausted 100")
    current_priority: str
    available_time: float = Field(description="Seconds")
    social_energy: float
    cooldown_until: str | None = Field(
        description="End of its rest after a talk; null if it is over"
    )
    is_available: bool = Field(description="Whether it may talk to another persona now")
    available_in: float = Field(description="Seconds until it is available; 0 if it is")
    unavailable_reason: str | None = Field(description="cooldown, no_time or no_energy")


class PersonaStatus(Result):
    """Result of persona_status."""

    persona: Self
    interaction_state: InteractionNow
    memory_stats: MemoryStats
    emotional_state: ShownEmotions
    visual_context: list[ShownContext] = Field(description="How it looks, from visual_update")
    version: int


@operation("Look at a persona", "persona", "read")
async def persona_status(call: Call, arguments: PersonaStatusArguments) -> PersonaStatus:
    """Return who a persona is, how it feels, what it has left for talking, what it remembers.

    All of it is of now. persona_get has everything that is set of it instead.
    """
    persona = await current_persona(call, arguments.persona_id)
    now, laws = time.time(), call.store.laws.effects

    def read(connection: Connection) -> tuple[Feelings, float, list[VisualContext]]:
        stored = stored_feelings(connection, call.world_id, persona.id)
        felt = at_time(stored, persona, now, laws) if stored else at_rest(persona, now, laws)
        moved = stored.emotion.as_of if stored else persona.created_at
        return felt, moved, of_persona(connection, call.world_id, persona.id, now)

    felt, moved, seen = await call.store.database.read(read)
    spec = persona.spec
    return PersonaStatus(
        persona=Self(
            id=persona.id,
            name=persona.name,
            description=spec.description,
            personality_traits=spec.personality_traits,
            topic_preferences=spec.topic_preferences,
            charisma=spec.charisma,
            intelligence=spec.intelligence,
            social_rank=spec.social_rank,
        ),
        interaction_state=interaction_now(call, persona, felt.interaction),
        memory_stats=await memory_stats(call, MemoryStatsArguments(persona_id=persona.id)),
        emotional_state=shown(call, persona, felt.emotion, moved),
        visual_context=[shown_context(one) for one in seen],
        version=persona.version,
    )


def interaction_now(call: Call, persona: Persona, state: InteractionState) -> InteractionNow:
    """Show what a persona has left, and why it cannot talk, if so."""
    laws = call.store.laws.effects.interaction
    waits = interaction.waits(state, persona.spec.available_time, laws)
    last = max(waits, key=lambda reason: waits[reason], default=None)
    resting = state.cooldown_until is not None and state.cooldown_until > state.as_of
    return InteractionNow(
        interest_level=state.interest_level,
        interaction_fatigue=state.fatigue,
        current_priority=state.priority,
        available_time=state.time,
        social_energy=state.energy,
        cooldown_until=rfc3339(state.cooldown_until or 0.0) if resting else None,
        is_available=not waits,
        available_in=waits[last] if last else 0.0,
        unavailable_reason=NAMES[last] if last else None,
    )


class PersonaRelationshipArguments(Arguments):
    """Arguments of persona_relationship."""

    target_persona: Reference | None = Field(
        None, description="Who is seen: a persona's id or name, or a user's id; left out: everybody"
    )
    persona_id: Reference | None = Field(
        None, description="Who sees: id or name, from persona_list; left out: the session's"
    )


class PersonaRelationship(Result):
    """Result of persona_relationship."""

    current_persona: str
    target_persona: str | None
    relationship: Relationship | None = Field(
        description="null where they have not met, or nobody is named"
    )
    relationships: list[ListedRelationship] | None = Field(
        description="Where nobody is named: the 200 strongest"
    )


@operation("Get relationships (old name)", "persona", "read", core=False)
async def persona_relationship(
    call: Call, arguments: PersonaRelationshipArguments
) -> PersonaRelationship:
    """Return how one persona sees another one, or everybody whom it knows.

    Deprecated, kept for old clients: use relationship_get or relationship_list.
    """
    persona = await current_persona(call, arguments.persona_id)
    if arguments.target_persona is None:
        wanted = RelationshipListArguments(persona_id=persona.id, limit=SHOWN_RELATIONSHIPS)
        found = await relationship_list(call, wanted)
        return PersonaRelationship(
            current_persona=persona.id,
            target_persona=None,
            relationship=None,
            relationships=found.relationships,
        )
    other = await party(call, arguments.target_persona)
    laws, now = call.store.laws.effects.relationships, time.time()

    def read(connection: Connection) -> Relationship | None:
        there = arrow_now(connection, call.world_id, persona.id, other, now, laws)
        back = arrow_now(connection, call.world_id, other, persona.id, now, laws)
        return shown_arrow(persona.id, other, there, back, laws) if there else None

    return PersonaRelationship(
        current_persona=persona.id,
        target_persona=other,
        relationship=await call.store.database.read(read),
        relationships=None,
    )
