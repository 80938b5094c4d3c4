"""The first steps of a turn between personas: who is there, who speaks, and what it knows."""

from dataclasses import replace

from langgraph.runtime import Runtime
from sqlalchemy import Connection

from persona_mcp.nodes.carded import played
from persona_mcp.nodes.chat_state import Scene
from persona_mcp.nodes.dialogue_state import DialogueState, DialogueUpdate
from persona_mcp.nodes.loading import summaries_of
from persona_mcp.nodes.parts import ChatContext, ChatIds, Parts
from persona_mcp.nodes.prompts import about
from persona_mcp.state import conversations, effects, relationship, visual
from persona_mcp.state.dialogue import Standing
from persona_mcp.state.dialogues import read_standing

OPENING = "({name} is with you. You begin to talk{about}.)"
SILENCE = "({name} says nothing. You go on.)"
DIRECTION = "({direction})"


async def cast_talk(
    parts: Parts, state: DialogueState, runtime: Runtime[ChatContext]
) -> DialogueUpdate:
    """Read who is there, how they feel, and how far the talk has gone, in one transaction.

    Reads: world_id, conversation_id, follows, head.
    Writes: standing; the ids, where the run was started without an exchange; resets what the last
        turn left.

    Raises:
        NotFound: The conversation or one of its personas is not there.
        StorageUnavailable: The database did not answer.
    """
    ids: ChatIds = ChatIds(
        world_id=state.get("world_id", ""),
        conversation_id=state.get("conversation_id", ""),
        exchange_id=state.get("exchange_id", ""),
    )
    if parts.accept is not None:
        ids = await parts.accept(state, runtime.context)
    world_id = ids["world_id"]
    follows = state["follows"] if "follows" in state else state.get("head")

    def read(connection: Connection) -> Standing:
        talk = conversations.get(connection, world_id, ids["conversation_id"])
        now, window = parts.now(), parts.limits.window_turns
        return read_standing(connection, world_id, talk, now, window, parts.laws.effects, follows)

    return DialogueUpdate(
        world_id=world_id,
        conversation_id=ids["conversation_id"],
        exchange_id=ids["exchange_id"],
        standing=await parts.database.read(read),
        head=follows,
        attempts=0,
        reply="",
    )


async def choose_speaker(
    parts: Parts, state: DialogueState, runtime: Runtime[ChatContext]
) -> DialogueUpdate:
    """Let the one speak who is asked for, else whose turn it is, and read what that one knows.

    Reads: world_id, standing, asked_speaker, direction, head.
    Writes: speaker; scene, as the speaker has it; message, which is what it answers.

    Raises:
        StorageUnavailable: The database did not answer.
    """
    standing = state["standing"]
    speaker = state.get("asked_speaker") or standing.next_speaker
    world_id, head = state["world_id"], state.get("head")
    scene = await parts.database.read(read_scene, parts, world_id, standing, speaker, head)
    answered = next((t for t in scene.window if t.id == scene.answers_turn), None)
    runtime.stream_writer({"event": "speaks", "persona_id": speaker, "name": scene.persona.name})
    message = cue(scene, answered.content if answered else "", state.get("direction") or "")
    kept = tuple(turn for turn in scene.window if turn is not answered)
    return DialogueUpdate(speaker=speaker, scene=replace(scene, window=kept), message=message)


def read_scene(
    connection: Connection,
    parts: Parts,
    world_id: str,
    standing: Standing,
    speaker: str,
    head: str | None,
) -> Scene:
    """Read what stands before a turn for who speaks: what it heard, and how it sees the other."""
    own, other = standing.member(speaker), standing.partner(speaker).persona
    seen = replace(standing.conversation, persona_id=speaker, user_id=other.id)
    laws, now = parts.laws.effects, standing.now
    arrows = [
        effects.read_arrow(connection, world_id, *pair)
        for pair in ((speaker, other.id), (other.id, speaker))
    ]
    arrow, reverse = (relationship.decay(a, now, laws.relationships) if a else None for a in arrows)
    window = conversations.window(
        connection, world_id, seen.id, speaker, head, parts.limits.window_turns
    )
    last = window[-1] if window else None
    heard = [turn.content for turn in window]
    its = played(connection, parts, world_id, own.persona, other.name, heard)
    return Scene(
        now=now,
        persona=its.persona,
        conversation=seen,
        window=tuple(window),
        arrow=arrow,
        feelings=own.feelings,
        answers=conversations.spoken(connection, world_id, seen.id, speaker),
        summaries=summaries_of(connection, parts, world_id, seen, head, window),
        reverse=reverse,
        sights=visual.sights(connection, world_id, speaker, seen.scene, now),
        card=its.card,
        lore=its.lore,
        partner=other,
        standing=standing,
        answers_turn=last.id if last and last.speaker_id != speaker else None,
    )


def cue(scene: Scene, heard: str, direction: str) -> str:
    """Write what a speaker answers: what was said to it, and what happens, in brackets.

    Args:
        scene: As it has it.
        heard: What was said to it; empty if it begins, or spoke last itself.
        direction: What happens before it speaks; empty for nothing.
    """
    name = scene.partner_name
    begun = SILENCE.format(name=name) if scene.window else ""
    said = heard or begun or OPENING.format(name=name, about=about(scene))
    happens = [DIRECTION.format(direction=direction)] if direction else []
    return "\n".join([said, *happens])
