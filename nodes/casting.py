"""The first steps of a turn between personas: who is there, who speaks, and what it knows."""

from collections.abc import Sequence
from dataclasses import replace

from langgraph.runtime import Runtime
from sqlalchemy import Connection

from persona_mcp.nodes.carded import played
from persona_mcp.nodes.chat_state import Scene
from persona_mcp.nodes.company import came_late, enumerated, others_of, said_in
from persona_mcp.nodes.dialogue_state import DialogueState, DialogueUpdate
from persona_mcp.nodes.events import tell
from persona_mcp.nodes.loading import ids_of, summaries_of
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.prompts import about
from persona_mcp.state import conversations, effects, visual
from persona_mcp.state.dialogue import Standing, plan_of
from persona_mcp.state.dialogues import read_standing
from persona_mcp.state.interventions import happenings
from persona_mcp.state.speaking import next_speaker

OPENING = "({names} {are} with you. You begin to talk{about}.)"
ARRIVAL = "(You have just come to {names}, who {talk}{about}.)"
SILENCE = "({names} {say} nothing. You go on.)"
DIRECTION = "({direction})"


async def cast_talk(
    parts: Parts, state: DialogueState, runtime: Runtime[ChatContext]
) -> DialogueUpdate:
    """Read who is there, how they feel, and how far the talk has gone, in one transaction.

    In a run of several turns that is known from the end of the turn before.

    Reads: world_id, conversation_id, follows, head, standing.
    Writes: standing; happens; the ids, where the run was started without an exchange; resets what
        the last turn left.

    Raises:
        NotFound: The conversation or one of its personas is not there.
        StorageUnavailable: The database did not answer.
    """
    ids = await ids_of(parts, state, runtime.context)
    world_id = ids["world_id"]
    follows = state["follows"] if "follows" in state else state.get("head")

    standing = state.get("standing")
    if standing is None:
        talk_id = ids["conversation_id"]
        standing = await parts.database.read(standing_after, parts, world_id, talk_id, follows)
    return DialogueUpdate(
        world_id=world_id,
        conversation_id=ids["conversation_id"],
        exchange_id=ids["exchange_id"],
        standing=standing,
        happens=happenings(standing, parts.laws.continuation),
        ends=None,
        head=follows,
        attempts=0,
        reply="",
    )


def standing_after(
    connection: Connection, parts: Parts, world_id: str, conversation_id: str, head: str | None
) -> Standing:
    """Read how a talk stands after an exchange; only where its time is not simulated by the clock.

    Raises:
        NotFound: The conversation or one of its personas is not there.
    """
    talk = conversations.get(connection, world_id, conversation_id)
    begun = plan_of(talk.plan or {}).starts_at
    now = parts.now() if begun is None else begun
    window = parts.limits.window_turns
    return read_standing(connection, world_id, talk, now, window, parts.laws.effects, head)


async def choose_speaker(
    parts: Parts, state: DialogueState, runtime: Runtime[ChatContext]
) -> DialogueUpdate:
    """Let the one speak who is asked for, else whose turn it is, and read what that one knows.

    Reads: world_id, standing, happens, asked_speaker, direction, head.
    Writes: speaker; scene, as the speaker has it; message, which is what it answers.

    Raises:
        StorageUnavailable: The database did not answer.
    """
    standing, laws = state["standing"], parts.laws.continuation
    speaker = state.get("asked_speaker") or next_speaker(standing, laws)
    world_id, head = state["world_id"], state.get("head")
    scene = await parts.database.read(read_scene, parts, world_id, standing, speaker, head)
    for happening in state["happens"]:
        told = list(happening.perceived_by)
        tell(runtime, "narrates", text=happening.text, perceived_by=told)
    tell(runtime, "speaks", persona_id=speaker, name=scene.persona.name)
    answered = next((t for t in scene.window if t.id == scene.answers_turn), None)
    heard = said_in(scene, answered) if answered else ""
    happens = [one.text for one in state["happens"] if speaker in one.perceived_by]
    message = cue(scene, heard, [d for d in (state.get("direction"), *happens) if d])
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
    pair = [speaker, other.id]
    arrows = effects.arrows_among(connection, world_id, pair, now, laws.relationships)
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
        arrow=arrows.get((speaker, other.id)),
        feelings=own.feelings,
        answers=conversations.spoken(connection, world_id, seen.id, speaker),
        summaries=summaries_of(connection, parts, world_id, seen, head, window),
        reverse=arrows.get((other.id, speaker)),
        sights=visual.sights(connection, world_id, speaker, seen.scene, now),
        card=its.card,
        lore=its.lore,
        partner=other,
        standing=standing,
        answers_turn=last.id if last and last.speaker_id != speaker else None,
    )


def cue(scene: Scene, heard: str, happens: Sequence[str]) -> str:
    """Write what a speaker answers: what was said to it, and what happens, in brackets.

    Args:
        scene: As it has it.
        heard: What was said to it; empty if it begins, has just come, or spoke last itself.
        happens: What happens before it speaks, in order.
    """
    names = others_of(scene)
    words = {
        "names": enumerated(names),
        "are": "is" if len(names) == 1 else "are",
        "say": "says" if len(names) == 1 else "say",
        "talk": "talks" if len(names) == 1 else "talk",
        "about": about(scene),
    }
    begins = ARRIVAL if came_late(scene) else OPENING
    said = heard or (SILENCE if scene.window else begins).format(**words)
    return "\n".join([said, *(DIRECTION.format(direction=one) for one in happens)])
