"""What the persona remembers that bears on the message."""

from langgraph.runtime import Runtime

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate
from persona_mcp.nodes.parts import ChatContext, Parts


async def retrieve_memories(
    parts: Parts, state: ChatState, runtime: Runtime[ChatContext]
) -> ChatUpdate:
    """Find memories that the persona may know; the prompt leaves out what its window shows.

    Reads: world_id, message, scene.
    Writes: recall, best first.

    Raises:
        StorageUnavailable: The database did not answer.
    """
    scene = state["scene"]
    recall = await parts.memories.search(
        state["world_id"],
        scene.persona.id,
        state["message"],
        parts.limits.recalled + len(scene.window),
    )
    runtime.stream_writer({"event": "recalled", "count": len(recall.hits)})
    return ChatUpdate(recall=recall)
