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
    found = await recall(parts, state, is_shown=True)
    tell(runtime, "recalled", count=len(found.hits), held_back=sorted(found.withheld))
    return ChatUpdate(recall=found)


async def prompt_of(parts: Parts, state: ChatState, brief: Brief, info: ModelInfo) -> Prompt:
    """Write the prompt of one reply; what it has no room for in the window is recalled as well.

    Raises:
        LimitExceeded: Even the message alone does not fit.
        StorageUnavailable: The database did not answer.
    """
    prompts = parts.laws.prompts
    if not info.small:
        prompt = compose(brief, state["recall"], info, prompts)
        if prompt.turns == len(brief.scene.window):
            return prompt
    return compose(brief, await recall(parts, state, is_shown=False), info, prompts)


async def recall(parts: Parts, state: ChatState, is_shown: bool) -> Recall:
    """Find what bears on the message.

    Args:
        parts: The search, and how much is recalled.
        state: With the message and its scene.
        is_shown: Whether the whole window is shown beside it, and so need not be found; else so
            much is found that what is shown of the window may be left out.
    """
    scene, prompts = state["scene"], parts.laws.prompts
    is_close = confides(shown_of(scene, parts.laws.effects.relationships), prompts)

    def personal(connection: Connection, ids: Sequence[str]) -> frozenset[str]:
        return held_back(connection, state["world_id"], scene.conversation.user_id, ids, prompts)

    window = [turn.id for turn in scene.window]
    # A turn of a talk between personas that is answered now is remembered already.
    shown = {*(window if is_shown else ()), *((scene.answers_turn,) if scene.answers_turn else ())}
    return await parts.memories.search(
        state["world_id"],
        scene.persona.id,
        state["message"],
        # Summaries of this talk are memories, and shown in any case.
        parts.limits.recalled + len(scene.summaries) + (0 if is_shown else len(window)),
        withhold=None if is_close else personal,
        uses=False,
        shown=shown,
    )
