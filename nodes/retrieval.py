"""What the persona remembers that bears on the message, and that it tells the one it talks to."""

from collections.abc import Sequence

from langgraph.runtime import Runtime
from sqlalchemy import Connection

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate
from persona_mcp.nodes.events import tell
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.wording import shown_of
from persona_mcp.state.memory.disclosure import confides, held_back
from persona_mcp.state.memory.memory import Recall


async def retrieve_memories(
    parts: Parts, state: ChatState, runtime: Runtime[ChatContext]
) -> ChatUpdate:
    """Find memories that the persona may know; the prompt leaves out what its window shows.

    What is personal is left out where the persona is not close to whom it talks to.

    Reads: world_id, message, scene.
    Writes: recall, best first.

    Raises:
        StorageUnavailable: The database did not answer.
    """
    scene, prompts = state["scene"], parts.laws.prompts
    is_close = confides(shown_of(scene, parts.laws.effects.relationships), prompts)

    def personal(connection: Connection, ids: Sequence[str]) -> frozenset[str]:
        return held_back(connection, state["world_id"], scene.conversation.user_id, ids, prompts)

    found = await parts.memories.search(
        state["world_id"],
        scene.persona.id,
        state["message"],
        parts.limits.recalled + len(scene.window),
        withhold=None if is_close else personal,
        uses=False,
    )
    said_now = scene.answers_turn  # a turn of a talk between personas is remembered already
    told = tuple(hit for hit in found.hits if said_now is None or hit.memory.turn_id != said_now)
    tell(runtime, "recalled", count=len(told), held_back=sorted(found.withheld))
    return ChatUpdate(recall=Recall(told, found.degraded))
