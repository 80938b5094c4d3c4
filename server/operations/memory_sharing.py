"""Operations on memories of several personas: search across them, count what is open; an alias."""

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations.memories import PERSONA, Share
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.fields import WHOLE, Reference, Text
from persona_mcp.state.memory.memory import Memory, Recalled, Sought
from persona_mcp.state.memory.sharing import count_open
from persona_mcp.state.memory.store import Wanted
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.persona import Persona


class CrossSearchArguments(Arguments):
    """Arguments of memory_search_cross_persona."""

    query: Annotated[Text, Field(min_length=1, max_length=2000)] = Field(
        description="What to look for, in plain words"
    )
    persona_id: Reference | None = Field(
        None, description="Who asks: id or name, from persona_list; left out: the session's"
    )
    n_results: Annotated[int, Field(ge=1, le=100), WHOLE] = Field(
        10, description="Memories returned, at most"
    )
    min_importance: Share = Field(0.6, description="Only memories at least as important")
    include_shared: bool = Field(True, description="Others' memories that they share with it too")
    include_public: bool = Field(True, description="Others' public memories too")


class CrossMemory(Result):
    """A memory that was found, and whose it is."""

    memory_id: str
    content: str
    similarity: float = Field(description="Nearness in meaning to the query, 0..1")
    score: float = Field(description="What it is ranked by; comparable within one answer only")
    importance: float
    memory_type: str
    created_at: str
    visibility: str
    source: Literal["own", "cross_persona"]
    source_persona: str = Field(description="Whose memory it is")


class CrossSearch(Result):
    """Result of memory_search_cross_persona."""

    requesting_persona: str
    query: str
    memories: list[CrossMemory] = Field(description="Best first")
    total_results: int
    search_params: dict[str, Any] = Field(description="What the search was narrowed by")
    degraded: str | None = Field(description="Why only words were searched, if so")


@operation("Search across personas", "memory", "read", core=False)
async def memory_search_cross_persona(call: Call, arguments: CrossSearchArguments) -> CrossSearch:
    """Search what a persona remembers together with what others share with it or have made public.

    Another's memory is found only if it is public, or shared with this persona by name or because
    it was there. Looking does not count as use.
    """
    persona = await current_persona(call, arguments.persona_id)
    found = await call.service.memories.search(
        call.world_id,
        persona.id,
        arguments.query,
        arguments.n_results,
        Sought(
            min_importance=arguments.min_importance,
            shared=arguments.include_shared,
            public=arguments.include_public,
            private=call.sees_private,
        ),
    )
    narrowed = {"n_results", "min_importance", "include_shared", "include_public"}
    return CrossSearch(
        requesting_persona=persona.id,
        query=arguments.query,
        memories=[cross(hit, persona) for hit in found.hits],
        total_results=len(found.hits),
        search_params=arguments.model_dump(include=narrowed),
        degraded=found.degraded or None,
    )


def cross(hit: Recalled, reader: Persona) -> CrossMemory:
    """Show a memory that was found for a reader."""
    found = hit.memory
    return CrossMemory(
        memory_id=found.id,
        content=found.content,
        similarity=hit.similarity,
        score=hit.score,
        importance=found.importance,
        memory_type=found.memory_type,
        created_at=rfc3339(found.created_at),
        visibility=found.visibility,
        source="own" if found.persona_id == reader.id else "cross_persona",
        source_persona=found.persona_id,
    )


class SharedStatsArguments(Arguments):
    """Arguments of memory_shared_stats."""


class OpenMemories(Result):
    """What a persona has open to others."""

    shared: int
    public: int
    cross_references: int = Field(description="Memories that name others in related_personas")


class SharedStatistics(Result):
    """What the personas of a world have open to each other."""

    total_personas: int
    shared_memories: int
    public_memories: int
    cross_references: int = Field(description="Memories that name others in related_personas")
    by_persona: dict[str, OpenMemories] = Field(description="By id; who has nothing is left out")


class SharedStats(Result):
    """Result of memory_shared_stats."""

    shared_memory_statistics: SharedStatistics
    timestamp: str


@operation("Count shared memories", "memory", "read", core=False)
async def memory_shared_stats(call: Call, arguments: SharedStatsArguments) -> SharedStats:
    """Count what the personas of a world share with each other; archived memories do not count."""
    opened = await call.store.database.read(count_open, call.world_id)
    counts = opened.values()
    return SharedStats(
        shared_memory_statistics=SharedStatistics(
            total_personas=await call.store.personas.count(call.world_id),
            shared_memories=sum(each.shared for each in counts),
            public_memories=sum(each.public for each in counts),
            cross_references=sum(each.cross_references for each in counts),
            by_persona={id: OpenMemories(**vars(each)) for id, each in opened.items()},
        ),
        timestamp=rfc3339(time.time()),
    )


class PersonaMemoryArguments(Arguments):
    """Arguments of persona_memory."""

    query: Annotated[Text, Field(max_length=2000)] = Field(
        "", description="What to look for; left out or blank: the newest"
    )
    limit: Annotated[int, Field(ge=1, le=100), WHOLE] = Field(
        5, description="Memories returned, at most"
    )
    persona_id: Reference | None = Field(None, description=PERSONA)


class BriefMemory(Result):
    """A memory, in short."""

    id: str
    content: str
    importance: float
    memory_type: str
    created_at: str


class PersonaMemory(Result):
    """Result of persona_memory."""

    memories: list[BriefMemory] = Field(description="Best first; the newest first without a query")
    query: str
    total_found: int


@operation("Search memories (old name)", "persona", "read", core=False)
async def persona_memory(call: Call, arguments: PersonaMemoryArguments) -> PersonaMemory:
    """Search what one persona remembers; a blank query gives its newest memories.

    Deprecated, kept for old clients: use memory_search, or memory_list for the newest.
    """
    persona = await current_persona(call, arguments.persona_id)
    if arguments.query:
        recall = await call.service.memories.search(
            call.world_id,
            persona.id,
            arguments.query,
            arguments.limit,
            Sought(private=call.sees_private),
        )
        found = [hit.memory for hit in recall.hits]
    else:
        found, _ = await call.store.memory_store.page(
            call.world_id,
            persona.id,
            Wanted(private=call.sees_private),
            "created",
            arguments.limit,
            0,
        )
    return PersonaMemory(
        memories=[brief(memory) for memory in found],
        query=arguments.query,
        total_found=len(found),
    )


def brief(memory: Memory) -> BriefMemory:
    """Show a memory in short."""
    return BriefMemory(
        id=memory.id,
        content=memory.content,
        importance=memory.importance,
        memory_type=memory.memory_type,
        created_at=rfc3339(memory.created_at),
    )
