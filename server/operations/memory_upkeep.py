"""Operations that archive memories: prune, recommend, undo, count."""

import asyncio
import time
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations.memories import PERSONA
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.fields import Id, Reference
from persona_mcp.state.memory.params import PruningParams
from persona_mcp.state.memory.prune_store import Plan, Pruned, PruneStore
from persona_mcp.state.moments import rfc3339

if TYPE_CHECKING:
    from persona_mcp.server.store import Store

DRY = "Only say what it would do; nothing is changed"
IDS_TOLD = 20
"""Of memories that go; a persona may have thousands of them."""


class MemoryPruneArguments(Arguments):
    """Arguments of memory_prune."""

    persona_id: Reference | None = Field(None, description=PERSONA)
    force: bool = Field(
        False,
        description="Without the threshold and the pause of an hour; what is protected stays",
    )
    dry_run: bool = Field(False, description=DRY)
    undo_prune_id: Id | None = Field(
        None,
        description="Bring back what this run archived, in place of pruning; from memory_prune",
    )


class MemoryPrune(Result):
    """Result of memory_prune."""

    status: Literal["no_pruning_needed", "would_prune", "pruning_completed", "undone"]
    persona_id: str
    message: str
    current_memory_count: int
    memories_before: int
    memories_after: int
    memories_pruned: int
    memories_restored: int = Field(description="By an undo")
    average_importance_pruned: float
    average_importance_kept: float
    memory_ids: list[str] = Field(
        description="Of those that went, or in a dry run would go: at most 20, the least first"
    )
    processing_time: float = Field(description="Seconds")
    prune_id: str | None = Field(description="Send it as undo_prune_id to bring them back")


def pruning_of(store: "Store") -> PruneStore:
    """Return what prunes the memories of a store, by the laws of its settings."""
    return PruneStore(store.database, store.settings.retention, store.settings.pruning)


@operation("Prune memories", "memory", "manage", core=False)
async def memory_prune(call: Call, arguments: MemoryPruneArguments) -> MemoryPrune:
    """Archive a persona's least memories: they are found no more, and an undo brings them back.

    It begins at 900 memories, goes down to 800, a quarter at most at once. What is important,
    pinned, often or lately used is never archived. Try dry_run first.
    """
    if arguments.undo_prune_id is not None:
        return await undone(call, arguments.undo_prune_id)
    persona = await current_persona(call, arguments.persona_id)
    began, now, store = time.perf_counter(), time.time(), pruning_of(call.store)
    forced, run = arguments.force, None
    if arguments.dry_run:
        plan = await store.plan(call.world_id, persona.id, now, forced=forced)
    else:
        plan, run = await store.prune(call.world_id, persona.id, now, forced=forced)
    gone, left = plan.means()
    after = plan.before - plan.archived
    return MemoryPrune(
        status=status_of(plan, run),
        persona_id=persona.id,
        message=said_of(plan, call.store.settings.pruning, forced=forced),
        current_memory_count=after if run else plan.before,
        memories_before=plan.before,
        memories_after=after,
        memories_pruned=plan.archived,
        memories_restored=0,
        average_importance_pruned=gone,
        average_importance_kept=left,
        memory_ids=plan.ids[:IDS_TOLD],
        processing_time=time.perf_counter() - began,
        prune_id=run.id if run else None,
    )


def status_of(
    plan: Plan, run: Pruned | None
) -> Literal["no_pruning_needed", "would_prune", "pruning_completed"]:
    """Say what became of a plan."""
    if run is not None:
        return "pruning_completed"
    return "would_prune" if plan.archived else "no_pruning_needed"


def said_of(plan: Plan, params: PruningParams, *, forced: bool = False) -> str:
    """Say in words what a plan takes, and why not more."""
    if plan.paused_s:
        minutes = plan.paused_s / 60
        return f"pruned less than an hour ago; again in {minutes:.0f} min, or with force"
    if not plan.wanted:
        least = params.target if forced else params.start
        bound = f"more than {least}" if forced else f"{least} or more"
        return f"{plan.before} memories; pruning begins with {bound}"
    if plan.archived == plan.wanted:
        return f"{plan.archived} memories, down to {params.target}"
    return (
        f"{plan.archived} of the {plan.wanted} memories above {params.target}: the rest is "
        "protected, or for a later run"
    )


async def undone(call: Call, prune_id: str) -> MemoryPrune:
    """Undo a run and say how many memories came back."""
    began = time.perf_counter()
    found = await pruning_of(call.store).undo(call.world_id, prune_id, time.time())
    message = f"{found.restored} of {found.archived} memories came back"
    if found.again:
        message = "this run was undone before; nothing is left to bring back"
    elif found.restored < found.archived:
        message += "; the others were restored, archived anew or deleted since"
    return MemoryPrune(
        status="undone",
        persona_id=found.persona_id,
        message=message,
        current_memory_count=found.memories,
        memories_before=found.memories - found.restored,
        memories_after=found.memories,
        memories_pruned=0,
        memories_restored=found.restored,
        average_importance_pruned=0.0,
        average_importance_kept=0.0,
        memory_ids=[],
        processing_time=time.perf_counter() - began,
        prune_id=prune_id,
    )


