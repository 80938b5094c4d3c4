"""Operations that look at what a persona remembers: one memory, a list, numbers."""

import time
from typing import Annotated, Any

from pydantic import Field

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations.memories import (
    PERSONA,
    MemoryType,
    ShownMemory,
    Visibility,
    fields_of,
)
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.errors import NotFound
from persona_mcp.state.fields import WHOLE, Id, Moment, Reference, Text
from persona_mcp.state.memory.store import Order, Wanted
from persona_mcp.state.memory.weights import by_tenths, read_weights
from persona_mcp.state.moments import check_span, rfc3339

MILLISECONDS = 1000
PRIVATE = "private"


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
    origin: dict[str, Any] | None = Field(
        description="Of hearsay: the memory that was told, who told whom (chain, trust 0..1), and "
        "its weight; of a merged memory: its sources; of a summary: its turns and who made it"
    )
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
    if found.visibility == PRIVATE and not call.sees_private:
        raise NotFound.of("memory", arguments.memory_id)
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
            origin=whole.origin,
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
    check_span(since, until)
    persona = await current_persona(call, arguments.persona_id)
    wanted = Wanted(
        memory_type=arguments.memory_type,
        visibility=arguments.visibility,
        archived=arguments.archived,
        since=since,
        until=until,
        private=call.sees_private,
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
    importance_histogram: list[int] = Field(description="By tenths of 0..1, the lowest first")
    retention_histogram: list[int] = Field(description="What share has not faded, likewise")
    stats_calculation_time_ms: float


@operation("Count memories", "memory", "read", core=False)
async def memory_stats(call: Call, arguments: MemoryStatsArguments) -> MemoryStats:
    """Count what a persona remembers, by type and weight."""
    persona = await current_persona(call, arguments.persona_id)
    began, now = time.perf_counter(), time.time()
    found = await call.store.memory_store.count(call.world_id, persona.id, now)
    weights = await call.store.database.read(read_weights, call.world_id, persona.id)
    return MemoryStats(
        persona_id=persona.id,
        total_memories=found.total,
        avg_importance=found.average_importance,
        memory_types=found.types,
        high_importance_count=found.important,
        created_today=found.today,
        pinned_count=found.pinned,
        archived_count=found.archived,
        importance_histogram=by_tenths(weights.importance),
        retention_histogram=by_tenths(weights.retention(now, call.store.settings.retention)),
        stats_calculation_time_ms=(time.perf_counter() - began) * MILLISECONDS,
    )
