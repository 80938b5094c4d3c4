"""The last step of an exchange: everything it changes, in one write."""

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate
from persona_mcp.nodes.events import STORED, tell_here
from persona_mcp.nodes.parts import Parts
from persona_mcp.nodes.remembering import is_simulated, moment_of
from persona_mcp.nodes.validation import TOO_LONG
from persona_mcp.state.commit import Commit, commit_exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.host_prompts import taken
from persona_mcp.state.summaries import Outgrown
from persona_mcp.state.summarising import is_due


async def persist_exchange(parts: Parts, state: ChatState, *, releases: bool = True) -> ChatUpdate:
    """Store turns, effects, memories and the outcome; doing it twice changes nothing.

    The lease is given back with that, where no node behind this one needs it (`releases`).

    Reads: everything that the exchange has made.
    Writes: reply, head.

    Raises:
        Conflict: Another run took the conversation meanwhile; nothing was stored.
        StorageUnavailable: The database did not answer; nothing was stored.
    """
    made, verdict = state["consequences"], state["verdict"]
    lease = Lease(state["world_id"], state["conversation_id"], state["exchange_id"], parts.process)
    commit = Commit(
        lease=lease,
        at=moment_of(parts, state),
        turns=made.turns,
        relationships=made.relationships,
        feelings=made.feelings,
        memories=made.memories,
        used_memories=state["draft"].memories,
        report=report_of(state),
        ends=made.ends,
        vectors=made.vectors,
        releases=releases,
    )
    stored = await commit_exchange(parts.database, commit, parts.laws.effects)
    tell_here(STORED, exchange=stored.exchange)
    if stored.has_work:
        parts.written()
    before, limits = state["scene"].conversation.turn_count, parts.limits
    after = before + len(made.turns)
    if is_due(before, after, limits.window_turns, parts.laws.summaries.every):
        # In a talk between personas its length is the same for all who remember it.
        for owner in sorted({memory.persona_id for memory in made.memories}):
            its = lease.conversation_id, owner, lease.exchange_id
            parts.outgrown(Outgrown(lease.world_id, *its, state["scene"].conversation.turns_each))
    return ChatUpdate(reply=verdict.text, head=state["exchange_id"])


def report_of(state: ChatState) -> dict[str, object]:
    """Return the columns that an exchange is reported with."""
    decision, draft, verdict = state["decision"], state["draft"], state["verdict"]
    direct = decision.route.model and draft.model is not None
    hosted = {"prompt": taken(state["answer"].response)} if "answer" in state else {}
    return {
        **hosted,
        "response": verdict.text,
        "response_type": decision.route.response_type if direct else "template",
        "continue_score": decision.score.total,
        "score_terms": dict(decision.score.terms),
        "trimmed": list(verdict.mended),
        "tokens_used": draft.tokens,
        "tokens_estimated": draft.estimated,
        "finish_reason": "length" if TOO_LONG in verdict.mended else draft.finish_reason,
        "processing_s": None if is_simulated(state) else draft.seconds,
        "model": draft.model.id if draft.model else None,
        "persona_id": state["scene"].persona.id,
        "persona_version": state["scene"].persona.version,
        "user_id": state["scene"].conversation.user_id,
        "follows_id": state.get("head"),
    }
