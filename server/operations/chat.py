"""Operations on conversations: chat, and reading what was said."""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.chat_requests import begin_chat
from persona_mcp.server.current import current_conversation
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.runs import Run, unless_lost
from persona_mcp.state.dialogue import plan_of
from persona_mcp.state.exchange import Conversation, ConversationKind, Exchange, Turn
from persona_mcp.state.feelings import Feelings, read_feelings
from persona_mcp.state.fields import WHOLE, Id, Number, Reference, Text
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.personas import those
from persona_mcp.state.summaries import summed_up

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

AGAIN = "the reply so far does not count and is made again"
"""What progress says of a restart; the result has the reply that counts."""


class ChatArguments(Arguments):
    """What a message is sent with, whether its reply is waited for or streamed."""

    message: Annotated[Text, Field(min_length=1, max_length=20000)] = Field(
        description="What the user says"
    )
    persona_id: Reference | None = Field(
        None, description="Who is to answer: id or name, from persona_list; left out: the session's"
    )
    user_id: Id | None = Field(
        None, description="Your name for who says it; the persona remembers each user apart"
    )
    conversation_id: Id | None = Field(
        None,
        description="From an earlier reply of persona_chat; left out: the session's, or a new one",
    )
    token_budget: Annotated[int, Field(ge=1, le=32768), WHOLE] = Field(
        500, description="Longest reply, in tokens"
    )
    routing: Literal["direct", "score"] = Field(
        "direct", description="direct: always answers; score: may bow out when it has had enough"
    )
    scene: Annotated[Text, Field(min_length=1, max_length=80)] | None = Field(
        None, description="Where a conversation that begins takes place, e.g. the harbour"
    )
    request_id: Id | None = Field(
        None, description="Your name for this call; the same one again returns the stored reply"
    )


class PersonaChatArguments(ChatArguments):
    """Arguments of persona_chat."""

    wait_s: Annotated[Number, Field(ge=1, le=300)] | None = Field(
        None, description="Wait for the reply this long, in seconds; then status is running"
    )


class PersonaState(Result):
    """What a persona has left for talking."""

    social_energy: float
    available_time: float
    interaction_fatigue: float


class PersonaChat(Result):
    """Result of persona_chat."""

    status: Literal["done", "running"] = Field(
        description="running: call again with the same arguments and request_id to wait on"
    )
    request_id: str
    conversation_id: str = Field(description="Pass it again to go on with this conversation")
    exchange_id: str
    response: str | None = None
    response_type: str | None = None
    continue_score: int | None = Field(None, description="How much it wants to go on, 0..100")
    tokens_used: int | None = None
    tokens_estimated: bool | None = None
    finish_reason: Literal["stop", "length"] | None = Field(
        None, description="stop: it came to its end; length: it was cut at its longest"
    )
    processing_time: float | None = Field(None, description="Seconds")
    turn_number: int | None = None
    model: str | None = None
    trimmed: list[str] = Field(default_factory=list, description="Faults that were mended")
    memories_used: list[str] = Field(default_factory=list, description="Ids of memories recalled")
    memory_ids: list[str] = Field(default_factory=list, description="Ids of memories made")
    persona_state: PersonaState | None = Field(
        None,
        description="Of now; null while it is running, and of a persona that was deleted since",
    )


@operation("Chat with a persona", "persona", "chat", open_world=True)
async def persona_chat(call: Call, arguments: PersonaChatArguments) -> PersonaChat:
    """Send one message to a persona and get its reply; it remembers what is said.

    The persona recalls what bears on the message, answers in character, and its feelings and its
    relationship to the user change. Partial text arrives as progress messages.
    """
    service = call.service
    run, exchange = await begin_chat(call, arguments)
    wait_s = arguments.wait_s or service.settings.conversation.reply_wait_s
    lost = call.caller.lost
    try:
        async with run.joined(lost, service.settings.server.grace_s), asyncio.timeout(wait_s):
            done = await unless_lost(told(call, run), lost)
    except TimeoutError:
        return PersonaChat(
            status="running",
            request_id=exchange.request_id,
            conversation_id=exchange.conversation_id,
            exchange_id=exchange.id,
        )
    return await reply_of(service, call.world_id, done)


