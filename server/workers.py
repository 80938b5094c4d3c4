"""The background workers of a process: made from the settings, drained, and stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from persona_mcp.config.postgres import is_postgres
from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.holding import Lent
from persona_mcp.server.batch.jobs import BatchJobs
from persona_mcp.server.store import Store
from persona_mcp.server.upkeep import Upkeep
from persona_mcp.state.batch.kept_batches import BatchRows
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.errors import PersonaError, StorageUnavailable
from persona_mcp.state.index.indexer import Indexer, IndexerLimits
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.liveness import Liveness
from persona_mcp.state.memory.merging import Merging
from persona_mcp.state.memory.prune_store import Laws
from persona_mcp.state.memory.upkeep_store import UpkeepStore
from persona_mcp.state.model import ChatModel
from persona_mcp.state.presence import Presence
from persona_mcp.state.worker import Worker

log = structlog.get_logger(__name__)


@asynccontextmanager
async def alive(settings: Settings, database: Database) -> AsyncIterator[Liveness]:
    """Show this process as alive, to those on its data folder and to those on its database.

    Raises:
        StorageUnavailable: The database did not answer.
    """
    liveness = await asyncio.to_thread(Liveness, settings.data_dir / "processes")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, liveness.close)
        if is_postgres(settings):
            presence = Presence(database, liveness.owner, settings.database.gone_s)
            await presence.turn()
            liveness.ask(presence)
            stack.push_async_callback(say_ended, presence)
            beating = asyncio.create_task(presence.run(), name="signs of life")
            stack.push_async_callback(stop_worker, presence, beating, settings.database.connect_s)
        yield liveness


async def say_ended(presence: Presence) -> None:
    """Say that this process ends, where anybody can hear it; else its silence says it."""
    try:
        await presence.end()
    except StorageUnavailable as error:
        log.warning("the end of this process is not told", reason=error.message)


def indexer_of(
    settings: Settings,
    database: Database,
    index: SyncedIndex,
    embedder: Embedder,
    liveness: Liveness,
) -> Indexer:
    """Make the outbox worker of this process."""
    chosen = settings.index
    limits = IndexerLimits(chosen.batch, chosen.claim_s, chosen.poll_s, chosen.attempts)
    owner, is_gone = liveness.owner, liveness.is_gone
    return Indexer(database, index, embedder, limits, owner, is_gone, liveness.now)


def upkeep_of(store: Store, model_id: str, liveness: Liveness) -> Upkeep:
    """Make the background upkeep of this process."""
    settings = store.settings
    laws = Laws(settings.retention, settings.pruning)
    merging = Merging(model_id, settings.consolidation)
    upkeep = UpkeepStore(store.database, laws, merging, liveness.owner, liveness.is_gone)
    return Upkeep(upkeep, store.personas, settings.upkeep, liveness.now, store.metrics.kept_up)


def batches_of(store: Store, model: ChatModel, embedder: Embedder, liveness: Liveness) -> BatchJobs:
    """Make what holds batches of dialogues in this process."""
    lease_s = store.settings.dialogues.lease_s
    rows = BatchRows(store.database, liveness.owner, liveness.is_gone, lease_s)
    return BatchJobs(rows, Lent(store, model, embedder), liveness.now)


async def drain(indexer: Indexer, limit_s: float) -> None:
    """Index what earlier processes left over, within a limit; words find the rest meanwhile."""
    try:
        async with asyncio.timeout(limit_s):
            while await indexer.work_off():
                pass
    except TimeoutError:
        return
    except Exception:  # as in the worker: a row that cannot be embedded must not stop the start
        log.exception("what was left over is not indexed yet")


async def stop_summaries(summing: asyncio.Task[None], limit_s: float) -> None:
    """Stop what is being summed up: it is made when the conversation goes on."""
    summing.cancel()
    await asyncio.wait([summing], timeout=limit_s)


@asynccontextmanager
async def noting_spending(store: Store) -> AsyncIterator[None]:
    """Write down what callers use of the model while the block lasts, and at its end the rest."""
    spending = store.limits.spending
    noting = asyncio.create_task(spending.run(), name="spending")
    try:
        yield
    finally:
        await stop_worker(spending, noting, store.settings.index.drain_s)
        try:
            await spending.turn()
        except PersonaError as error:
            log.warning("tokens not written down", reason=error.message)


def begin_worker(stack: AsyncExitStack, works: Worker, name: str, limit_s: float) -> None:
    """Have a background worker work until the stack is closed, and then end within a limit."""
    task = asyncio.create_task(works.run(), name=name)
    stack.push_async_callback(stop_worker, works, task, limit_s)


async def stop_worker(works: Worker, worker: asyncio.Task[None], limit_s: float) -> None:
    """Let a background worker end what it is at, within a limit that began when it was asked to."""
    works.stop()
    await asyncio.wait([worker], timeout=max(0.0, limit_s - works.stopping_s))
    worker.cancel()
    await asyncio.wait([worker], timeout=limit_s)
