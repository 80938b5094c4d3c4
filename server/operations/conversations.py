"""Operations on talks between personas: start, look at, end."""

import secrets
import time
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import Connection

from persona_mcp.server.current import current_conversation
from persona_mcp.server.dialogues import standing_of
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state import conversations, feelings
from persona_mcp.state.availability import check_available
from persona_mcp.state.callers import signed
from persona_mcp.state.dialogue import Member, Plan, first_by_initiative, outlook, plan_of
from persona_mcp.state.dialogues import (
    Ending,
    active_dialogues,
    begin_dialogue,
    busy,
    end_conversation,
    holder_of,
    read_spent,
)
from persona_mcp.state.errors import Conflict, InvalidParams
from persona_mcp.state.exchange import Conversation, ConversationKind
from persona_mcp.state.fields import WHOLE, Id, Number, Reference, Text
from persona_mcp.state.ids import derived_id, new_id
from persona_mcp.state.persona import Persona
from persona_mcp.state.request import GENERAL
from persona_mcp.state.speaking import next_speaker

SEEDS = 2**53
CURRENT = "From conversation_start or persona_chat; left out: the session's"


class ConversationStartArguments(Arguments):
    """Arguments of conversation_start."""

    persona1_id: Reference = Field(description="Who talks: id or name, from persona_list")
    persona2_id: Reference = Field(description="To whom: another one, from persona_list")
    topic: Annotated[Text, Field(min_length=1, max_length=200)] = Field(
        GENERAL, description="What they talk about, best one of their topics; general: anything"
    )
    token_budget: Annotated[int, Field(ge=51, le=32768), WHOLE] = Field(
        1000, description="Tokens for the whole talk"
    )
    max_duration_seconds: Annotated[Number, Field(ge=30, le=86400)] = Field(
        600.0, description="Longest talk, in seconds that it takes to say it"
    )
    max_turns: Annotated[int, Field(ge=1, le=500), WHOLE] = Field(
        100, description="Most turns of both together"
    )
    seed: Annotated[int, Field(ge=0, le=SEEDS - 1), WHOLE] | None = Field(
        None, description="Makes what is drawn by lot the same again; left out: a random one"
    )
    witnesses: Annotated[list[Reference], Field(max_length=32)] = Field(
        default_factory=list, description="Personas that overhear it and remember: ids or names"
    )
    request_id: Id | None = Field(
        None, description="Your name for this call; the same one again returns the same talk"
    )


class ConversationStart(Result):
    """Result of conversation_start."""

    conversation_id: str = Field(description="For conversation_advance and the others")
    participants: list[str]
    topic: str
    started: bool
    first_speaker: str
    seed: int
    token_budget: int
    status: Literal["active", "ended"]


@operation("Start a talk between two personas", "conversation", "chat")
async def conversation_start(
    call: Call, arguments: ConversationStartArguments
) -> ConversationStart:
    """Begin a talk between two personas; conversation_advance then makes its turns.

    Both must be available (persona_list tells), and nobody speaks yet. Who begins is drawn by
    charisma, rank, energy and the seed. It is the session's current conversation from then on.
    """
    store, world_id = call.store, call.world_id
    two = await participants_of(call, arguments)
    witnesses = await witnesses_of(call, arguments, two)
    request_id = arguments.request_id
    key = derived_id(world_id, "conversation", request_id, *signed()) if request_id else new_id()
    now, laws = time.time(), store.laws

    def write(connection: Connection) -> Conversation:
        known = conversations.find(connection, world_id, key)
        if known is not None:
            return known
        members = [
            Member(one, feelings.read_feelings(connection, world_id, one, now, laws.effects))
            for one in two
        ]
        for member in members:
            talks = active_dialogues(connection, world_id, member.persona.id)
            left = member.feelings.interaction
            check_available(member.persona, left, laws.effects.interaction, talks)
        seed = secrets.randbelow(SEEDS) if arguments.seed is None else arguments.seed
        plan = Plan(
            token_budget=arguments.token_budget,
            max_duration=arguments.max_duration_seconds,
            max_turns=arguments.max_turns,
            seed=seed,
            first_speaker=first_by_initiative(members, seed, laws.continuation),
            witnesses=witnesses,
        )
        ids = [one.id for one in two]
        return begin_dialogue(connection, world_id, key, ids, arguments.topic, plan, now)

    found = await store.database.write(write)
    check_same(found, arguments, [one.id for one in two], witnesses)
    if call.session is not None:
        await store.sessions.go_on(call.session, found.id)
    plan = plan_of(found.plan or {})
    return ConversationStart(
        conversation_id=found.id,
        participants=list(found.participants),
        topic=found.topic,
        started=True,
        first_speaker=plan.first_speaker,
        seed=plan.seed,
        token_budget=plan.token_budget,
        status=found.status,
    )


