"""What an exchange does to a relationship and to feelings: appraised and computed, not written."""

import asyncio

import structlog

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate, Consequences, Scene
from persona_mcp.nodes.feeling import feeling_of
from persona_mcp.nodes.parts import Parts
from persona_mcp.nodes.relationship import (
    SECONDS,
    Act,
    Participant,
    act_of,
    change_of,
    reason_of,
    turn_of,
)
from persona_mcp.nodes.remembering import memories_of, moment_of, turns_of, vectors_of
from persona_mcp.state import interaction
from persona_mcp.state.appraisal import Appraisal, Role
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.feelings import FeelingChange
from persona_mcp.state.ids import id_within
from persona_mcp.state.meeting import GivenAppraisal

log = structlog.get_logger(__name__)


async def relate(parts: Parts, state: ChatState) -> ChatUpdate:
    """Appraise both utterances and compute what they change: the user's words move the persona.

    Its own words move it too, by a smaller share.

    Reads: world_id, exchange_id, message, scene, decision, verdict, answer.
    Writes: consequences.

    Without an embedder the reply still counts: both utterances are then taken as neutral, and their
    reason says so.
    """
    scene, reply, answer = state["scene"], state["verdict"].text, state.get("answer")
    key = (state["world_id"], state["exchange_id"])
    turns = turns_of(key, scene, state["message"], reply)
    memories = memories_of(key, scene, turns, state["decision"].score, parts)
    heard, said, vectors = await asyncio.gather(
        taken(parts, state["message"], "received", answer.appraisal if answer else None),
        taken(parts, reply, "returned"),
        vectors_of(parts, memories, moment_of(parts, state)),
    )
    acts = heard, said
    return ChatUpdate(
        consequences=Consequences(
            turns=turns,
            relationships=tuple(
                change_of(
                    parts,
                    scene.persona,
                    Participant(scene.conversation.user_id),
                    act,
                    turn_of(parts, act, turns[number].id),
                    scene.now,
                    id_within(*key, "relationship", number),
                )
                for number, act in enumerate(acts)
            ),
            feelings=(feelings_of(parts, scene, acts),),
            memories=memories,
            vectors=vectors,
        )
    )


async def taken(parts: Parts, text: str, role: Role, given: GivenAppraisal | None = None) -> Act:
    """Appraise an utterance; neutral, and marked, where the appraiser does not answer."""
    if given is not None:
        return Act(text, role, Appraisal(**given.model_dump()), "given")
    try:
        return act_of(text, role, await parts.appraiser.appraise(text))
    except PersonaError as error:
        log.warning("not appraised", reason=error.message, code=error.code)
        return Act(text, role, Appraisal(), None, error.message)


def feelings_of(parts: Parts, scene: Scene, acts: tuple[Act, Act]) -> FeelingChange:
    """Compute what the exchange does to the persona's mood and energy."""
    laws = parts.laws.effects
    heard, said = (interaction.talk_cost(len(act.text.split()), laws.interaction) for act in acts)
    return feeling_of(
        parts,
        scene.persona,
        acts[0].appraisal,
        laws.emotions.turn_size,
        (heard + said) / SECONDS,
        reason_of(acts[0]),
        ((heard, laws.interaction.listener_share), (said, 1.0)),
        scene.conversation.topic,
    )
