"""Scenes for tests of single steps: a persona, a conversation, and what stands before a reply."""

from typing import Any

from persona_mcp.nodes.chat_state import Scene
from persona_mcp.nodes.decided import Decision
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.continuation import Party, Route, Score, Talk
from persona_mcp.state.emotion import EmotionalState, EmotionParams, baseline
from persona_mcp.state.exchange import Conversation, Turn
from persona_mcp.state.feelings import Feelings
from persona_mcp.state.interaction import InteractionState
from persona_mcp.state.memory.memory import Memory, Recall, Recalled
from persona_mcp.state.persona import Example, Persona, PersonaSpec
from persona_mcp.state.traits import BigFive

NOW = 1_700_000_000.0
MARA = PersonaSpec(
    name="Mara",
    description="You are Mara, a harbour pilot. You have steered ships for thirty years.",
    personality_traits={"patient": 80, "loud": 20, "humour": "dry", "scale": 100},
    topic_preferences={"sea_charts": 90, "weather": 75, "gossip": 10},
    social_rank="guard",
    examples=[
        Example(user="Who are you?", reply="Mara. I bring them in."),
        Example(user="I sail.", reply="Still?", memory="The guest has a boat."),
    ],
)


def persona(**more: Any) -> Persona:
    """Make a persona, its fields changed."""
    return Persona("mara", 3, MARA.model_copy(update=more), NOW, NOW)


def turn(number: int, speaker: str, text: str) -> Turn:
    """Make a turn."""
    return Turn(f"t{number}", number, speaker, text, NOW, f"x{(number + 1) // 2}")


def feelings(
    fatigue: float = 0.0, felt: EmotionalState | None = None, energy: float = 100.0
) -> Feelings:
    """Make feelings: at rest, unless something is said."""
    rest = baseline(BigFive(), NOW, EmotionParams())
    return Feelings(felt or rest, InteractionState(NOW, fatigue=fatigue, energy=energy))


def scene(
    *window: Turn,
    who: Persona | None = None,
    arrow: Arrow | None = None,
    felt: Feelings | None = None,
    user: str = "ann",
) -> Scene:
    """Make a scene."""
    known = who or persona()
    return Scene(
        now=NOW,
        persona=known,
        conversation=Conversation(
            *("c1", known.id, user, (user, known.id), "general", "active"),
            *("x1" if window else None, len(window), NOW, NOW),
        ),
        window=window,
        arrow=arrow,
        feelings=felt or feelings(),
        answers=len(window) // 2,
    )


def decision(words: int = 100, max_tokens: int = 146, closing: bool = False) -> Decision:
    """Make a decision."""
    route = Route("constrained" if closing else "full_llm", 0.6, words)
    talk = Talk(0.0, 0, 500)
    return Decision(Score(70.0, {}), route, Party(10, 1), talk, words, max_tokens, 0.6)


def hit(
    number: int, text: str, speaker: str = "ann", similarity: float = 0.9, at: float = NOW
) -> Recalled:
    """Make a memory that was found."""
    memory = Memory(
        id=f"m{number}",
        version=1,
        persona_id="mara",
        content=text,
        indexed_text=f"[14 November 2023] {speaker}: {text}",
        memory_type="conversation",
        speaker_id=speaker,
        importance=0.5,
        emotional_valence=0.0,
        visibility="private",
        related_personas=(),
        pinned=False,
        conversation_id="c0",
        exchange_id="x0",
        turn_id=f"t0{number}",
        archived_at=None,
        created_at=at,
        updated_at=at,
    )
    return Recalled(memory, similarity, 1.0 - number / 100)


def recall(*hits: Recalled, degraded: str = "") -> Recall:
    """Make what a search found."""
    return Recall(hits, degraded)
