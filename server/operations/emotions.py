"""Operations on how a persona feels: look at it, set it."""

import time
from typing import Annotated

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state import emotion
from persona_mcp.state.emotion import EmotionalState
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.feelings import at_rest, at_time, set_feelings, stored_feelings
from persona_mcp.state.fields import Number, Reference
from persona_mcp.state.meeting import Signed, Why
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.persona import Persona

Share = Annotated[Number, Field(ge=0, le=1)]
WHOSE = "Whose feelings: id or name, from persona_list; left out: the session's"
SET = "set by the caller"


class EmotionalGetArguments(Arguments):
    """Arguments of emotional_get_state."""

    persona_id: Reference | None = Field(None, description=WHOSE)


class Emotions(Result):
    """The five values."""

    mood: float = Field(description="Sad -1 to happy 1")
    energy_level: float = Field(description="Worn out 0 to lively 1")
    stress_level: float = Field(description="At ease 0 to at breaking point 1")
    curiosity: float = Field(description="Indifferent 0 to keen 1")
    social_battery: float = Field(description="Needs to be alone 0 to fresh 1")


class ShownEmotions(Emotions):
    """How a persona feels at one time."""

    last_updated: str = Field(description="When something moved it last; else when it was made")
    baseline: Emotions = Field(description="What it falls back to, from its personality")
    label: str = Field(description="In one word: even, cheerful, gloomy, ...")


class EmotionalGet(Result):
    """Result of emotional_get_state."""

    persona_id: str
    emotional_state: ShownEmotions


@operation("Look at a persona's feelings", "emotion", "read", core=False)
async def emotional_get_state(call: Call, arguments: EmotionalGetArguments) -> EmotionalGet:
    """Return how a persona feels now: mood, energy, stress, curiosity and social battery.

    Talks and meetings move them; with time they fall back to the persona's baseline.
    """
    persona = await current_persona(call, arguments.persona_id)
    now, laws = time.time(), call.store.laws.effects

    def read(connection: Connection) -> tuple[EmotionalState, float]:
        stored = stored_feelings(connection, call.world_id, persona.id)
        if stored is None:
            return at_rest(persona, now, laws).emotion, persona.created_at
        return at_time(stored, persona, now, laws).emotion, stored.emotion.as_of

    felt, moved = await call.store.database.read(read)
    return EmotionalGet(persona_id=persona.id, emotional_state=shown(call, persona, felt, moved))


class EmotionalUpdateArguments(Arguments):
    """Arguments of emotional_update_state."""

    persona_id: Reference | None = Field(None, description=WHOSE)
    mood: Signed | None = Field(None, description="Sad -1 to happy 1")
    energy_level: Share | None = Field(None, description="Worn out 0 to lively 1")
    stress_level: Share | None = Field(None, description="At ease 0 to at breaking point 1")
    curiosity: Share | None = Field(None, description="Indifferent 0 to keen 1")
    social_battery: Share | None = Field(None, description="Needs to be alone 0 to fresh 1")
    why: Why = Field("", description="A reason, kept with the change")


class EmotionalUpdate(Result):
    """Result of emotional_update_state."""

    success: bool
    message: str
    updated_state: ShownEmotions


@operation("Set a persona's feelings", "emotion", "manage", core=False, idempotent=False)
async def emotional_update_state(
    call: Call, arguments: EmotionalUpdateArguments
) -> EmotionalUpdate:
    """Set how a persona feels; values that are left out stay, and all fall back to its baseline.

    At least one value is needed. Talks and meetings move feelings by themselves.
    """
    persona = await current_persona(call, arguments.persona_id)
    values = arguments.model_dump(include=set(Emotions.model_fields), exclude_none=True)
    if not values:
        names = ", ".join(Emotions.model_fields)
        raise InvalidParams.one("mood", f"at least one of {names}", "nothing")
    felt = await call.store.database.write(
        set_feelings,
        call.world_id,
        persona,
        values,
        arguments.why or SET,
        call.made_id("emotional_update_state"),
        time.time(),
        call.store.laws.effects,
    )
    return EmotionalUpdate(
        success=True,
        message=f"{', '.join(values)} of {persona.id} set",
        updated_state=shown(call, persona, felt, felt.as_of),
    )


def shown(call: Call, persona: Persona, felt: EmotionalState, moved: float) -> ShownEmotions:
    """Show a persona's emotions."""
    rest = at_rest(persona, felt.as_of, call.store.laws.effects).emotion
    return ShownEmotions(
        **values_of(felt),
        last_updated=rfc3339(moved),
        baseline=Emotions(**values_of(rest)),
        label=emotion.label(felt),
    )


def values_of(felt: EmotionalState) -> dict[str, float]:
    """Return the five values by their names."""
    return {name: getattr(felt, name) for name in Emotions.model_fields}
