"""Operations that change relationships: update."""

from typing import Any

from pydantic import Field

from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.operations.relationships import View, the_two, view_of
from persona_mcp.state import relationship
from persona_mcp.state.appraisal import DEFAULT_CONTEXT
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.fields import Reference
from persona_mcp.state.happening import Happening, Outcome
from persona_mcp.state.meeting import (
    MEETING_MINUTES,
    Context,
    Direction,
    GivenAppraisal,
    Minutes,
    Signed,
    Why,
)
from persona_mcp.state.relationship import RelationshipParams


class RelationshipUpdateArguments(Arguments):
    """Arguments of relationship_update."""

    persona1_id: Reference = Field(description="A persona's id or name, from persona_list")
    persona2_id: Reference = Field(
        description="Another one's, from persona_list, or the user_id of who used persona_chat"
    )
    interaction_quality: Signed = Field(0.0, description="How it went: bad -1 to good 1")
    duration_minutes: Minutes = Field(MEETING_MINUTES, description="How long they were together")
    context: Context = Field(
        DEFAULT_CONTEXT,
        description="Kind of meeting: conversation, casual, collaboration, deep_conversation, "
        "professional, help, conflict, betrayal, repair; any other counts as conversation",
    )
    direction: Direction = Field(
        "both", description="forward: only persona1's view of persona2; backward: the other one"
    )
    why: Why = Field("", description="A reason, kept with the event; left out: made of the rest")
    appraisal: GivenAppraisal | None = Field(
        None, description="How it is to be taken, in place of interaction_quality and context"
    )
    turning_point: bool | None = Field(
        None, description="It weighs more than others; left out: if it is a betrayal or a repair"
    )


class Processed(Result):
    """What was taken into account."""

    quality: float
    duration_minutes: float
    context: str


class EmotionalEffect(Result):
    """A push on a persona's emotions, each -1 to 1; it moves a value less near its ends."""

    mood: float
    energy_level: float
    stress_level: float
    curiosity: float
    social_battery: float


class RelationshipUpdated(Result):
    """Result of relationship_update."""

    success: bool
    message: str
    interaction_processed: Processed
    updated_relationship: View | None = Field(
        description="How persona1 sees persona2; null if it has not met it"
    )
    reverse_relationship: View | None = Field(
        description="How persona2 sees persona1; null if it has not met it, or is a user"
    )
    event_ids: list[str] = Field(description="One for each view that was moved")
    emotional_effect: dict[str, EmotionalEffect] = Field(
        description="By persona: those whose view was moved"
    )


@operation("Update a relationship", "relationship", "manage", core=False, idempotent=False)
async def relationship_update(
    call: Call, arguments: RelationshipUpdateArguments
) -> RelationshipUpdated:
    """Tell of a meeting between a persona and another persona or a user, which moves how they feel.

    What is said through persona_chat counts by itself; this is for what happened elsewhere. A user
    has no view that is kept, so only the persona's moves.
    """
    one, other = await the_two(call, arguments.persona1_id, arguments.persona2_id)
    ran = await call.service.graphs.relationship.ainvoke(happened(call, one, other, arguments))
    outcome: Outcome = ran["outcome"]
    happening: Happening = ran["happening"]
    forward, backward = outcome.forward, outcome.backward
    laws = call.service.laws.effects.relationships
    moved = " and ".join(f"{c.from_id} sees {c.to_id}" for c in happening.relationships)
    return RelationshipUpdated(
        success=True,
        message=f"how {moved} has been updated",
        interaction_processed=Processed(
            quality=arguments.interaction_quality,
            duration_minutes=arguments.duration_minutes,
            context=arguments.context,
        ),
        updated_relationship=after(forward, backward, laws),
        reverse_relationship=after(backward, forward, laws),
        event_ids=list(outcome.event_ids),
        emotional_effect={
            felt.persona.id: EmotionalEffect(**vars(felt.impulse)) for felt in happening.feelings
        },
    )


def happened(
    call: Call, one: str, other: str, arguments: RelationshipUpdateArguments
) -> dict[str, Any]:
    """Say what happened, as the relationship's graph takes it."""
    return {
        "world_id": call.world_id,
        "event_id": call.made_id("relationship_update"),
        "actor_id": one,
        "receiver_id": other,
        "quality": arguments.interaction_quality,
        "minutes": arguments.duration_minutes,
        "context": arguments.context,
        "appraisal": arguments.appraisal,
        "direction": arguments.direction,
        "turning_point": arguments.turning_point,
        "why": arguments.why,
    }


def after(arrow: Arrow | None, reverse: Arrow | None, laws: RelationshipParams) -> View | None:
    """Show an arrow."""
    if arrow is None:
        return None
    values = relationship.shown(arrow, laws)
    return View(**view_of(arrow, reverse, values, laws))
