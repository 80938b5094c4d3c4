"""The operation that makes turns of a talk between personas."""

import asyncio
from typing import Annotated, Literal

from pydantic import Field

from persona_mcp.server.current import current_conversation
from persona_mcp.server.dialogues import Advance, advance, standing_of
from persona_mcp.server.operations.chat import AGAIN, ShownTurn, shown_turn
from persona_mcp.server.operations.conversations import CURRENT, Course, course_of
from persona_mcp.server.operations.registry import Arguments, Call, operation
from persona_mcp.server.runs import Run, unless_lost
from persona_mcp.state.dialogue import outlook
from persona_mcp.state.dialogues import turns_asked_for
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.exchange import Conversation
from persona_mcp.state.fields import WHOLE, Id, Number, Reference, Text
from persona_mcp.state.ids import new_id
from persona_mcp.state.request import check_open
from persona_mcp.state.speaking import next_speaker


class ConversationAdvanceArguments(Arguments):
    """Arguments of conversation_advance."""

    conversation_id: Id | None = Field(None, description=CURRENT)
    turns: Annotated[int, Field(ge=1, le=50), WHOLE] = Field(
        1, description="How many turns; fewer if the talk ends"
    )
    speaker_id: Reference | None = Field(
        None,
        description="Who of the two of conversation_start speaks first; left out: whose turn it is",
    )
    input: Annotated[Text, Field(max_length=20000)] = Field(
        "", description="Stage direction: what happens before the first turn"
    )
    dry_run: bool = Field(
        False, description="Only tell who would speak and how much it wants to; no model is asked"
    )
    request_id: Id | None = Field(
        None, description="Your name for this call; the same one again returns what it has made"
    )
    wait_s: Annotated[Number, Field(ge=1, le=300)] | None = Field(
        None, description="Wait for the turns this long, in seconds; then progress is running"
    )


class ConversationAdvance(Course):
    """Result of conversation_advance."""

    conversation_id: str
    request_id: str
    progress: Literal["done", "running", "dry_run"] = Field(
        description="running: call again with the same arguments and request_id to wait on"
    )
    turns: list[ShownTurn] = Field(description="What this call has made so far")
    ended: bool


@operation("Let two personas talk on", "conversation", "chat", open_world=True)
async def conversation_advance(
    call: Call, arguments: ConversationAdvanceArguments
) -> ConversationAdvance:
    """Make the next turns of a talk that conversation_start began, and return what was said.

    Each turn is remembered and moves how the two feel about each other. A persona that has had
    enough, or a budget that is used up, ends the talk with a last line. Partial text arrives as
    progress messages.
    """
    found = await current_conversation(call, arguments.conversation_id)
    speaker = await speaker_of(call, found, arguments.speaker_id)
    asked = Advance(
        world_id=call.world_id,
        conversation_id=found.id,
        request_id=arguments.request_id or new_id(),
        turns=arguments.turns,
        speaker=speaker,
        direction=arguments.input,
    )
    if arguments.dry_run:
        return await tried(call, found, asked)
    service = call.service
    run = await advance(service, asked)
    wait_s = arguments.wait_s or service.settings.conversation.reply_wait_s
    lost, running = call.caller.lost, False
    try:
        async with run.joined(lost, service.settings.server.grace_s), asyncio.timeout(wait_s):
            await unless_lost(told(call, run), lost)
    except TimeoutError:
        running = True
    return await made(call, asked, "running" if running else "done")


async def speaker_of(call: Call, found: Conversation, reference: str | None) -> str | None:
    """Find who is to speak.

    Raises:
        NotFound: There is no such persona.
        InvalidParams: It is none of those who talk.
    """
    if reference is None:
        return None
    speaker = await call.store.personas.resolve(call.world_id, reference)
    if speaker.id not in found.participants:
        allowed = f"one of {', '.join(found.participants)}, who talk there"
        raise InvalidParams.one("speaker_id", allowed, reference)
    return speaker.id


async def told(call: Call, run: Run) -> None:
    """Pass on what is said while it is made, each turn with who says it."""
    async for event in run.follow():
        match event.kind:
            case "speaks":
                await call.caller.progress(f"\n{event.data['name']}: ")
            case "token":
                await call.caller.progress(event.data["text"])
            case "restart":
                await call.caller.progress(f"\n[{AGAIN}: {event.data['reason']}]\n")
    await run.outcome()


async def tried(call: Call, found: Conversation, asked: Advance) -> ConversationAdvance:
    """Tell what a turn would be without making it.

    Raises:
        Conflict: The talk has ended, or is no talk between personas.
    """
    check_open(found.id, found.kind, found.status, "dialogue")
    standing = await standing_of(call.store, call.world_id, found)
    speaker = asked.speaker or next_speaker(standing, call.store.laws.continuation)
    view = outlook(standing, speaker, call.store.laws.continuation)
    course = await course_of(call, found)
    would = {
        "next_speaker": speaker,
        "continue_score": round(view.score.total),
        "score_terms": dict(view.score.terms),
        "should_continue": view.ends is None,
        "exit_reason": view.ends,
    }
    return ConversationAdvance(
        **{**dict(course), **would},
        conversation_id=found.id,
        request_id=asked.request_id,
        progress="dry_run",
        turns=[],
        ended=False,
    )


async def made(
    call: Call, asked: Advance, progress: Literal["done", "running"]
) -> ConversationAdvance:
    """Report the turns that a call has made, and how the talk stands now."""
    store, world_id = call.store, call.world_id
    turns, exchanges = await store.database.read(turns_asked_for, world_id, asked.request_ids)
    traces = await store.conversations.traces(world_id, [exchange.id for exchange in exchanges])
    by_id = {exchange.id: exchange for exchange in exchanges}
    found = await store.conversations.get(world_id, asked.conversation_id)
    return ConversationAdvance(
        **dict(await course_of(call, found)),
        conversation_id=found.id,
        request_id=asked.request_id,
        progress=progress,
        turns=[shown_turn(turn, by_id[turn.exchange_id], traces) for turn in turns],
        ended=found.status == "ended",
    )
