"""What is kept of an exchange: its turns and who heard them, and the memories made of them."""

import math
from collections.abc import Mapping, Sequence

import structlog

from persona_mcp.nodes.chat_state import ChatState, Scene
from persona_mcp.nodes.parts import Parts
from persona_mcp.state.commit import NewTurn
from persona_mcp.state.continuation import Score
from persona_mcp.state.embedding import pack
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.ids import id_within
from persona_mcp.state.index.work import Vectors
from persona_mcp.state.interaction import talk_cost
from persona_mcp.state.memory import importance
from persona_mcp.state.memory.importance import Importance, Interests, Occasion
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.persona import Persona

log = structlog.get_logger(__name__)

HEARD = 0.8
"""A listener's memory weighs this much of the speaker's. Source: chosen here."""
LEAST = 0.1


def moment_of(parts: Parts, state: ChatState) -> float:
    """Return when the exchange is over: simulated time passes by what talking costs alone."""
    if not is_simulated(state):
        return parts.now()
    words = len(state["verdict"].text.split())
    return state["scene"].now + talk_cost(words, parts.laws.effects.interaction)


def is_simulated(state: ChatState) -> bool:
    """Tell whether the time of a talk is simulated: then no clock is read, and none is written."""
    standing = state["scene"].standing
    return standing is not None and standing.plan.starts_at is not None


async def vectors_of(parts: Parts, memories: Sequence[NewMemory], now: float) -> Vectors | None:
    """Embed what will be remembered, so that its vectors are in the same write.

    Args:
        parts: For the embedder.
        memories: What.
        now: When it is written; the day stands in the texts.

    Returns:
        None where there is no embedder, or it fails: then the outbox worker embeds it later.
    """
    if parts.embedder is None or not memories:
        return None
    texts = sorted({memory.indexed_text(now) for memory in memories})
    try:
        found = await parts.embedder.embed_documents(texts)
    except PersonaError as error:
        log.warning("embedded later", reason=error.message, code=error.code)
        return None
    packed = map(pack, found)
    return Vectors(parts.embedder.model_id, dict(zip(texts, packed, strict=True)))


def turns_of(
    key: tuple[str, str], scene: Scene, message: str, reply: str
) -> tuple[NewTurn, NewTurn]:
    """Make the two turns of an exchange; both parties witness both."""
    user, persona = scene.conversation.user_id, scene.persona
    witnesses = (user, persona.id)
    return (
        NewTurn(id_within(*key, "turn", 0), user, None, message, witnesses, scene.now),
        NewTurn(id_within(*key, "turn", 1), persona.id, persona.version, reply, witnesses),
    )


def memories_of(
    key: tuple[str, str],
    scene: Scene,
    turns: tuple[NewTurn, ...],
    score: Score,
    parts: Parts,
) -> tuple[NewMemory, ...]:
    """Make the persona's memories of what it heard and said."""
    persona = scene.persona
    names = {persona.id: persona.name}
    return tuple(
        memory_of(id_within(*key, "memory", number), persona, turn, names, scene, score, parts)
        for number, turn in enumerate(turns)
    )


def memory_of(
    memory_id: str,
    owner: Persona,
    turn: NewTurn,
    names: Mapping[str, str],
    scene: Scene,
    score: Score,
    parts: Parts,
) -> NewMemory:
    """Make a persona's memory of a turn that it said or heard.

    Args:
        memory_id: Derived, so that a repeated write finds its row.
        owner: Whose.
        turn: What was said.
        names: What speakers are called, by their ids; others are called by these.
        scene: What stood before.
        score: How much was thought of the talk.
        parts: For the constants.
    """
    interests = importance.interests_of(owner.spec.topic_preferences, owner.spec.personality_traits)
    own = turn.speaker_id == owner.id
    weighed = weigh(turn.content, interests, own, scene, score, parts)
    return NewMemory(
        id=memory_id,
        persona_id=owner.id,
        content=turn.content,
        speaker_id=turn.speaker_id,
        speaker_name=names.get(turn.speaker_id, turn.speaker_id),
        witnesses=turn.witnesses,
        importance=weighed.value,
        importance_terms=dict(weighed.terms),
        turn_id=turn.id,
    )


def weigh(
    text: str, interests: Interests, own: bool, scene: Scene, score: Score, parts: Parts
) -> Importance:
    """Weigh a turn for the persona: by how much it says, and as a listener at 0.8 of the weight."""
    nobody = Interests()
    occasion = Occasion(
        memory_type="conversation",
        topic=scene.conversation.topic,
        continue_score=score.total,
    )
    speaker, listener = (interests, nobody) if own else (nobody, interests)
    laws = parts.laws.importance
    found = importance.importance(text, speaker, listener, occasion, laws)
    factors = {"substance": importance.substance(text, laws)}
    if not own:
        factors["heard"] = HEARD
    value = found.value * math.prod(factors.values())
    return Importance(min(1.0, max(LEAST, value)), {**found.terms, **factors})
