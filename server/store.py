"""The part of the service that needs only the database: no model, no index, no graph."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from persona_mcp.config.database import (
    check_revision,
    has_database,
    open_database,
    ready_database,
)
from persona_mcp.config.persona_files import bundled_personas
from persona_mcp.config.settings import Settings
from persona_mcp.nodes.parts import Laws
from persona_mcp.server.limits import Limits
from persona_mcp.server.metrics import Metrics
from persona_mcp.state.conversations import ConversationStore
from persona_mcp.state.database import Database
from persona_mcp.state.effects import EffectParams
from persona_mcp.state.memory.changes import MemoryChanges
from persona_mcp.state.memory.store import MemoryStore
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.sessions import SessionStore
from persona_mcp.state.tokens import TokenStore
from persona_mcp.state.watching import Tracer

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Store:
    """What is kept, and the laws that it is read by."""

    settings: Settings
    database: Database
    personas: PersonaStore
    conversations: ConversationStore
    sessions: SessionStore
    tokens: TokenStore
    memory_store: MemoryStore
    memory_changes: MemoryChanges
    laws: Laws
    metrics: Metrics
    limits: Limits
    started_at: float

    def wake(self) -> None:
        """Say that there is work in the background; without workers the next process does it."""

    async def stop_runs(self, world_id: str, exchange_ids: Collection[str]) -> None:
        """Stop making the replies of exchanges that are over; here nothing is made."""


@asynccontextmanager
async def open_store(settings: Settings, tracer: Tracer | None = None) -> AsyncIterator[Store]:
    """Open the database: it is upgraded, and the default world made, first.

    Args:
        settings: What to open.
        tracer: Writes spans of what is done with it.

    Raises:
        StorageUnavailable: The data folder cannot be used.
    """
    database = await ready_database(settings)
    try:
        now = time.time()
        bundled = await asyncio.to_thread(bundled_personas)
        store = store_over(settings, database, now, tracer)
        await store.limits.open()
        made = await store.personas.ensure_world(settings.world, settings.world, bundled, now)
        if made and len(await store.personas.worlds()) > 1:  # else the database is new
            log.warning(f"made world '{settings.world}'; it was not there", setting="PERSONA_WORLD")
        try:
            yield store
        finally:
            await store.limits.aclose()
    finally:
        await database.aclose()


@asynccontextmanager
async def read_store(settings: Settings) -> AsyncIterator[Store | None]:
    """Open the database as it lies there, to read from it; None where there is none.

    No folder is made, nothing is upgraded, and nobody writes.

    Raises:
        StorageUnavailable: It is of another version, or cannot be read.
    """
    if not await asyncio.to_thread(has_database, settings):
        yield None
        return
    await asyncio.to_thread(check_revision, settings)
    database = open_database(settings)
    try:
        yield store_over(settings, database, time.time())
    finally:
        await database.aclose()


def store_over(
    settings: Settings, database: Database, now: float, tracer: Tracer | None = None
) -> Store:
    """Put together what works on an open database."""
    database.watch = metrics = Metrics(tracer)
    return Store(
        settings=settings,
        database=database,
        personas=PersonaStore(database),
        conversations=ConversationStore(database),
        sessions=SessionStore(database, settings.sessions.kept_s),
        tokens=TokenStore(database),
        memory_store=MemoryStore(database),
        memory_changes=MemoryChanges(database),
        laws=laws_of(settings),
        metrics=metrics,
        limits=Limits(settings.limits, database),
        started_at=now,
    )


def laws_of(settings: Settings) -> Laws:
    """Collect the constants that exchanges are computed with."""
    return Laws(
        effects=EffectParams(settings.relationships, settings.emotions, settings.interaction),
        continuation=settings.continuation,
        importance=settings.importance,
        prompts=settings.prompts,
        summaries=settings.summaries,
    )
