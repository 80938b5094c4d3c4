"""Operations on memories: search, store, get, list, stats."""

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations import Arguments, Call, Result, operation
from persona_mcp.server.relationship_operations import party
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.fields import WHOLE, Id, Metadata, Moment, Number, Reference, Text
from persona_mcp.state.ids import derived_id, new_id
from persona_mcp.state.importance import Importance, Occasion, importance, interests_of
from persona_mcp.state.memory import Memory, NewMemory, Recalled, rfc3339
from persona_mcp.state.memory_store import Order, Wanted
from persona_mcp.state.persona import Persona
from persona_mcp.state.retention import RetentionParams, effective, retention

MILLISECONDS = 1000
PARTIES = 32
MemoryType = Annotated[Text, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Visibility = Literal["private", "shared", "public"]
Share = Annotated[Number, Field(ge=0, le=1)]
PERSONA = "Whose memories: id or name, from persona_list; left out: the session's"


class MemorySearchArguments(Arguments):
    """Arguments of memory_search."""

    query: Annotated[Text, Field(min_length=1, max_length=2000)] = Field(
        description="What to look for, in plain words"
    )
    persona_id: Reference | None = Field(None, description=PERSONA)
    n_results: Annotated[int, Field(ge=1, le=100), WHOLE] = Field(
        5, description="Memories returned, at most"
    )
    memory_type: MemoryType | None = Field(None, description="Only this type, e.g. conversation")
    min_importance: Share = Field(0.0, description="Only memories at least as important")
    reinforce: bool = Field(
        False, description="Count what is found as used, so that it fades more slowly"
    )


class ShownMemory(Result):
    """A memory."""

    id: str
    content: str
    memory_type: str
    speaker_id: str | None
    importance: float
    effective_importance: float = Field(description="What is left of the importance now")
    retention: float = Field(description="Share that has not faded, 0..1")
    emotional_valence: float
    related_personas: list[str]
    visibility: str
    pinned: bool = Field(description="It never fades")
    created_at: str
    accessed_count: int = Field(description="Conversations in which it was used for a reply")


class FoundMemory(ShownMemory):
    """A memory that was found."""

    similarity: float = Field(description="Nearness in meaning to the query, 0..1")
    score: float = Field(description="What it is ranked by; comparable within one answer only")
    score_parts: dict[str, float] = Field(
        description="dense and lexical as they are; the others as what they add to the score"
    )


class MemorySearch(Result):
    """Result of memory_search."""

    memories: list[FoundMemory] = Field(description="Best first")
    query: str
    result_count: int
    degraded: str | None = Field(description="Why only words were searched, if so")


@operation("Search memories", "memory", "read")
async def memory_search(call: Call, arguments: MemorySearchArguments) -> MemorySearch:
    """Search what one persona remembers, by meaning and by words, the best first.

    Only what the persona said, heard, was told, or what is public is ever found. Looking does not
    count as use, unless you ask for it with reinforce.
    """
    persona = await current_persona(call, arguments.persona_id)
    found = await call.service.memories.search(
        call.world_id,
        persona.id,
        arguments.query,
        arguments.n_results,
        memory_type=arguments.memory_type,
        min_importance=arguments.min_importance,
    )
    now = time.time()
    if arguments.reinforce and found.hits:
        ids = [hit.memory.id for hit in found.hits]
        await call.store.memory_store.use(call.world_id, ids, now)
    fading = call.store.settings.retention
    return MemorySearch(
        memories=[shown_hit(hit, now, fading) for hit in found.hits],
        query=arguments.query,
        result_count=len(found.hits),
        degraded=found.degraded or None,
    )


def shown_hit(hit: Recalled, now: float, fading: RetentionParams) -> FoundMemory:
    """Show a memory that was found."""
    return FoundMemory(
        **fields_of(hit.memory, now, fading),
        similarity=hit.similarity,
        score=hit.score,
        score_parts=hit.parts,
    )


def fields_of(memory: Memory, now: float, fading: RetentionParams) -> dict[str, Any]:
    """Return what is shown of every memory."""
    age, uses = memory.age_days(now), memory.accessed_count
    left = float(retention(age, memory.importance, uses, memory.pinned, fading))
    return {
        "id": memory.id,
        "content": memory.content,
        "memory_type": memory.memory_type,
        "speaker_id": memory.speaker_id,
        "importance": memory.importance,
        "effective_importance": float(effective(memory.importance, left)),
        "retention": left,
        "emotional_valence": memory.emotional_valence,
        "related_personas": list(memory.related_personas),
        "visibility": memory.visibility,
        "pinned": memory.pinned,
        "created_at": rfc3339(memory.created_at),
        "accessed_count": uses,
    }


class MemoryStoreArguments(Arguments):
    """Arguments of memory_store."""

    content: Annotated[Text, Field(min_length=1, max_length=20000)] = Field(
        description="What it is to remember, as a sentence"
    )
    persona_id: Reference | None = Field(None, description=PERSONA)
    memory_type: MemoryType = Field(
        "user_input", description="user_input, fact, observation, goal, secret, ..."
    )
    importance: Share | None = Field(None, description="Left out: weighed from the words")
    emotional_valence: Annotated[Number, Field(ge=-1, le=1)] = Field(
        0.0, description="Unpleasant -1 to pleasant 1"
    )
    related_personas: Annotated[list[Reference], Field(max_length=PARTIES)] = Field(
        default_factory=list, description="With whom it is shared, where visibility is shared"
    )
    visibility: Visibility = Field(
        "private",
        description="private: the persona alone, and witnesses; shared: related_personas too; "
        "public: everybody in the world",
    )
    metadata: Metadata = Field(default_factory=dict, description="Kept beside it as it is")
    pinned: bool = Field(False, description="Never fades")
    witnesses: Annotated[list[Reference], Field(max_length=PARTIES)] = Field(
        default_factory=list, description="Personas or users who know it too"
    )
    request_id: Id | None = Field(
        None, description="Your name for this call: sent again, it stores nothing twice"
    )


class MemoryStored(Result):
    """Result of memory_store."""

    memory_id: str
    stored: bool
    importance: float
    importance_terms: dict[str, float] = Field(description="What it is made of; empty if given")


@operation("Store a memory", "memory", "manage", idempotent=False)
async def memory_store(call: Call, arguments: MemoryStoreArguments) -> MemoryStored:
    """Tell a persona something that it is to remember; it is found by its words at once.

    The persona recalls it when a message bears on it. What is private stays with it.
    """
    persona = await current_persona(call, arguments.persona_id)
    weighed = weigh(call, persona, arguments)
    request_id = arguments.request_id
    related = [await party(call, reference) for reference in arguments.related_personas]
    witnesses = [await party(call, reference) for reference in arguments.witnesses]
    memory = NewMemory(
        id=derived_id(call.world_id, "memory_store", request_id) if request_id else new_id(),
        persona_id=persona.id,
        content=arguments.content,
        importance=weighed.value,
        importance_terms=dict(weighed.terms),
        witnesses=tuple(witnesses),
        memory_type=arguments.memory_type,
        visibility=arguments.visibility,
        emotional_valence=arguments.emotional_valence,
        related_personas=tuple(dict.fromkeys(related)),
        details=arguments.metadata,
        pinned=arguments.pinned,
    )
    stored = await call.store.memory_store.add(call.world_id, memory, time.time())
    call.service.indexer.wake()
    return MemoryStored(
        memory_id=stored.memory.id,
        stored=True,
        importance=stored.memory.importance,
        importance_terms=stored.importance_terms,
    )


def weigh(call: Call, persona: Persona, arguments: MemoryStoreArguments) -> Importance:
    """Return the importance that was given, else weigh the words for the persona."""
    if arguments.importance is not None:
        return Importance(arguments.importance, {})
    own = interests_of(persona.spec.topic_preferences, persona.spec.personality_traits)
    occasion = Occasion(memory_type=arguments.memory_type)
    return importance(arguments.content, own, None, occasion, call.store.laws.importance)


class MemoryGetArguments(Arguments):
    """Arguments of memory_get."""

    memory_id: Id = Field(description="From memory_search, memory_list or memory_store")


class ShownRevision(Result):
    """What one change of a memory replaced."""

    version: int = Field(description="Of the memory before the change")
    replaced_at: str
    before: dict[str, Any] = Field(description="The fields that it changed, as they were")


class FullMemory(ShownMemory):
    """A memory with everything that is kept of it."""

    persona_id: str
    indexed_text: str = Field(description="What is searched: the day and the speaker in front")
    importance_terms: dict[str, float]
    metadata: dict[str, Any]
    witnesses: list[str] = Field(description="Who may know it because they were there")
    conversation_id: str | None
    exchange_id: str | None
    source_turn: str | None = Field(description="Id of the turn that it is made from")
    version: int
    updated_at: str
    last_used_at: str | None
    archived_at: str | None
    revisions: list[ShownRevision] = Field(description="What changes replaced, oldest first")


class MemoryGet(Result):
    """Result of memory_get."""

    memory: FullMemory


@operation("Get a memory", "memory", "read", core=False)
async def memory_get(call: Call, arguments: MemoryGetArguments) -> MemoryGet:
    """Return everything that is kept of one memory; looking does not count as use."""
    whole = await call.store.memory_store.get(call.world_id, arguments.memory_id)
    found = whole.memory
    shown = fields_of(found, time.time(), call.store.settings.retention)
    return MemoryGet(
        memory=FullMemory(
            **shown,
            persona_id=found.persona_id,
            indexed_text=found.indexed_text,
            importance_terms=whole.importance_terms,
            metadata=whole.details,
            witnesses=list(whole.witnesses),
            conversation_id=found.conversation_id,
            exchange_id=found.exchange_id,
            source_turn=found.turn_id,
            version=found.version,
            updated_at=rfc3339(found.updated_at),
            last_used_at=None if found.used_at is None else rfc3339(found.used_at),
            archived_at=None if found.archived_at is None else rfc3339(found.archived_at),
            revisions=[
                ShownRevision(
                    version=one.version, replaced_at=rfc3339(one.replaced_at), before=one.before
                )
                for one in whole.revisions
            ],
        )
    )


class MemoryListArguments(Arguments):
    """Arguments of memory_list."""

    persona_id: Reference | None = Field(None, description=PERSONA)
    memory_type: MemoryType | None = Field(None, description="Only this type")
    visibility: Visibility | None = Field(None, description="Only with this visibility")
    archived: bool = Field(False, description="What was archived, in place of the rest")
    since: Moment | None = Field(None, description="Made at this time or later")
    until: Moment | None = Field(None, description="Made before this time")
    order: Order = Field("created", description="What comes first: newest, weightiest, most used")
    limit: Annotated[int, Field(ge=1, le=200), WHOLE] = Field(50, description="Memories a page")
    cursor: Annotated[Text, Field(pattern=r"^[0-9]{1,9}$")] | None = Field(
        None, description="next_cursor of the page before"
    )


class MemoryList(Result):
    """Result of memory_list."""

    memories: list[ShownMemory]
    total_count: int
    next_cursor: str | None


@operation("List memories", "memory", "read", core=False)
async def memory_list(call: Call, arguments: MemoryListArguments) -> MemoryList:
    """List a persona's own memories, newest first; looking does not count as use."""
    since, until = arguments.since, arguments.until
    if since is not None and until is not None and since >= until:
        fault = {"field": "until", "allowed": "a time after since", "given": rfc3339(until)}
        raise InvalidParams.of([fault])
    persona = await current_persona(call, arguments.persona_id)
    wanted = Wanted(
        memory_type=arguments.memory_type,
        visibility=arguments.visibility,
        archived=arguments.archived,
        since=since,
        until=until,
    )
    after = int(arguments.cursor or 0)
    found, total = await call.store.memory_store.page(
        call.world_id, persona.id, wanted, arguments.order, arguments.limit, after
    )
    now, fading, end = time.time(), call.store.settings.retention, after + len(found)
    return MemoryList(
        memories=[ShownMemory(**fields_of(memory, now, fading)) for memory in found],
        total_count=total,
        next_cursor=str(end) if end < total else None,
    )


class MemoryStatsArguments(Arguments):
    """Arguments of memory_stats."""

    persona_id: Reference | None = Field(None, description=PERSONA)


class MemoryStats(Result):
    """Result of memory_stats."""

    persona_id: str
    total_memories: int
    avg_importance: float
    memory_types: dict[str, int]
    high_importance_count: int = Field(description="With an importance of 0.7 or more")
    created_today: int = Field(description="Since midnight, UTC")
    pinned_count: int
    archived_count: int = Field(description="Beside the others: they are found no more")
    stats_calculation_time_ms: float


@operation("Count memories", "memory", "read", core=False)
async def memory_stats(call: Call, arguments: MemoryStatsArguments) -> MemoryStats:
    """Count what a persona remembers, by type and weight."""
    persona = await current_persona(call, arguments.persona_id)
    began = time.perf_counter()
    found = await call.store.memory_store.count(call.world_id, persona.id, time.time())
    return MemoryStats(
        persona_id=persona.id,
        total_memories=found.total,
        avg_importance=found.average_importance,
        memory_types=found.types,
        high_importance_count=found.important,
        created_today=found.today,
        pinned_count=found.pinned,
        archived_count=found.archived,
        stats_calculation_time_ms=(time.perf_counter() - began) * MILLISECONDS,
    )
