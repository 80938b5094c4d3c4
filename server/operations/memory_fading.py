"""Operations on fading: the switch of the background upkeep, its figures, and forced fading."""

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from persona_mcp.server.current import current_persona
from persona_mcp.server.operations.memory_upkeep import pruning_of
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.state.fields import WHOLE, Id, Number, Reference
from persona_mcp.state.memory.decay_store import DecayStore
from persona_mcp.state.memory.upkeep_store import UpkeepSwitch
from persona_mcp.state.moments import rfc3339


class MemoryDecayStartArguments(Arguments):
    """Arguments of memory_decay_start."""

    interval_hours: Annotated[int, Field(ge=1, le=168), WHOLE] = Field(
        6, description="From one round to the next, in hours"
    )
    auto_pruning: bool = Field(
        True, description="Also prune who has too many memories, beside what has faded"
    )


class MemoryDecayStart(Result):
    """Result of memory_decay_start."""

    status: Literal["started", "already_running"]
    interval_hours: int
    mode: str = Field(description="How memories fade")
    auto_pruning: bool
    next_run: str | None = Field(description="None: at once")


@operation("Start upkeep", "memory", "manage", core=False)
async def memory_decay_start(call: Call, arguments: MemoryDecayStartArguments) -> MemoryDecayStart:
    """Switch the world's background upkeep on: it archives memories that have faded away.

    Fading itself needs no job. The switch outlives a restart; each run can be undone. Switched on
    already, it takes the new interval.
    """
    switch, before = await UpkeepSwitch(call.store.database).turn_on(
        call.world_id, arguments.interval_hours, arguments.auto_pruning
    )
    call.store.wake()
    now = time.time()
    due = switch.due(now)
    return MemoryDecayStart(
        status="already_running" if before else "started",
        interval_hours=switch.interval_hours,
        mode=call.store.settings.retention.mode,
        auto_pruning=switch.auto_pruning,
        next_run=rfc3339(due) if due > now else None,
    )


class MemoryDecayStopArguments(Arguments):
    """Arguments of memory_decay_stop."""


class MemoryDecayStop(Result):
    """Result of memory_decay_stop."""

    status: Literal["stopped", "not_running"]


@operation("Stop upkeep", "memory", "manage", core=False)
async def memory_decay_stop(call: Call, arguments: MemoryDecayStopArguments) -> MemoryDecayStop:
    """Switch the world's background upkeep off; a round that runs ends after its persona."""
    stopped = await UpkeepSwitch(call.store.database).turn_off(call.world_id)
    return MemoryDecayStop(status="stopped" if stopped else "not_running")


class MemoryDecayStatsArguments(Arguments):
    """Arguments of memory_decay_stats."""


class DecayStatistics(Result):
    """What the upkeep of a world has done."""

    background_running: bool = Field(description="It is switched on")
    last_run: str | None
    next_run: str | None = Field(description="None: at once, or switched off")
    total_decay_cycles: int
    total_memories_decayed: int = Field(description="Archived since they had faded")
    total_auto_prunes_triggered: int
    total_errors: int = Field(description="Personas whose upkeep failed")
    recent_cycle: dict[str, Any] = Field(description="What the last whole round did")
    config: dict[str, Any]


class MemoryDecayStats(Result):
    """Result of memory_decay_stats."""

    decay_statistics: DecayStatistics


@operation("Count upkeep", "memory", "read", core=False)
async def memory_decay_stats(call: Call, arguments: MemoryDecayStatsArguments) -> MemoryDecayStats:
    """Say whether the world's background upkeep is on, and what it has done, as it is stored."""
    switch = await UpkeepSwitch(call.store.database).read(call.world_id)
    runs = await pruning_of(call.store).stats(call.world_id)
    fading, pruning = call.store.settings.retention, call.store.settings.pruning
    config: dict[str, Any] = {"mode": fading.mode, "faded": pruning.faded}
    if switch is not None:
        config |= {"interval_hours": switch.interval_hours, "auto_pruning": switch.auto_pruning}
    on = switch is not None and switch.on
    last = switch.last_run if switch else None
    now = time.time()
    due = switch.due(now) if switch is not None and on else 0.0
    recent = dict(switch.recent) if switch else {}
    if "began" in recent:
        recent["began"] = rfc3339(recent["began"])
    return MemoryDecayStats(
        decay_statistics=DecayStatistics(
            background_running=on,
            last_run=None if last is None else rfc3339(last),
            next_run=rfc3339(due) if due > now else None,
            total_decay_cycles=switch.cycles if switch else 0,
            total_memories_decayed=runs.faded,
            total_auto_prunes_triggered=runs.upkeep_runs,
            total_errors=switch.errors if switch else 0,
            recent_cycle=recent,
            config=config,
        )
    )


class MemoryDecayForceArguments(Arguments):
    """Arguments of memory_decay_force."""

    persona_id: Reference | None = Field(
        None,
        description="Whose memories: id or name, from persona_list; left out: of all personas",
    )
    decay_factor: Annotated[Number, Field(ge=0.01, le=0.9)] = Field(
        0.1, description="Share of the importance that is taken away"
    )
    dry_run: bool = Field(False, description="Only say what it would do; nothing is changed")
    undo_decay_id: Id | None = Field(
        None,
        description="decay_id of an earlier memory_decay_force: give back what it took",
    )


class MemoryDecayForce(Result):
    """Result of memory_decay_force."""

    status: Literal["decayed", "would_decay", "undone"]
    persona_id: str | None = Field(description="None: all personas")
    decay_factor: float
    personas_processed: int
    memories_processed: int
    memories_decayed: int = Field(description="Whose importance is lower now")
    memories_restored: int = Field(description="By an undo")
    auto_prunes_triggered: int = Field(description="Always 0: forced fading archives nothing")
    processing_time: float = Field(description="Seconds")
    decay_id: str | None = Field(description="Send it as undo_decay_id to take it back")


@operation("Force fading", "memory", "manage", core=False)
async def memory_decay_force(call: Call, arguments: MemoryDecayForceArguments) -> MemoryDecayForce:
    """Lower the stored importance of memories by a share, of one persona or of all; can be undone.

    Pinned memories and those of an importance of 0.8 or more are left alone, and none goes below
    0.1. Try dry_run first.
    """
    began, now, decay_id = time.perf_counter(), time.time(), arguments.undo_decay_id
    shown: dict[str, Any] = {"decay_factor": arguments.decay_factor, "auto_prunes_triggered": 0}
    if decay_id is not None:
        undone = await DecayStore(call.store.database).undo(call.world_id, decay_id, now)
        return MemoryDecayForce(
            **shown,
            status="undone",
            persona_id=None,
            personas_processed=undone.personas,
            memories_processed=undone.decayed,
            memories_decayed=0,
            memories_restored=undone.restored,
            processing_time=time.perf_counter() - began,
            decay_id=decay_id,
        )
    named = arguments.persona_id
    one = None if named is None else (await current_persona(call, named)).id
    personas = list(await call.store.personas.names(call.world_id)) if one is None else [one]
    decay_id, factor = call.made_id("memory_decay_force"), arguments.decay_factor
    found = await DecayStore(call.store.database).force(
        call.world_id, decay_id, personas, factor, now, dry=arguments.dry_run
    )
    return MemoryDecayForce(
        **shown,
        status="would_decay" if arguments.dry_run else "decayed",
        persona_id=one,
        personas_processed=found.personas,
        memories_processed=found.processed,
        memories_decayed=found.decayed,
        memories_restored=0,
        processing_time=time.perf_counter() - began,
        decay_id=found.id,
    )