async def participants_of(call: Call, arguments: ConversationStartArguments) -> list[Persona]:
    """Find the two who are to talk.

    Raises:
        NotFound: One is not there.
        InvalidParams: They are the same one.
    """
    resolve = call.store.personas.resolve
    one = await resolve(call.world_id, arguments.persona1_id)
    other = await resolve(call.world_id, arguments.persona2_id)
    if one.id == other.id:
        allowed = "another persona than the first"
        raise InvalidParams.one("persona2_id", allowed, arguments.persona2_id)
    return [one, other]


async def witnesses_of(
    call: Call, arguments: ConversationStartArguments, two: list[Persona]
) -> tuple[str, ...]:
    """Find those who are to overhear it, each once.

    Raises:
        NotFound: One is not there.
        InvalidParams: One is to talk itself.
    """
    found: dict[str, None] = {}
    for number, reference in enumerate(arguments.witnesses):
        one = await call.store.personas.resolve(call.world_id, reference)
        if one.id in {persona.id for persona in two}:
            allowed = "a persona that does not talk itself"
            raise InvalidParams.one(f"witnesses.{number}", allowed, reference)
        found[one.id] = None
    return tuple(found)


def check_same(
    found: Conversation,
    arguments: ConversationStartArguments,
    participants: list[str],
    witnesses: tuple[str, ...],
) -> None:
    """Refuse to answer with a talk that was begun with something else.

    Raises:
        Conflict: It was.
    """
    plan = plan_of(found.plan or {})
    same = (
        list(found.participants) == participants
        and found.topic == arguments.topic
        and plan.token_budget == arguments.token_budget
        and plan.max_duration == arguments.max_duration_seconds
        and plan.max_turns == arguments.max_turns
        and plan.witnesses == witnesses
        and arguments.seed in (None, plan.seed)
    )
    if not same:
        raise Conflict(
            f"request_id '{arguments.request_id}' was used for another call; use a new one, or "
            "repeat that call unchanged",
            field="request_id",
            given=arguments.request_id,
        )


class Course(Result):
    """How a conversation stands."""

    turn_count: int
    duration: float = Field(description="Seconds that it takes to say what was said")
    continue_score: int | None = Field(
        description="How much the next speaker wants to go on, 0..100; of an ended talk and of a "
        "chat with a user the last one that was taken"
    )
    score_terms: dict[str, float] = Field(description="What the score is made of")
    tokens_remaining: int | None = Field(
        description="Of the talk's budget; null for a chat with a user, where each call has its "
        "own, and for a talk that was imported without one"
    )
    should_continue: bool = Field(
        description="If not, the next speaker takes its leave, and the talk ends"
    )
    next_speaker: str | None = Field(description="Persona or user; null once it has ended")
    status: Literal["active", "ended"]
    exit_reason: str | None = Field(description="Why it ended")


