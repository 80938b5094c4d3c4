"""The last steps of a turn between personas: whose turn it is now, or the end of the talk."""

from langgraph.runtime import Runtime
from sqlalchemy import Connection

from persona_mcp.nodes.casting import standing_after
from persona_mcp.nodes.dialogue_state import DialogueState, DialogueUpdate
from persona_mcp.nodes.events import tell
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.summarising import extract_of, weigher
from persona_mcp.state import conversations
from persona_mcp.state.dialogue import NARRATOR
from persona_mcp.state.dialogues import end_conversation
from persona_mcp.state.interventions import holds
from persona_mcp.state.memory.importance import Interests, Occasion, importance
from persona_mcp.state.speaking import next_speaker
from persona_mcp.state.summaries import Outgrown, Span, add_summary, heard_all
from persona_mcp.state.summarising import SUMMARY

CONDITION = "condition"
"""Why a talk is over that was to end when something held."""
LEAST_TURNS = 2
CLOSING_TURNS = 500
"""Most turns that a closing summary is made of, the last ones."""


async def judge_talk(
    parts: Parts, state: DialogueState, runtime: Runtime[ChatContext]
) -> DialogueUpdate:
    """Tell of the turn, and say who is to go on, if the talk is not over.

    What the turn itself ended was written together with it. A run goes on by itself only where it
    is given the ids of another exchange.

    Reads: world_id, conversation_id, speaker, standing, consequences, draft, verdict, head, turns.
    Writes: ends; turns that are left of this run; next_speaker, None if the talk is over; standing,
        as it is after the turn; resets what was asked of the first turn alone.

    Raises:
        StorageUnavailable: The database did not answer.
    """
    before, ends = state["standing"], state["consequences"].ends
    tell(
        runtime,
        "turn",
        turn=before.said + 1,
        persona_id=state["speaker"],
        tokens=state["draft"].tokens,
        text=state["verdict"].text,
    )
    where = (state["world_id"], state["conversation_id"], state["head"])
    after, laws = await parts.database.read(standing_after, parts, *where), parts.laws.continuation
    awaited = after.plan.ends_when
    if ends is None and awaited is not None and holds(awaited, after, laws):
        ends = CONDITION
    left = state.get("turns", 1) - 1 if parts.accept is not None else 0
    return DialogueUpdate(
        ends=ends,
        turns=max(0, left),
        follows=state["head"],
        asked_speaker=None,
        direction="",
        standing=after,
        next_speaker=next_speaker(after, laws) if ends is None else None,
    )


async def close_talk(parts: Parts, state: DialogueState) -> DialogueUpdate:
    """Sum the talk up for each who was there, as it heard it, and end it if a turn did not.

    Each summary is made of what its owner said and heard; closing a talk again changes nothing.

    Reads: world_id, conversation_id, standing, head, ends.
    Writes: next_speaker.

    Raises:
        StorageUnavailable: The database did not answer; nothing was written.
    """
    world_id, talk_id, head = state["world_id"], state["conversation_id"], state["head"] or ""
    standing, reason = state["standing"], state["ends"] or ""

    def write(connection: Connection) -> None:
        talk = conversations.get(connection, world_id, talk_id)
        at = talk.updated_at  # as the last turn was said
        if talk.status != "ended":
            end_conversation(connection, world_id, talk_id, reason, at, parts.laws.effects)
        weigh, names = weigher(parts.laws), {**standing.names, NARRATOR: "Narrator"}
        for owner in standing.names:
            seen = Outgrown(world_id, talk_id, owner, head)
            span = witnessed(connection, seen)
            if span is not None:
                text = extract_of(parts.laws, span, names, weigh)
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
