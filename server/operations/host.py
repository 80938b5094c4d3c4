"""Operations for hosts whose own model speaks for a persona: prompt, record_turn."""

from typing import Any, Literal

from pydantic import Field

from persona_mcp.nodes.offer import read_offer
from persona_mcp.server.chat_requests import begin_chat
from persona_mcp.server.host_turns import record
from persona_mcp.server.operations.chat import ChatArguments, PersonaChat, reply_of
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.runs import unless_lost
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.fields import Id
from persona_mcp.state.host_prompts import HostReply
from persona_mcp.state.moments import rfc3339


class PersonaPromptArguments(ChatArguments):
    """Arguments of persona_prompt."""

    schema_only: bool = Field(
        False, description="Only tell the JSON Schema of the result; nothing is begun"
    )


class PromptMessage(Result):
    """One message of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


class PersonaPrompt(Result):
    """Result of persona_prompt."""

    status: Literal["waiting", "done", "schema_only"] = Field(
        description="waiting: for persona_record_turn; done: it bowed out with `response`, or the "
        "reply was recorded before"
    )
    prompt_id: str | None = Field(None, description="Send it to persona_record_turn")
    request_id: str | None = None
    conversation_id: str | None = None
    exchange_id: str | None = None
    messages: list[PromptMessage] = Field(
        default_factory=list, description="Write the reply that comes next"
    )
    max_tokens: int | None = Field(None, description="Longest reply, in tokens")
    temperature: float | None = Field(None, description="Randomness, 0..2")
    stop: list[str] = Field(default_factory=list, description="Texts that end the reply")
    continue_score: int | None = Field(None, description="How much it wants to go on, 0..100")
    response_type: str | None = None
    memories_used: list[str] = Field(default_factory=list, description="Ids of memories recalled")
    expires_at: str | None = Field(None, description="Until when the reply is taken")
    response: str | None = Field(None, description="What it said, when it is done")
    result_schema: dict[str, Any] | None = Field(None, description="With schema_only")


@operation("Prompt for your own model", "persona", "chat", core=False)
async def persona_prompt(call: Call, arguments: PersonaPromptArguments) -> PersonaPrompt:
    """Begin a turn whose reply you write yourself: get the persona's prompt, with its memories.

    Needs no model here. Write the reply that the messages ask for, as the persona, and send it with
    persona_record_turn within ten minutes. One prompt of a conversation is open: a newer one, or a
    reply of persona_chat there, supersedes it.
    """
    if arguments.schema_only:
        return PersonaPrompt(
            status="schema_only",
            result_schema=PersonaPrompt.model_json_schema(mode="serialization"),
        )
    lost = call.caller.lost
    run, _ = await begin_chat(call, arguments, host=True)
    async with run.joined(lost, call.service.settings.server.grace_s):
        exchange: Exchange = (await unless_lost(run.outcome(), lost))["exchange"]
    return prompt_of(exchange)


def prompt_of(exchange: Exchange) -> PersonaPrompt:
    """Show what a host is given."""
    done = exchange.status == "done"
    shown: dict[str, Any] = {
        "status": "done" if done else "waiting",
        "request_id": exchange.request_id,
        "conversation_id": exchange.conversation_id,
        "exchange_id": exchange.id,
        "prompt_id": exchange.prompt_id,
        "response": exchange.response,
    }
    if done:
        score, kind = exchange.outcome["continue_score"], exchange.outcome["response_type"]
        return PersonaPrompt(**shown, continue_score=round(score), response_type=kind)
    offer = read_offer(exchange.prompt)
    return PersonaPrompt(
        **shown,
        messages=[PromptMessage(role=m.role, content=m.content) for m in offer.messages],
        max_tokens=offer.max_tokens,
        temperature=offer.temperature,
        stop=list(offer.stop),
        continue_score=offer.decision.score.shown,
        response_type=offer.decision.route.response_type,
        memories_used=list(offer.memories),
        expires_at=rfc3339(exchange.prompt_until or 0.0),
    )


class PersonaRecordTurnArguments(Arguments, HostReply):
    """Arguments of persona_record_turn."""

    prompt_id: Id = Field(description="From persona_prompt")


@operation("Record your own reply", "persona", "chat", core=False, idempotent=True)
async def persona_record_turn(call: Call, arguments: PersonaRecordTurnArguments) -> PersonaChat:
    """Store the reply that you wrote to a prompt of persona_prompt, as the persona's own.

    It is checked, remembered, and moves feelings and the relationship as with persona_chat. A reply
    that cannot be used is refused with what is wrong with it, and another one may be sent. The same
    one again gets the same answer.
    """
    reply = HostReply(**{name: getattr(arguments, name) for name in HostReply.model_fields})
    service, lost = call.service, call.caller.lost
    exchange = await record(service, call.world_id, arguments.prompt_id, reply, lost)
    return await reply_of(service, call.world_id, exchange)
