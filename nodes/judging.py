"""The last steps of a turn between personas: whose turn it is now, or the end of the talk."""

from langgraph.runtime import Runtime
from sqlalchemy import Connection

from persona_mcp.nodes.dialogue_state import DialogueState, DialogueUpdate
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.summarising import extract_of
from persona_mcp.state import conversations
from persona_mcp.state.dialogue import NARRATOR, Standing
from persona_mcp.state.dialogues import drop_unspoken, end_conversation, read_standing
from persona_mcp.state.importance import Interests, Occasion, importance
from persona_mcp.state.speaking import next_speaker
from persona_mcp.state.summaries import Outgrown, Span, add_summary, heard_all
from persona_mcp.state.summarising import SUMMARY

LEAST_TURNS = 2
CLOSING_TURNS = 500
"""Most turns that a closing summary is made of, the last ones."""


async def judge_talk(
    parts: Parts, state: DialogueState, runtime: Runtime[ChatContext]
) -> DialogueUpdate:
    """Tell of the turn, and say who is to go on where this run does not do it itself.

    What ended the talk was written together with the turn.

    Reads: world_id, speaker, standing, consequences, draft, verdict, head, turns.
    Writes: ends; turns that are left of this run; next_speaker, None if the talk is over; resets
        what was asked of the first turn alone.

    Raises:
        StorageUnavailable: The database did not answer.
    """
    standing, ends = state["standing"], state["consequences"].ends
    runtime.stream_writer(
        {
            "event": "turn",
            "turn": standing.said + 1,
            "persona_id": state["speaker"],
            "tokens": state["draft"].tokens,
            "text": state["verdict"].text,
        }
    )
    left = state.get("turns", 1) - 1
    update = DialogueUpdate(
        ends=ends, turns=left, follows=state["head"], asked_speaker=None, direction=""
    )
    if ends is not None:
        return DialogueUpdate(**update, next_speaker=None)
    if left > 0:
        return update
    after = await read_after(parts, state)
    return DialogueUpdate(**update, next_speaker=next_speaker(after, parts.laws.continuation))


async def read_after(parts: Parts, state: DialogueState) -> Standing:
    """Read how the talk stands after the turn."""
    world_id, laws = state["world_id"], parts.laws.effects

    def read(connection: Connection) -> Standing:
        talk = conversations.get(connection, world_id, state["conversation_id"])
        window = parts.limits.window_turns
        return read_standing(connection, world_id, talk, parts.now(), window, laws, state["head"])

    return await parts.database.read(read)


async def close_talk(parts: Parts, state: DialogueState) -> DialogueUpdate:
    """Sum the talk up for each who was there, as it heard it, and end it if a turn did not.

    Each summary is made of what its owner said and heard; closing a talk again changes nothing.

    Reads: world_id, conversation_id, exchange_id, standing, head, ends.
    Writes: next_speaker.

    Raises:
        StorageUnavailable: The database did not answer; nothing was written.
    """
    world_id, talk_id, head = state["world_id"], state["conversation_id"], state["head"]
    standing, now = state["standing"], state["standing"].now

    def write(connection: Connection) -> None:
        talk = conversations.get(connection, world_id, talk_id)
        at = max(now, talk.updated_at)
        if talk.status != "ended":
            reason = state["ends"] or ""
            drop_unspoken(connection, world_id, state["exchange_id"])
            end_conversation(connection, world_id, talk_id, reason, at, parts.laws.effects)
        for owner in standing.names if head is not None else ():
            seen = Outgrown(world_id, talk_id, owner, head or "")
            span = witnessed(connection, seen)
            if span is not None:
                text = extract_of(parts.laws, span, {**standing.names, NARRATOR: "Narrator"})
                occasion = Occasion(memory_type=SUMMARY)
                weighed = importance(text, Interests(), None, occasion, parts.laws.importance)
                add_summary(connection, seen, span, text, "extractive", weighed, at)

    await parts.database.write(write)
    parts.written()
    return DialogueUpdate(next_speaker=None)


def witnessed(connection: Connection, seen: Outgrown) -> Span | None:
    """Read what one said and heard of a talk; None if that is too little to be summed up."""
    turns = conversations.window(
        connection, seen.world_id, seen.conversation_id, seen.persona_id, seen.head, CLOSING_TURNS
    )
    if len(turns) < LEAST_TURNS:
        return None
    heard = conversations.witnesses_of(connection, seen.world_id, [turn.id for turn in turns])
    return Span(tuple(turns), heard_all(turns, heard))
