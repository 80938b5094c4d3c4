"""Whether the persona wants to go on, and how long its answer is."""

from langgraph.runtime import Runtime

from persona_mcp.nodes.chat_state import (
    ChatState,
    ChatUpdate,
    Decision,
    Draft,
    Scene,
    Verdict,
)
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.state import continuation, drawing, relationship
from persona_mcp.state.continuation import Party, Route, Talk
from persona_mcp.state.traits import rank_level

PREFERENCE = 50.0


def party_of(scene: Scene) -> Party:
    """Return what the score needs of the persona."""
    spec, felt = scene.persona.spec, scene.feelings
    return Party(
        charisma=spec.charisma,
        rank_level=rank_level(spec.social_rank),
        preference=spec.topic_preferences.get(scene.conversation.topic, PREFERENCE),
        fatigue=felt.interaction.fatigue,
        energy=felt.interaction.energy,
        time=felt.interaction.time,
        mood=felt.emotion.mood,
        priority=felt.interaction.priority,
    )


async def decide_response(
    parts: Parts, state: ChatState, runtime: Runtime[ChatContext]
) -> ChatUpdate:
    """Score the talk and choose the length; a message reaches the model unless routing is score.

    Reads: scene.
    Writes: decision.
    """
    scene, context, laws = state["scene"], runtime.context, parts.laws.continuation
    party = party_of(scene)
    talk = Talk(
        duration=0.0,
        turns=scene.conversation.turn_count,
        tokens_left=context.token_budget,
    )
    strength = (
        relationship.shown(scene.arrow, parts.laws.effects.relationships).strength
        if scene.arrow
        else None
    )
    score = continuation.score(
        party, continuation.human_partner(party.rank_level), talk, strength, laws
    )
    route = continuation.route(score.total, laws)
    direct = context.routing == "direct"
    words = continuation.direct_word_cap(score.total, laws) if direct else route.words or 0
    if direct and not route.model:
        route = Route("constrained", laws.temperature_brief, words)
    most = continuation.max_tokens(
        words, context.token_budget, context.token_budget, scene.answers, laws
    )
    temperature = route.temperature if context.temperature is None else context.temperature
    return ChatUpdate(decision=Decision(score, route, party, words, most, temperature or 0.0))


async def excuse_self(parts: Parts, state: ChatState) -> ChatUpdate:
    """End the talk with an exit line of the persona's own, without a model.

    Reads: scene, decision, exchange_id.
    Writes: draft, verdict.
    """
    scene, decision = state["scene"], state["decision"]
    laws = parts.laws.continuation
    talk = Talk(duration=0.0, turns=scene.conversation.turn_count, tokens_left=decision.max_tokens)
    partner = continuation.human_partner(decision.party.rank_level)
    reason = continuation.exit_reason(decision.party, partner, talk, decision.score, laws)
    lot = drawing.draw(
        state["exchange_id"], "exit_line", scene.conversation.id, scene.conversation.turn_count
    )
    line = drawing.exit_line(reason, lot, dict(scene.persona.spec.exit_lines.items()))
    draft = Draft(line, 0, False, "stop", 0.0, None, (), ())
    return ChatUpdate(draft=draft, verdict=Verdict(line, (), ()))
