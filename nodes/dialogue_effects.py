"""What a turn between personas does to all who are there: computed, not written."""

from dataclasses import replace

from persona_mcp.nodes.chat_state import Consequences, Scene
from persona_mcp.nodes.decision import leaving
from persona_mcp.nodes.dialogue_state import DialogueState, DialogueUpdate
from persona_mcp.nodes.feeling import feeling_of
from persona_mcp.nodes.parts import Parts
from persona_mcp.nodes.relating import taken
from persona_mcp.nodes.relationship import (
    SECONDS,
    Act,
    Participant,
    change_of,
    reason_of,
    turn_of,
)
from persona_mcp.nodes.remembering import memory_of
from persona_mcp.state import personas
from persona_mcp.state.appraisal import Appraisal, Role
from persona_mcp.state.commit import NewTurn
from persona_mcp.state.dialogue import Standing
from persona_mcp.state.effects import RelationshipChange
from persona_mcp.state.feelings import FeelingChange
from persona_mcp.state.ids import derived_id
from persona_mcp.state.interaction import talk_cost
from persona_mcp.state.persona import Persona

TURNS_ENDED = "time_limit"
"""Why a talk is over whose last turn was said; no line is said beyond it."""


async def relate_turn(parts: Parts, state: DialogueState) -> DialogueUpdate:
    """Appraise what was said and compute what it changes in all who heard it.

    The one it was said to is moved in full, who said it by a smaller share, who overheard it by
    another one and without being any closer. All of them remember it.

    Reads: world_id, exchange_id, scene, standing, decision, verdict.
    Writes: consequences.
    """
    scene, standing, text = state["scene"], state["standing"], state["verdict"].text
    key = (state["world_id"], state["exchange_id"])
    present = await present_at(parts, state["world_id"], standing)
    turn = NewTurn(
        id=derived_id(*key, "turn", 0),
        speaker_id=scene.persona.id,
        speaker_version=scene.persona.version,
        content=text,
        witnesses=tuple(one.id for one in present),
    )
    act = await taken(parts, text, "received")
    names = {one.id: one.name for one in present}
    decision = state["decision"]
    return DialogueUpdate(
        consequences=Consequences(
            turns=(turn,),
            relationships=relationships_of(parts, key, scene, present, act, turn),
            feelings=feelings_of(parts, scene, standing, act),
            memories=tuple(
                memory_of(
                    derived_id(*key, "memory", one.id),
                    one,
                    turn,
                    names,
                    scene,
                    decision.score,
                    parts,
                )
                for one in present
            ),
            ends=leaving(parts, decision) if not decision.route.model else last_turn(standing),
        )
    )


async def present_at(parts: Parts, world_id: str, standing: Standing) -> tuple[Persona, ...]:
    """Return those who talk and those who overhear it; who was deleted meanwhile hears nothing."""
    found = [member.persona for member in standing.members]
    if standing.plan.witnesses:
        found += await parts.database.read(personas.those, world_id, standing.plan.witnesses)
    return tuple(found)


def last_turn(standing: Standing) -> str | None:
    """Tell whether a talk is over because it has no turn left after this one."""
    return TURNS_ENDED if standing.conversation.turn_count + 1 >= standing.plan.max_turns else None


def relationships_of(
    parts: Parts,
    key: tuple[str, str],
    scene: Scene,
    present: tuple[Persona, ...],
    act: Act,
    turn: NewTurn,
) -> tuple[RelationshipChange, ...]:
    """Compute the events on the arrows: listener to speaker, speaker to listener, and asides."""
    changes = []
    for one in present:
        mine = replace(act, role=role_of(scene, one))
        seen = scene.partner if mine.role == "returned" else scene.persona
        if seen is None:
            continue
        changes.append(
            change_of(
                parts,
                one,
                Participant(seen.id, seen),
                mine,
                turn_of(parts, mine, turn.id),
                scene.now,
                derived_id(*key, "relationship", one.id),
            )
        )
    return tuple(changes)


def role_of(scene: Scene, one: Persona) -> Role:
    """Say how one who is there stands to what was said."""
    if one.id == scene.persona.id:
        return "returned"
    return "received" if one.id == scene.conversation.user_id else "aside"


def feelings_of(
    parts: Parts, scene: Scene, standing: Standing, act: Act
) -> tuple[FeelingChange, ...]:
    """Compute what a turn does to the moods of those who talk, and what it costs each of them."""
    laws = parts.laws.effects
    cost = talk_cost(len(act.text.split()), laws.interaction)
    made = []
    for member in standing.members:
        speaks = member.persona.id == scene.persona.id
        made.append(
            feeling_of(
                parts,
                member.persona,
                Appraisal() if speaks else act.appraisal,
                laws.emotions.turn_size,
                cost / SECONDS,
                reason_of(act),
                ((cost, 1.0 if speaks else laws.interaction.listener_share),),
                standing.conversation.topic,
            )
        )
    return tuple(made)
