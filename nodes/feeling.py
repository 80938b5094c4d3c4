"""What an act does to the feelings of a persona that it concerns."""

from persona_mcp.nodes.parts import Parts
from persona_mcp.state import emotion
from persona_mcp.state.appraisal import Appraisal
from persona_mcp.state.emotion import NEUTRAL_PREFERENCE, Impulses
from persona_mcp.state.feelings import FeelingChange
from persona_mcp.state.persona import Persona
from persona_mcp.state.traits import big_five


def feeling_of(
    parts: Parts,
    persona: Persona,
    appraisal: Appraisal,
    size: float,
    minutes: float,
    why: str,
    talk: tuple[tuple[float, float], ...] = (),
    topic: str = "",
    caught: Impulses | None = None,
) -> FeelingChange:
    """Compute a push on a persona's emotions, and what talking costs it.

    Args:
        parts: For the constants.
        persona: Whose.
        appraisal: Of what was done to it; neutral for what it did itself.
        size: Of the turn or the meeting, >= 0.
        minutes: Of talk.
        why: A short reason for people.
        talk: Seconds and share of each turn, for a talk that tires.
        topic: What it was about; one that the persona has no preference for moves nothing.
        caught: Of the mood of who spoke to it; None for nothing.
    """
    preference = persona.spec.topic_preferences.get(topic, NEUTRAL_PREFERENCE)
    owner, laws = big_five(persona.spec.personality_traits), parts.laws.effects.emotions
    impulse = emotion.of_turn(appraisal, owner, preference, minutes, size, laws)
    if caught is not None:
        impulse = emotion.summed((impulse, caught))
    return FeelingChange(persona=persona, impulse=impulse, talk=talk, why=why)
