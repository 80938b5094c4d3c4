"""Operations on the system itself: status, models, health, numbers."""

import time
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Literal

from pydantic import Field

from persona_mcp.server.checking import check_parts
from persona_mcp.server.health import Report
from persona_mcp.server.measures import Limited, Measured, limited, measured
from persona_mcp.server.operations.registry import Arguments, Call, Result, operation
from persona_mcp.server.part_checks import PartChecks
from persona_mcp.state.census import count_world
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.moments import rfc3339

PROVIDERS = ("ollama", "openai", "embedded")


class SystemStatusArguments(Arguments):
    """Arguments of system_status: none of its own."""


class SystemStatus(Result):
    """Result of system_status."""

    system_status: Literal["operational", "degraded", "down"] = Field(
        description="degraded: something is wrong with the model or the index; down: it is stopping"
    )
    llm_available: bool
    llm_detail: str = Field(description="Which model answers, or what to do about it")
    total_personas: int
    available_personas: int
    active_conversations: int
    current_persona: str | None = Field(description="Id of the session's persona")
    current_conversation: str | None = Field(description="Id of the session's conversation")
    timestamp: str
    version: str
    uptime_seconds: float
    database: str
    vector_index: str = Field(description="chroma or exact, and what is wrong with it, if so")
    queue_depth: int = Field(description="Memories of the world that are still to be indexed")


@operation("System status", "system", "read")
async def system_status(call: Call, arguments: SystemStatusArguments) -> SystemStatus:
    """Say whether model, database and index answer, and how much there is in the world.

    Call it when another tool failed, to see what is down and what to do.
    """
    service, now = call.service, time.time()
    model = await service.probe.look()
    laws = service.laws.effects.interaction
    found = await service.database.read(count_world, call.world_id, now, laws)
    index = await index_state(service.index)
    well = "operational" if model.ok and index == service.index.kind else "degraded"
    session = call.session
    return SystemStatus(
        system_status="down" if service.runs.closing else well,
        llm_available=model.ok,
        llm_detail=model.detail,
        total_personas=found.personas,
        available_personas=found.available,
        active_conversations=found.talks,
        current_persona=session.persona_id if session else None,
        current_conversation=session.conversation_id if session else None,
        timestamp=rfc3339(now),
        version=version("persona-mcp"),
        uptime_seconds=now - service.started_at,
        database=service.database.engine.dialect.name,
        vector_index=index,
        queue_depth=await service.indexer.pending([call.world_id]),
    )


async def index_state(index: SyncedIndex) -> str:
    """Say which index there is, and what is wrong with it."""
    trouble = index.trouble
    try:
        await index.check()
    except PersonaError as error:
        trouble = error.message
    return f"{index.kind}: {trouble}" if trouble else index.kind


class SystemModelsArguments(Arguments):
    """Arguments of system_models: none of its own."""


class SystemModels(Result):
    """Result of system_models."""

    available_models: list[str] = Field(description="What the provider has; empty if it is down")
    current_model: str
    provider: str
    providers: list[str] = Field(description="All that PERSONA_LLM__MODEL may name")
    embedder: str = Field(description="What memories are embedded with")
    provider_error: str | None = Field(description="Why there is no list, and what to do")


@operation("List language models", "system", "read", core=False)
async def system_models(call: Call, arguments: SystemModelsArguments) -> SystemModels:
    """List the language models that the provider in use has, and say which one answers.

    Another one is chosen with the setting PERSONA_LLM__MODEL, as provider:model.
    """
    offer = await call.service.model.offered()
    return SystemModels(
        available_models=list(offer.names),
        current_model=offer.chosen.name,
        provider=offer.chosen.provider,
        providers=list(PROVIDERS),
        embedder=call.service.embedder.model_id,
        provider_error=offer.fault or None,
    )


class SystemHealthArguments(Arguments):
    """Arguments of system_health: none of its own."""


class HealthCheck(Result):
    """What a check found."""

    ok: bool
    latency_ms: float = Field(description="How long the check took")
    detail: str = Field(description="What was found, or what is wrong and what to do")
    checked_at: str
    age_s: float = Field(
        description="How long before that it was last seen at work; 0: used for the check"
    )


class SystemHealth(Result):
    """Result of system_health."""

    status: Literal["ok", "degraded", "down"] = Field(
        description="degraded: a part fails that can be done without"
    )
    checks: dict[str, HealthCheck] = Field(
        description="Of database, checkpoints, vector_index, full_text, model, embedder, queue, "
        "disk, upkeep, batches and what counts limits; on PostgreSQL of its pool too"
    )


@operation("Check every part", "system", "read", core=False)
async def system_health(call: Call, arguments: SystemHealthArguments) -> SystemHealth:
    """Use each part once and say whether it answers, how long that took, and what is wrong.

    Parts: database, checkpoints, vector index, full text, language model, embedder, queue of the
    index, room on the disk, upkeep, batches, and what counts limits.
    """
    service, worlds = call.service, call.caller.identity.worlds
    found = await check_parts(PartChecks(service, worlds).all(), service.settings.server.check_s)
    service.metrics.well({name: check.ok for name, check in found.items()})
    return SystemHealth(
        status=Report(time.monotonic(), found).status,
        checks={name: HealthCheck(**asdict(check)) for name, check in found.items()},
    )


class SystemMetricsArguments(Arguments):
    """Arguments of system_metrics."""

    format: Literal["json", "prometheus"] = Field(
        "json", description="json: the numbers; prometheus: text, as /metrics has it"
    )


class SystemMetrics(Result):
    """Result of system_metrics."""

    format: Literal["json", "prometheus"]
    uptime_seconds: float
    metrics: Annotated[Measured | None, Field(description="The numbers; null in text")]
    text: str | None = Field(description="In Prometheus' text format; null in json")
    limits: Annotated[Limited | None, Field(description="What callers have used; null in text")]


@operation("Measure the system", "system", "admin", core=False, reads=True)
async def system_metrics(call: Call, arguments: SystemMetricsArguments) -> SystemMetrics:
    """Return what this process has counted since its start, by operation, model and queue.

    Calls, errors by code and durations of each operation; tokens and durations of the model; what
    waits; who is connected; what was refused by which limit, and the tokens of each caller today.
    """
    service, as_text = call.service, arguments.format == "prometheus"
    await service.count_waiting()
    return SystemMetrics(
        format=arguments.format,
        uptime_seconds=time.time() - service.started_at,
        metrics=None if as_text else measured(service.metrics.samples()),
        text=service.metrics.text() if as_text else None,
        limits=None if as_text else await limited(service.limits),
    )
