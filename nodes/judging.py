"""The last step of a turn between personas: whose turn it is now, if the talk is not over."""

from persona_mcp.nodes.dialogue_state import DialogueState, DialogueUpdate
from persona_mcp.nodes.parts import Parts
from persona_mcp.state.dialogue import next_in_turn


async def judge_talk(parts: Parts, state: DialogueState) -> DialogueUpdate:
    """Say who is to go on; what ended the talk was written together with the turn.

    Reads: speaker, standing, consequences.
    Writes: next_speaker, None if the talk is over.
    """
    if state["consequences"].ends is not None:
        return DialogueUpdate(next_speaker=None)
    ids = state["standing"].conversation.participants
    return DialogueUpdate(next_speaker=next_in_turn(ids, state["speaker"], ids[0]))
