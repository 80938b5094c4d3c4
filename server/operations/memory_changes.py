"""Operations that change memories: update, delete."""

import time
from typing import Annotated

from pydantic import Field

from persona_mcp.server.operations.memories import (
    PARTIES,
    MemoryType,
    Share,
    Visibility,
)
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.operations.relationships import party
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.fields import WHOLE, Id, Metadata, Reference, Text
from persona_mcp.state.memory.changes import Change
from persona_mcp.state.memory.merging import plan_apart, take_apart


class MemoryUpdateArguments(Arguments):
    """Arguments of memory_update."""

    memory_id: Id = Field(description="From memory_search, memory_list or memory_store")
    content: Annotated[Text, Field(min_length=1, max_length=20000)] | None = Field(
        None, description="What it is to say"
    )
    importance: Share | None = Field(None, description="How much it is to weigh")
    memory_type: MemoryType | None = Field(None, description="user_input, fact, goal, secret, ...")
    visibility: Visibility | None = Field(
        None, description="private, shared (with related_personas too) or public"
    )
    pinned: bool | None = Field(None, description="Never fades")
    archived: bool | None = Field(
        None, description="true: found no more; false: restored, also after memory_delete"
    )
    metadata: Metadata | None = Field(None, description="In place of what is kept beside it")
    related_personas: Annotated[list[Reference], Field(max_length=PARTIES)] | None = Field(
        None, description="In place of those with whom it is shared"
    )
    expected_version: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None, description="Only change it if it still has this version, from memory_get"
    )


class MemoryUpdate(Result):
    """Result of memory_update."""

    memory_id: str
    version: int
    changed: list[str] = Field(description="Fields that are different now; empty if none is")


@operation("Change a memory", "memory", "manage", core=False, idempotent=True)
async def memory_update(call: Call, arguments: MemoryUpdateArguments) -> MemoryUpdate:
    """Change a memory: what it says, weighs, who may know it; or archive and restore it.

    Fields that are left out stay. What was there is kept, and memory_get shows it as revisions.
    """
    related = arguments.related_personas
    if related is not None:
        related = [await party(call, reference) for reference in related]
    change = Change(
        content=arguments.content,
        memory_type=arguments.memory_type,
        importance=arguments.importance,
        visibility=arguments.visibility,
        related_personas=None if related is None else tuple(dict.fromkeys(related)),
        metadata=arguments.metadata,
        pinned=arguments.pinned,
        archived=arguments.archived,
    )
    version, changed = await call.store.memory_changes.update(
        call.world_id, arguments.memory_id, change, arguments.expected_version, time.time()
    )
    call.store.wake()
    return MemoryUpdate(memory_id=arguments.memory_id, version=version, changed=list(changed))


class MemoryDeleteArguments(Arguments):
    """Arguments of memory_delete."""

    memory_id: Id | None = Field(
        None, description="One memory, from memory_search or memory_list; or give ids"
    )
    ids: Annotated[list[Id], Field(min_length=1, max_length=100)] | None = Field(
        None,
        description="Several memories, from memory_search or memory_list, in place of memory_id",
    )
    purge: bool = Field(False, description="Delete for good, in place of archiving")
    confirm: bool = Field(False, description="true is needed to purge: nothing brings it back")
    unmerge: bool = Field(
        False,
        description="Take merged memories apart: what they were merged from is found again, and "
        "they are deleted for good",
    )
    dry_run: bool = Field(False, description="Only tell what would be deleted")


class MemoryDelete(Result):
    """Result of memory_delete."""

    deleted: int = Field(description="Memories that were, or in a dry run would be, deleted")
    memory_ids: list[str] = Field(description="Which ones")
    archived_already: list[str] = Field(description="To be archived, and were already")
    not_found: list[str]
    purged: bool = Field(description="For good; else memory_update with archived=false undoes it")
    restored: list[str] = Field(
        description="With unmerge: what they were merged from; pinned, or it would be merged again"
    )
    dry_run: bool


@operation("Delete memories", "memory", "manage", core=False, destructive=True, idempotent=True)
async def memory_delete(call: Call, arguments: MemoryDeleteArguments) -> MemoryDelete:
    """Archive memories, so that they are found no more; or purge them for good.

    Archiving is undone by memory_update with archived=false. A purge takes the memories with their
    revisions, witnesses, uses and vectors, and needs confirm=true. With unmerge, what the upkeep
    merged into these memories comes back in their place.
    """
    ids, purge = ids_of(arguments), arguments.purge
    if arguments.unmerge:
        return await taken_apart(call, ids, arguments)
    if purge and not (arguments.confirm or arguments.dry_run):
        raise InvalidParams.one("confirm", "true, since purge=true deletes for good", False)
    found = await call.store.memory_changes.delete(
        call.world_id, ids, purge, arguments.dry_run, time.time()
    )
    call.store.wake()
    return MemoryDelete(
        deleted=len(found.deleted),
        memory_ids=list(found.deleted),
        archived_already=list(found.archived),
        not_found=list(found.not_found),
        purged=purge and not arguments.dry_run,
        restored=[],
        dry_run=arguments.dry_run,
    )


async def taken_apart(call: Call, ids: list[str], arguments: MemoryDeleteArguments) -> MemoryDelete:
    """Take merged memories apart, all or none.

    Raises:
        InvalidParams: They are to be purged, too.
        Conflict: One is no merged memory, or was itself merged or archived.
    """
    if arguments.purge:
        raise InvalidParams.one(
            "purge", "false, since unmerge=true deletes the merged memories", True
        )
    database, world_id = call.store.database, call.world_id
    if arguments.dry_run:
        found = await database.read(plan_apart, world_id, ids)
    else:
        found = await database.write(take_apart, world_id, ids, time.time())
        call.store.wake()
    return MemoryDelete(
        deleted=len(found.merged),
        memory_ids=list(found.merged),
        archived_already=[],
        not_found=list(found.not_found),
        purged=not arguments.dry_run,
        restored=list(found.sources),
        dry_run=arguments.dry_run,
    )


def ids_of(arguments: MemoryDeleteArguments) -> list[str]:
    """Return which memories are meant.

    Raises:
        InvalidParams: None are named, or in two ways.
    """
    one, several = arguments.memory_id, arguments.ids
    if (one is None) == (several is None):
        raise InvalidParams.one(
            "memory_id", "one of memory_id and ids", "neither" if one is None else "both"
        )
    return several or [one or ""]
