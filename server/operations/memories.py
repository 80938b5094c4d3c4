"""Operations that find memories and store them; `memory_reading` looks at them."""

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.operations.relationships import party
from persona_mcp.server.telling import told_to
from persona_mcp.state.fields import WHOLE, Id, Metadata, Number, Reference, Text
from persona_mcp.state.memory.importance import Importance, Occasion, importance, interests_of
from persona_mcp.state.memory.memory import HEARSAY, Memory, NewMemory, Recalled, Sought
from persona_mcp.state.memory.params import RetentionParams
from persona_mcp.state.memory.retention import effective, retention
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.persona import Persona

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
    told_by: str | None = Field(description="Who told it, where it is hearsay")
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
        Sought(arguments.memory_type, arguments.min_importance, private=call.sees_private),
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
        "told_by": memory.source_id,
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
    told_by: Reference | None = Field(
        None,
        description="Persona or user who told it, where it is hearsay: then memory_type is hearsay",
    )
    source_memory_id: Id | None = Field(
        None, description="What told_by tells of, from memory_search of its own memories"
    )
    importance: Share | None = Field(
        None,
        description="Left out: weighed from the words; trust in told_by weighs either",
    )
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
    told = await told_to(call, persona, arguments)
    weighed = weigh(call, persona, arguments)
    if told is not None:
        weighed = told.weigh(weighed)
    related = [await party(call, reference) for reference in arguments.related_personas]
    witnesses = [await party(call, reference) for reference in arguments.witnesses]
    memory = NewMemory(
        id=call.made_id("memory_store"),
        persona_id=persona.id,
        content=arguments.content,
        importance=weighed.value,
        importance_terms=dict(weighed.terms),
        witnesses=(*witnesses, told.teller_id) if told else tuple(witnesses),
        memory_type=HEARSAY if told else arguments.memory_type,
        speaker_name=told.teller_name if told else "",
        source_id=told.teller_id if told else None,
        origin=told.origin if told else None,
        visibility=arguments.visibility,
        emotional_valence=arguments.emotional_valence,
        related_personas=tuple(dict.fromkeys(related)),
        details=arguments.metadata,
        pinned=arguments.pinned,
    )
    stored = await call.store.memory_store.add(call.world_id, memory, time.time())
    call.store.wake()
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
