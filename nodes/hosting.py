"""A reply that the host's own model writes: its prompt is offered, the run waits, it is taken.

The run stops at an interrupt, and a later run, maybe of another process, goes on from there. What
stands before is then loaded anew; what the prompt was made of is kept with the exchange.
"""

from langgraph.runtime import Runtime
from langgraph.types import interrupt
from sqlalchemy import Connection

from persona_mcp.nodes.chat_state import ChatState, ChatUpdate, Draft
from persona_mcp.nodes.events import tell
from persona_mcp.nodes.generation import sampling_for
from persona_mcp.nodes.offer import Offer, read_offer, written
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.prompts import Brief
from persona_mcp.nodes.retrieval import prompt_of
from persona_mcp.state import continuation, exchanges, host_prompts
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.host_prompts import OPEN_S, HostReply
from persona_mcp.state.model import ModelInfo

HOST = ModelInfo("host", "unknown", 32_768, small=False)
"""What is known of a host's model before it has answered: it takes the long prompt."""


async def offer_prompt(parts: Parts, state: ChatState, runtime: Runtime[ChatContext]) -> ChatUpdate:
    """Compose the prompt for the host's model and keep it; the exchange waits from now on.

    Reads: the ids, scene, message, recall, decision.
    Writes: recall, where the prompt took more.

    Raises:
        Conflict: Another run took the conversation.
        LimitExceeded: Even the message alone does not fit.
        StorageUnavailable: The database did not answer.
    """
    scene, decision, laws = state["scene"], state["decision"], parts.laws
    brief = Brief(scene, state["message"], decision, laws.effects.relationships)
    prompt, found = await prompt_of(parts, state, runtime, brief, HOST)
    sampling = sampling_for(scene, HOST, decision, runtime.context, laws.prompts)
    offer = Offer(
        prompt.messages,
        sampling.max_tokens,
        sampling.temperature,
        sampling.stop,
        prompt.memories,
        decision,
    )
    lease = Lease(state["world_id"], state["conversation_id"], state["exchange_id"], parts.process)
    await parts.database.write(host_prompts.offer, lease, written(offer), parts.now())
    tell(runtime, "prompt", messages=[vars(m) for m in prompt.messages])
    return ChatUpdate(recall=found)


async def await_reply(parts: Parts, state: ChatState) -> ChatUpdate:
    """Stop the run until the host's reply comes; again, if the last one could not be used.

    Reads: exchange_id, verdict.
    Writes: answer, in the run that goes on.
    """
    verdict = state.get("verdict")
    faults = list(verdict.faults) if verdict else []
    waiting = {"exchange_id": state["exchange_id"], "faults": faults}
    answer: HostReply = interrupt(waiting, response_schema=HostReply)
    return ChatUpdate(answer=answer)


async def take_reply(parts: Parts, state: ChatState) -> ChatUpdate:
    """Take the host's reply in place of one that our model would have written.

    Reads: world_id, exchange_id, answer.
    Writes: decision, draft.
    """
    answer = state["answer"]

    def read(connection: Connection) -> Exchange:
        return exchanges.get(connection, state["world_id"], state["exchange_id"])

    exchange = await parts.database.read(read)
    offer = read_offer(exchange.prompt)
    made_at = (exchange.prompt_until or parts.now()) - OPEN_S
    words = len(answer.response.split())
    counted = answer.tokens_used
    draft = Draft(
        text=answer.response,
        tokens=continuation.estimated_tokens(words, parts.laws.continuation)
        if counted is None
        else counted,
        estimated=counted is None,
        finish_reason="stop",
        seconds=max(0.0, parts.now() - made_at),
        model=ModelInfo(HOST.provider, answer.model or HOST.name, HOST.context_tokens, small=False),
        prompt=offer.messages,
        memories=offer.memories,
    )
    return ChatUpdate(decision=offer.decision, draft=draft)