class MemoryPruneAllArguments(Arguments):
    """Arguments of memory_prune_all."""

    dry_run: bool = Field(False, description=DRY)


class PruneFault(Result):
    """A persona whose memories could not be pruned."""

    persona_id: str
    message: str


class MemoryPruneAll(Result):
    """Result of memory_prune_all."""

    status: Literal["would_prune", "pruning_completed"]
    personas_processed: int
    total_memories_before: int
    total_memories_after: int
    total_memories_pruned: int
    processing_time: float = Field(description="Seconds")
    prune_ids: dict[str, str] = Field(description="By persona; each can be undone alone")
    errors_encountered: int
    errors: list[PruneFault]


@operation("Prune all memories", "memory", "manage", core=False)
async def memory_prune_all(call: Call, arguments: MemoryPruneAllArguments) -> MemoryPruneAll:
    """Prune the memories of every persona of the world, as memory_prune does without force.

    Each persona is one transaction; one that fails does not stop the others.
    """
    began, now, store = time.perf_counter(), time.time(), pruning_of(call.store)
    before = pruned = processed = 0
    ids: dict[str, str] = {}
    faults: list[PruneFault] = []
    for persona_id in await call.store.personas.names(call.world_id):
        try:
            if arguments.dry_run:
                plan, run = await store.plan(call.world_id, persona_id, now, forced=False), None
            else:
                plan, run = await store.prune(
                    call.world_id, persona_id, now, forced=False, origin="all"
                )
        except PersonaError as error:
            faults.append(PruneFault(persona_id=persona_id, message=error.message))
            continue
        processed, before, pruned = processed + 1, before + plan.before, pruned + plan.archived
        ids |= {persona_id: run.id} if run else {}
        await asyncio.sleep(0)  # others' turn
    return MemoryPruneAll(
        status="would_prune" if arguments.dry_run else "pruning_completed",
        personas_processed=processed,
        total_memories_before=before,
        total_memories_after=before - pruned,
        total_memories_pruned=pruned,
        processing_time=time.perf_counter() - began,
        prune_ids=ids,
        errors_encountered=len(faults),
        errors=faults,
    )


class MemoryPruneRecommendationsArguments(Arguments):
    """Arguments of memory_prune_recommendations."""

    persona_id: Reference | None = Field(None, description=PERSONA)


class Recommendation(Result):
    """What memory_prune would do now."""

    needs_pruning: bool
    current_count: int
    target_count: int
    would_prune: int
    average_importance_to_prune: float
    importance_range_to_prune: list[float] = Field(description="Least and most; empty of nothing")
    recommendation: str


class MemoryPruneRecommendations(Result):
    """Result of memory_prune_recommendations."""

    persona_id: str
    recommendations: Recommendation


@operation("Recommend pruning", "memory", "read", core=False)
async def memory_prune_recommendations(
    call: Call, arguments: MemoryPruneRecommendationsArguments
) -> MemoryPruneRecommendations:
    """Say what memory_prune would archive of a persona's memories now, without doing it."""
    persona = await current_persona(call, arguments.persona_id)
    plan = await pruning_of(call.store).plan(call.world_id, persona.id, time.time(), forced=False)
    params, weights = call.store.settings.pruning, plan.importance
    return MemoryPruneRecommendations(
        persona_id=persona.id,
        recommendations=Recommendation(
            needs_pruning=plan.archived > 0,
            current_count=plan.before,
            target_count=params.target,
            would_prune=plan.archived,
            average_importance_to_prune=plan.means()[0],
            importance_range_to_prune=[weights.min(), weights.max()] if plan.archived else [],
            recommendation=said_of(plan, params),
        ),
    )


class MemoryPruneStatsArguments(Arguments):
    """Arguments of memory_prune_stats."""


class PruningStatistics(Result):
    """What all runs of the world did."""

    total_pruning_operations: int
    total_memories_pruned: int
    total_personas_processed: int
    total_undone: int
    average_processing_time: float = Field(description="Seconds")
    last_global_prune: str | None = Field(description="By memory_prune_all")
    personas_last_pruned: dict[str, str]


class MemoryPruneStats(Result):
    """Result of memory_prune_stats."""

    pruning_statistics: PruningStatistics


@operation("Count prunings", "memory", "read", core=False)
async def memory_prune_stats(call: Call, arguments: MemoryPruneStatsArguments) -> MemoryPruneStats:
    """Count the runs that archived memories in this world, from their stored audit."""
    found = await pruning_of(call.store).stats(call.world_id)
    return MemoryPruneStats(
        pruning_statistics=PruningStatistics(
            total_pruning_operations=found.runs,
            total_memories_pruned=found.archived,
            total_personas_processed=found.personas,
            total_undone=found.undone,
            average_processing_time=found.average_s,
            last_global_prune=None if found.last_of_all is None else rfc3339(found.last_of_all),
            personas_last_pruned={id: rfc3339(at) for id, at in found.last_runs.items()},
        )
    )
