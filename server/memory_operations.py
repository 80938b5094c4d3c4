"""Operations on memories: search."""

from typing import Annotated

from pydantic import Field

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations import Arguments, Call, Result, operation
from persona_mcp.state.fields import WHOLE, Number, Reference, Text
from persona_mcp.state.memory import Recalled, rfc3339

MemoryType = Annotated[Text, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class MemorySearchArguments(Arguments):
    """Arguments of memory_search."""

    query: Annotated[Text, Field(min_length=1, max_length=2000)] = Field(
        description="What to look for, in plain words"
    )
    persona_id: Reference | None = Field(
        None, description="Whose memories: id or name, from persona_list; left out: the session's"
    )
    n_results: Annotated[int, Field(ge=1, le=100), WHOLE] = Field(
        5, description="Memories returned, at most"
    )
    memory_type: MemoryType | None = Field(None, description="Only this type, e.g. conversation")
    min_importance: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.0, description="Only memories at least as important"
    )


class FoundMemory(Result):
    """A memory that was found."""

    id: str
    content: str
    memory_type: str
    speaker_id: str | None
    importance: float
    emotional_valence: float
    related_personas: list[str]
    visibility: str
    created_at: str
    accessed_count: int
    similarity: float = Field(description="Nearness in meaning to the query, 0..1")
    score: float = Field(description="What it is ranked by; comparable within one answer only")
    score_parts: dict[str, float]


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
    count as use.
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
    return MemorySearch(
        memories=[shown(hit) for hit in found.hits],
        query=arguments.query,
        result_count=len(found.hits),
        degraded=found.degraded or None,
    )


def shown(hit: Recalled) -> FoundMemory:
    """Show a memory that was found."""
    memory = hit.memory
    return FoundMemory(
        id=memory.id,
        content=memory.content,
        memory_type=memory.memory_type,
        speaker_id=memory.speaker_id,
        importance=memory.importance,
        emotional_valence=memory.emotional_valence,
        related_personas=list(memory.related_personas),
        visibility=memory.visibility,
        created_at=rfc3339(memory.created_at),
        accessed_count=memory.accessed_count,
        similarity=hit.similarity,
        score=hit.score,
        score_parts=hit.parts,
    )