async def course_of(call: Call, found: Conversation) -> Course:
    """Read how a conversation stands.

    Raises:
        NotFound: One of its personas is not there any more.
    """
    store, world_id = call.store, call.world_id
    spent = await store.database.read(read_spent, world_id, found)
    active, speaker, left = found.status == "active", found.user_id, None
    score, terms, going_on = spent.score, spent.score_terms, active
    if found.kind == "dialogue" and found.plan:  # the original server's talks have none
        left = max(0, plan_of(found.plan).token_budget - spent.tokens_used)
    if found.kind == "dialogue" and active:
        standing = await standing_of(store, world_id, found)
        speaker = next_speaker(standing, store.laws.continuation)
        view = outlook(standing, speaker, store.laws.continuation)
        score, terms, going_on = view.score.total, dict(view.score.terms), view.ends is None
    return Course(
        turn_count=found.turn_count,
        duration=spent.duration,
        continue_score=None if score is None else round(score),
        score_terms=terms,
        tokens_remaining=left,
        should_continue=going_on,
        next_speaker=speaker if active else None,
        status=found.status,
        exit_reason=found.exit_reason,
    )


class ConversationStatusArguments(Arguments):
    """Arguments of conversation_status."""

    conversation_id: Id | None = Field(None, description=CURRENT)


class ConversationStatus(Course):
    """Result of conversation_status."""

    id: str
    kind: ConversationKind
    participants: list[str]
    topic: str
    branch: str = Field(description="The world that this line of it is in")
    head_turn: int = Field(description="Number of its last turn; 0 before the first")


@operation("Look at a conversation", "conversation", "read", core=False)
async def conversation_status(
    call: Call, arguments: ConversationStatusArguments
) -> ConversationStatus:
    """Tell how a conversation stands: turns, tokens left, who is next, and whether it goes on.

    Of a talk that has ended it tells why. What was said is in conversation_get.
    """
    found = await current_conversation(call, arguments.conversation_id)
    course = await course_of(call, found)
    return ConversationStatus(
        **dict(course),
        id=found.id,
        kind=found.kind,
        participants=list(found.participants),
        topic=found.topic,
        branch=call.world_id,
        head_turn=found.turn_count,
    )


class ConversationEndArguments(Arguments):
    """Arguments of conversation_end."""

    conversation_id: Id | None = Field(None, description=CURRENT)
    reason: Annotated[Text, Field(min_length=1, max_length=200)] = Field(
        "user_request", description="Why, in a few words; it is kept"
    )


class FinalStats(Result):
    """What a conversation came to."""

    duration: float = Field(description="Seconds that it takes to say what was said")
    turns: int
    tokens_used: int
    exit_reason: str
    cooldowns: dict[str, float] = Field(
        description="How long each persona rests before it talks to another one, in seconds"
    )


class ConversationEnd(Result):
    """Result of conversation_end."""

    conversation_id: str
    ended: bool
    reason: str
    final_stats: FinalStats


@operation("End a conversation", "conversation", "chat")
async def conversation_end(call: Call, arguments: ConversationEndArguments) -> ConversationEnd:
    """End a talk between personas or a chat for good; its personas then rest for a while.

    Nothing can be said in it any more, and all of it stays readable. A talk between personas also
    ends by itself, when one of them has had enough or its budget is used up.
    """
    found = await current_conversation(call, arguments.conversation_id)
    service, world_id, now = call.service, call.world_id, time.time()

    def write(connection: Connection) -> Ending:
        if not service.exchanges.is_free(*holder_of(connection, world_id, found.id), now):
            raise busy(found.id, service.settings.conversation.lease_s)
        laws = service.laws.effects
        return end_conversation(connection, world_id, found.id, arguments.reason, now, laws)

    ending = await service.database.write(write)
    return ConversationEnd(
        conversation_id=found.id,
        ended=True,
        reason=ending.reason,
        final_stats=FinalStats(
            duration=ending.duration,
            turns=ending.turns,
            tokens_used=ending.tokens_used,
            exit_reason=ending.reason,
            cooldowns=ending.cooldowns,
        ),
    )