async def told(call: Call, run: Run) -> Exchange:
    """Pass pieces of the reply on while it is made, and return the exchange at its end."""
    async for event in run.follow():
        if event.kind == "token":
            await call.caller.progress(event.data["text"])
        elif event.kind == "restart":
            await call.caller.progress(f"\n[{AGAIN}: {event.data['reason']}]\n")
    exchange: Exchange = (await run.outcome())["exchange"]
    return exchange


async def reply_of(service: "Service", world_id: str, exchange: Exchange) -> PersonaChat:
    """Report a done exchange, the same however often it is asked for; persona_state is of now."""

    def read(connection: Connection) -> Feelings | None:
        for persona in those(connection, world_id, [exchange.persona_id]):
            return read_feelings(connection, world_id, persona, time.time(), service.laws.effects)
        return None  # it was deleted since

    felt = await service.database.read(read)
    traces = await service.conversations.traces(world_id, [exchange.id])
    made = traces[exchange.id]
    outcome = exchange.outcome
    return PersonaChat(
        status="done",
        request_id=exchange.request_id,
        conversation_id=exchange.conversation_id,
        exchange_id=exchange.id,
        response=exchange.response,
        response_type=outcome["response_type"],
        continue_score=round(outcome["continue_score"]),
        tokens_used=outcome["tokens_used"],
        tokens_estimated=outcome["tokens_estimated"],
        finish_reason=outcome["finish_reason"],
        processing_time=outcome["processing_s"],
        turn_number=made.last_turn,
        model=outcome["model"],
        trimmed=outcome["trimmed"] or [],
        memories_used=list(made.used),
        memory_ids=[memory_id for made_of in made.memories.values() for memory_id in made_of],
        persona_state=PersonaState(
            social_energy=felt.interaction.energy,
            available_time=felt.interaction.time,
            interaction_fatigue=felt.interaction.fatigue,
        )
        if felt is not None
        else None,
    )


class ConversationGetArguments(Arguments):
    """Arguments of conversation_get."""

    conversation_id: Id | None = Field(
        None, description="From a reply of persona_chat; left out: the session's"
    )
    viewer: Reference | None = Field(
        None, description="Only what this persona said or heard; id or name, from persona_list"
    )
    limit: Annotated[int, Field(ge=1, le=200), WHOLE] = Field(50, description="Turns a page")
    cursor: Annotated[Text, Field(pattern=r"^[0-9]{1,9}$")] | None = Field(
        None, description="next_cursor of the page before"
    )


class ShownTurn(Result):
    """One utterance."""

    turn_number: int
    speaker_id: str
    content: str
    exchange_id: str
    status: str
    response_type: str | None
    continue_score: int | None
    tokens_used: int | None
    created_at: str
    witnesses: list[str]
    memory_ids: list[str]
    event_ids: list[str] = Field(description="Relationship events of its exchange")


class ShownExchange(Result):
    """A message and what became of it."""

    exchange_id: str
    request_id: str
    number: int
    status: str = Field(
        description="pending, running, waiting (for the reply to a prompt), done, failed, "
        "cancelled or interrupted (its process ended)"
    )
    message: str = Field(
        description="In a talk between personas, the stage direction, which its speaker was shown"
    )
    partial: str | None = Field(description="What had been said when it failed")
    error: dict[str, Any] | None
    created_at: str


