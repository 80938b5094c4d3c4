"""Operations on the system itself: status."""

import asyncio
import time
from importlib.metadata import version
from typing import Literal

from pydantic import Field

from persona_mcp.server.operations import Arguments, Call, Result, operation
from persona_mcp.state import interaction
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.memory import rfc3339
from persona_mcp.state.synced_index import SyncedIndex


class SystemStatusArguments(Arguments):
    """Arguments of system_status: none of its own."""


class SystemStatus(Result):
    """Result of system_status."""

    system_status: Literal["operational", "degraded"] = Field(
        description="degraded: the model does not answer, so nobody can be chatted with"
    )
    llm_available: bool
    llm_detail: str = Field(description="Which model answers, or what to do about it")
    total_personas: int
    available_personas: int
    active_conversations: int
    timestamp: str
    version: str
    uptime_seconds: float
    database: str
    vector_index: str = Field(description="chroma or exact, and what is wrong with it, if so")
    queue_depth: int = Field(description="Memories that are still to be indexed")


@operation("System status", "system", "read")
async def system_status(call: Call, arguments: SystemStatusArguments) -> SystemStatus:
    """Say whether model, database and index answer, and how much there is in the world.

    Call it when another tool failed, to see what is down and what to do.
    """
    service, now = call.service, time.time()
    available, detail = await probe(call)
    found = await service.personas.with_feelings(call.world_id, now, service.laws.effects)
    laws = service.laws.effects.interaction
    return SystemStatus(
        system_status="operational" if available else "degraded",
        llm_available=available,
        llm_detail=detail,
        total_personas=len(found),
        available_personas=sum(interaction.available(f.interaction, laws) for _, f in found),
        active_conversations=await service.conversations.count_active(call.world_id),
        timestamp=rfc3339(now),
        version=version("persona-mcp"),
        uptime_seconds=now - service.started_at,
        database=service.database.engine.dialect.name,
        vector_index=await index_state(service.index),
        queue_depth=await service.indexer.pending(),
    )


async def index_state(index: SyncedIndex) -> str:
    """Say which index there is, and what is wrong with it."""
    trouble = index.trouble
    try:
        await index.check()
    except PersonaError as error:
        trouble = error.message
    return f"{index.kind}: {trouble}" if trouble else index.kind


async def probe(call: Call) -> tuple[bool, str]:
    """Ask the model whether it is there, within the limit of a probe."""
    limit_s = call.service.settings.llm.probe_s
    try:
        async with asyncio.timeout(limit_s):
            return True, await call.service.model.check()
    except PersonaError as error:
        return False, error.message
    except TimeoutError:
        return False, f"the model did not answer within {limit_s:g} s"
