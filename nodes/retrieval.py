"""What the persona remembers that bears on the message, and that it tells the one it talks to."""

from collections.abc import Sequence

from langgraph.runtime import Runtime
from sqlalchemy import Connection

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate
from persona_mcp.nodes.events import tell
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.prompts import Brief, Prompt, compose
from persona_mcp.nodes.wording import shown_of
from persona_mcp.state.memory.disclosure import confides, held_back
from persona_mcp.state.memory.memory import Recall
from persona_mcp.state.model import ModelInfo


async def retrieve_memories(
    parts: Parts, state: ChatState, runtime: Runtime[ChatContext]
) -> ChatUpdate:
    """Find memories that the persona may know, beside what the window shows.

    What is personal is left out where the persona is not close to whom it talks to.

    Reads: world_id, message, scene.
    Writes: recall, best first.

    Raises:
        StorageUnavailable: The database did not answer.
    """
    scene, limits = state["scene"], parts.limits
    window = [turn.id for turn in scene.window]
    # Summaries of this talk are memories, too, which a prompt shows by themselves.
    found = await recall(parts, state, window, limits.recalled + len(scene.summaries))
    tell_of(runtime, found)
    return ChatUpdate(recall=found)


async def prompt_of(
    parts: Parts, state: ChatState, runtime: Runtime[ChatContext], brief: Brief, info: ModelInfo
) -> tuple[Prompt, Recall]:
    """Write the prompt of one reply, and recall more where it shows less of the window.

    A window is cut where the model's context is short. A small model is shown its end alone, and of
    what is found only some kinds, so that more has to be found for it.

    Returns:
        The prompt, and what was recalled for it.

    Raises:
        LimitExceeded: Even the message alone does not fit.
        StorageUnavailable: The database did not answer.
    """
    found, window, prompts = state["recall"], brief.scene.window, parts.laws.prompts
    prompt = compose(brief, found, info, prompts)
    cut = window if info.small else window[: len(window) - prompt.turns]
    if found.shown.isdisjoint(turn.id for turn in cut):
        return prompt, found
    # So much that what the prompt does show of the window may be left out.
    most = parts.limits.recalled + len(brief.scene.summaries) + len(window)
    found = await recall(parts, state, (), most, found.degraded)
    tell_of(runtime, found)
    return compose(brief, found, info, prompts), found


async def recall(
    parts: Parts, state: ChatState, shown: Sequence[str], most: int, degraded: str = ""
) -> Recall:
    """Find what bears on the message.

    Args:
        parts: The search.
        state: With the message and its scene.
        shown: Turns that the prompt shows anyway.
        most: Memories, at most.
        degraded: Why words alone are searched.
    """
    scene, prompts = state["scene"], parts.laws.prompts
    is_close = confides(shown_of(scene, parts.laws.effects.relationships), prompts)

    def personal(connection: Connection, ids: Sequence[str]) -> frozenset[str]:
        return held_back(connection, state["world_id"], scene.conversation.user_id, ids, prompts)

    # A turn of a talk between personas that is answered now is remembered already.
    answered = [scene.answers_turn] if scene.answers_turn is not None else []
    return await parts.memories.search(
        state["world_id"],
        scene.persona.id,
        state["message"],
        most,
        withhold=None if is_close else personal,
        uses=False,
        shown=[*shown, *answered],
        degraded=degraded,
    )


def tell_of(runtime: Runtime[ChatContext], found: Recall) -> None:
    """Tell how much was recalled, and what was held back."""
    tell(runtime, "recalled", count=len(found.hits), held_back=sorted(found.withheld))