class ConversationGet(Result):
    """Result of conversation_get."""

    conversation_id: str
    kind: ConversationKind
    participants: list[str]
    persona_id: str | None = Field(description="Who answers; null in a talk between personas")
    user_id: str | None = Field(description="Who talks to it; null in a talk between personas")
    topic: str
    status: str
    exit_reason: str | None = Field(description="Why it ended")
    summary: str | None = Field(
        description="What was said before the last turns, as the viewer remembers it; else as who "
        "answers does, or who began"
    )
    turns: list[ShownTurn]
    exchanges: list[ShownExchange] = Field(
        description="Exchanges of these turns, and all that are not done"
    )
    next_cursor: str | None


@operation("Read a conversation", "conversation", "read")
async def conversation_get(call: Call, arguments: ConversationGetArguments) -> ConversationGet:
    """Return the transcript of a conversation, and the status of each exchange in it.

    A failed or interrupted exchange left nothing behind; send its message again with the same
    request_id to run it again. Take the conversation_id from a reply of persona_chat.
    """
    service, world_id = call.service, call.world_id
    found = await current_conversation(call, arguments.conversation_id)
    await service.exchanges.sweep(world_id, service.now(), found.id)
    viewer = (
        (await service.personas.resolve(world_id, arguments.viewer)).id
        if arguments.viewer
        else None
    )
    turns, exchanges = await service.conversations.transcript(
        world_id, found.id, arguments.limit + 1, int(arguments.cursor or 0), viewer
    )
    more = len(turns) > arguments.limit
    page = turns[: arguments.limit]
    traces = await service.conversations.traces(world_id, [e.id for e in exchanges])
    by_id = {exchange.id: exchange for exchange in exchanges}
    shown = {turn.exchange_id for turn in page}
    return ConversationGet(
        conversation_id=found.id,
        kind=found.kind,
        participants=list(found.participants),
        persona_id=found.persona_id or None,
        user_id=found.user_id or None,
        topic=found.topic,
        status=found.status,
        exit_reason=found.exit_reason,
        summary=await service.database.read(
            summed_up, world_id, found.id, viewer or whose_summary(found)
        ),
        turns=[shown_turn(turn, by_id[turn.exchange_id], traces) for turn in page],
        exchanges=[
            shown_exchange(e, found.kind == "chat" or viewer in (None, e.persona_id))
            for e in exchanges
            if e.id in shown or e.status != "done"
        ],
        next_cursor=str(page[-1].number) if more else None,
    )


def whose_summary(found: Conversation) -> str:
    """Return whose summary of a conversation is shown where no viewer is named."""
    if found.kind == "dialogue" and found.plan:
        return plan_of(found.plan).first_speaker
    return found.persona_id or found.participants[0]  # a talk that was imported has no plan


def shown_turn(turn: Turn, exchange: Exchange, traces: dict[str, Any]) -> ShownTurn:
    """Show a turn; score and tokens stand with the persona's own."""
    reply = turn.speaker_id == exchange.persona_id
    outcome, trace = exchange.outcome, traces[exchange.id]
    score = outcome["continue_score"] if reply else None
    return ShownTurn(
        turn_number=turn.number,
        speaker_id=turn.speaker_id,
        content=turn.content,
        exchange_id=turn.exchange_id,
        status=exchange.status,
        response_type=outcome["response_type"] if reply else None,
        continue_score=None if score is None else round(score),
        tokens_used=outcome["tokens_used"] if reply else None,
        created_at=rfc3339(turn.created_at),
        witnesses=list(turn.witnesses),
        memory_ids=trace.memories.get(turn.id, []),
        event_ids=list(trace.events),
    )


def shown_exchange(exchange: Exchange, whole: bool) -> ShownExchange:
    """Show where an exchange stands; a stage direction is for its speaker, and not for all."""
    return ShownExchange(
        exchange_id=exchange.id,
        request_id=exchange.request_id,
        number=exchange.number,
        status=exchange.status,
        message=exchange.message if whole else "",
        partial=exchange.partial,
        error=exchange.error,
        created_at=rfc3339(exchange.created_at),
    )
