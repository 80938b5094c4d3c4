"""Whom a persona wants to talk to now: the continue score of a talk that would begin."""

from collections.abc import Mapping

from sqlalchemy import Connection

from persona_mcp.state import continuation, personas, relationship
from persona_mcp.state.continuation import UNKNOWN_PREFERENCE, Party, Score, Talk
from persona_mcp.state.continuation_params import ContinuationParams
from persona_mcp.state.effects import EffectParams
from persona_mcp.state.feelings import Feelings, read_feelings
from persona_mcp.state.persona import Persona
from persona_mcp.state.relationship_store import outgoing
from persona_mcp.state.traits import rank_level

TOKENS = 500
"""Left of the budget of a talk that has not begun."""


def party_of(persona: Persona, feelings: Feelings, topic: str) -> Party:
    """Return what a continue score needs of a persona."""
    spec, left = persona.spec, feelings.interaction
    return Party(
        charisma=spec.charisma,
        rank_level=rank_level(spec.social_rank),
        preference=spec.topic_preferences.get(topic, UNKNOWN_PREFERENCE),
        fatigue=left.fatigue,
        energy=left.energy,
        time=left.time,
        mood=feelings.emotion.mood,
        priority=left.priority,
    )


def best_topic(own: Mapping[str, float], others: Mapping[str, float]) -> str:
    """Return the topic that draws two the most together; empty if neither likes any.

    Args:
        own: Preferences of the one, 0..100; 50 for a topic that is not there.
        others: Those of the other.
    """

    def liking(topic: str) -> tuple[float, float]:
        both = own.get(topic, UNKNOWN_PREFERENCE), others.get(topic, UNKNOWN_PREFERENCE)
        return sum(both), min(both)

    liked = [t for t in sorted({*own, *others}) if liking(t)[0] > 2 * UNKNOWN_PREFERENCE]
    return max(liked, key=liking, default="")


def wish(
    own: tuple[Persona, Feelings],
    other: tuple[Persona, Feelings] | None,
    strength: float | None,
    params: ContinuationParams,
) -> Score:
    """Score how much a persona wants to talk to another now, [0, 100].

    It is the continue score at the beginning of a talk on the topic that both like best: the
    relationship, mood, energy, time and fatigue count in it as they do while talking.

    Args:
        own: The one who wishes, and how it feels now.
        other: The other one; None for a human, of whom nothing is known.
        strength: Of how it sees the other now, (-1, 1); None if it never met it.
        params: The terms.
    """
    persona, feelings = own
    known = other[0].spec.topic_preferences if other else {}
    topic = best_topic(persona.spec.topic_preferences, known)
    party = party_of(persona, feelings, topic)
    partner = party_of(*other, topic) if other else continuation.human_partner(party.rank_level)
    return continuation.score(party, partner, Talk(0.0, 0, TOKENS), strength, params)


def wishes(
    connection: Connection,
    world_id: str,
    persona_id: str,
    now: float,
    laws: EffectParams,
    params: ContinuationParams,
) -> dict[str, Score]:
    """Score how much a persona wants to talk now to each of those whom it knows.

    Args:
        connection: An open transaction.
        world_id: Where.
        persona_id: Who wishes.
        now: Seconds since the epoch, UTC.
        laws: Of relationships and feelings.
        params: The terms of the score.

    Returns:
        Scores by the ids of the others.
    """

    def feeling(id: str) -> tuple[Persona, Feelings]:
        persona = personas.find(connection, world_id, id)
        return persona, read_feelings(connection, world_id, persona, now, laws)

    own, found = feeling(persona_id), {}
    for one in outgoing(connection, world_id, persona_id):
        arrow = relationship.decay(one.arrow, now, laws.relationships)
        strength = relationship.shown(arrow, laws.relationships).strength
        other = feeling(one.other.id) if one.other.kind == "persona" else None
        found[one.other.id] = wish(own, other, strength, params)
    return found
