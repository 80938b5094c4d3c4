"""What an exchange does to a relationship and to feelings: appraised and computed, not written."""

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate, Consequences, Scene
from persona_mcp.nodes.parts import Parts
from persona_mcp.nodes.relationship import SECONDS, Act, change_of, reason_of
from persona_mcp.nodes.remembering import memories_of, turns_of
from persona_mcp.state import emotion, interaction
from persona_mcp.state.effects import FeelingChange
from persona_mcp.state.ids import derived_id
from persona_mcp.state.traits import big_five

TOPIC_PREFERENCE = 50.0


async def relate(parts: Parts, state: ChatState) -> ChatUpdate:
    """Appraise both utterances and compute what they change: the user's words move the persona.

    Its own words move it too, by a smaller share.

    Reads: world_id, exchange_id, message, scene, decision, verdict.
    Writes: consequences.

    Raises:
        ModelError: The embedder did not answer.
    """
    scene, reply = state["scene"], state["verdict"].text
    acts = (
        Act(state["message"], "received", await parts.appraiser.appraise(state["message"])),
        Act(reply, "returned", await parts.appraiser.appraise(reply)),
    )
    key = (state["world_id"], state["exchange_id"])
    turns = turns_of(key, scene, state["message"], reply)
    return ChatUpdate(
        consequences=Consequences(
            turns=turns,
            relationships=tuple(
                change_of(
                    parts,
                    scene.persona,
                    scene.conversation.user_id,
                    act,
                    scene.now,
                    derived_id(*key, "relationship", number),
                )
                for number, act in enumerate(acts)
            ),
            feelings=(feelings_of(parts, scene, acts),),
            memories=memories_of(key, scene, turns, state["decision"].score, parts),
        )
    )


def feelings_of(parts: Parts, scene: Scene, acts: tuple[Act, Act]) -> FeelingChange:
    """Compute what the exchange does to the persona's mood and energy."""
    laws = parts.laws.effects
    heard, said = (interaction.talk_cost(len(act.text.split()), laws.interaction) for act in acts)
    preferences = scene.persona.spec.topic_preferences
    impulse = emotion.of_turn(
        acts[0].appraisal,
        big_five(scene.persona.spec.personality_traits),
        preferences.get(scene.conversation.topic, TOPIC_PREFERENCE),
        (heard + said) / SECONDS,
        laws.emotions.turn_size,
        laws.emotions,
    )
    return FeelingChange(
        persona=scene.persona,
        impulse=impulse,
        talk=((heard, laws.interaction.listener_share), (said, 1.0)),
        why=reason_of(acts[0]),
    )
