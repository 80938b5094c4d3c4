"""Whether the persona wants to go on, and how long its answer is."""

from langgraph.runtime import Runtime

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate, Draft, Scene, Verdict
from persona_mcp.nodes.decided import Decision
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.state import continuation, drawing, relationship
from persona_mcp.state.continuation import ExitReason, Party, Route, Talk, human_partner
from persona_mcp.state.dialogue import WHOLE_TALK, outlook, sides
from persona_mcp.state.interaction import talk_cost
from persona_mcp.state.wishes import party_of


async def decide_response(
    parts: Parts, state: ChatState, runtime: Runtime[ChatContext]
) -> ChatUpdate:
    """Score the talk and choose the length; a message reaches the model unless routing is score.

    Reads: scene.
    Writes: decision.
    """
    scene, context, laws = state["scene"], runtime.context, parts.laws.continuation
    party, partner, talk = sides_of(parts, scene, context.token_budget)
    strength = (
        relationship.shown(scene.arrow, parts.laws.effects.relationships).strength
        if scene.arrow
        else None
    )
    ends: ExitReason | None = None
    score = continuation.score(
        party, partner or human_partner(party.rank_level), talk, strength, laws
    )
    route = continuation.route(score.total, laws)
    direct = context.routing == "direct"
    words = continuation.direct_word_cap(score.total, laws) if direct else route.words or 0
    if direct and not route.model:
        route = Route("constrained", laws.temperature_brief, words)
    if scene.standing is not None:
        if (ends := outlook(scene.standing, scene.persona.id, laws).ends) is not None:
            route, words = Route("template", None, None), 0
        elif not route.model:  # who may not bow out says little
            words = laws.words_closing
            route = Route("constrained", laws.temperature_brief, words)
    # A talk between personas comes to its end; a human's goes on for as long as the human likes.
    answers = 0 if direct else scene.answers
    most = continuation.max_tokens(words, talk.tokens_left, talk.tokens_left, answers, laws)
    temperature = route.temperature if context.temperature is None else context.temperature
    heat = temperature or 0.0
    return ChatUpdate(
        decision=Decision(score, route, party, talk, words, most, heat, partner, ends, context.host)
    )


def sides_of(parts: Parts, scene: Scene, token_budget: int) -> tuple[Party, Party | None, Talk]:
    """Return what a score needs of the persona, of the one it talks to, and of the talk."""
    if scene.standing is not None:
        return *sides(scene.standing, scene.persona.id), scene.standing.talk
    party = party_of(scene.persona, scene.feelings, scene.conversation.topic)
    return party, None, talk_of(parts, scene, token_budget)


def talk_of(parts: Parts, scene: Scene, token_budget: int) -> Talk:
    """Return how far the talk has gone: as long as it takes to say what the window holds."""
    laws = parts.laws.effects.interaction
    costs = (talk_cost(len(turn.content.split()), laws) for turn in scene.window)
    return Talk(duration=sum(costs), turns=scene.conversation.turn_count, tokens_left=token_budget)


async def excuse_self(parts: Parts, state: ChatState) -> ChatUpdate:
    """End the talk with an exit line of the persona's own, without a model.

    Reads: scene, decision, exchange_id.
    Writes: draft, verdict.
    """
    scene, turn = state["scene"], state["scene"].conversation.turn_count
    lot = (
        drawing.draw(scene.standing.plan.seed, "exit_line", WHOLE_TALK, turn)
        if scene.standing
        else drawing.draw(state["exchange_id"], "exit_line", scene.conversation.id, turn)
    )
    reason = leaving(parts, state["decision"])
    line = drawing.exit_line(reason, lot, dict(scene.persona.spec.exit_lines.items()))
    draft = Draft(line, 0, False, "stop", 0.0, None, (), ())
    return ChatUpdate(draft=draft, verdict=Verdict(line, (), ()))


def leaving(parts: Parts, decision: Decision) -> ExitReason:
    """Say why the persona takes its leave, if it does."""
    partner = decision.partner or human_partner(decision.party.rank_level)
    laws = parts.laws.continuation
    if decision.ends is not None:
        return decision.ends
    return continuation.exit_reason(decision.party, partner, decision.talk, decision.score, laws)
