"""A batch in its folder from beginning to end: begun or gone on with, held, results written."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.batches import Summary, Told, run_batch
from persona_mcp.server.batch.casts import Casts, read_casts
from persona_mcp.server.batch.dialogue_host import DialogueHost, dialogue_host
from persona_mcp.server.batch.folder import CAST, BatchFolder, begin_folder
from persona_mcp.server.batch.local_engine import LocalEngine, Made
from persona_mcp.server.batch.manifest import changed_files, read_manifest
from persona_mcp.server.batch.model_pool import ModelPool, open_pool
from persona_mcp.server.batch.process_crew import open_processes
from persona_mcp.server.batch.results import BEGUN, finish
from persona_mcp.server.batch.retry import retry_failed
from persona_mcp.server.batch.settings import (
    as_begun,
    begun_with,
    check_embedder,
    check_model,
    check_name,
)
from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.state.batch.plan import Arm, BatchPlan
from persona_mcp.state.batch.values import Cast, Engine
from persona_mcp.state.dialogue_spec import ModelSpec
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.errors import BadSnapshot, StorageUnavailable

EngineName = Literal["local", "processes", "ray"]
ReadCast = Callable[[Arm], Awaitable[Cast]]


@dataclass(frozen=True)
class How:
    """How a batch is run; nothing of it bears on what comes of it.

    Attributes:
        workers: Dialogues held at once, or workers of the other engines; None for enough.
        engine: Where dialogues are held.
        resume: What was begun in the folder may be gone on with.
        retry_failed: It is, and what failed is held again.
        force: Another batch in the folder is thrown away.
    """

    workers: int | None = None
    engine: EngineName = "local"
    resume: bool = False
    retry_failed: bool = False
    force: bool = False


@dataclass(frozen=True)
class Asked:
    """A batch that is to be run.

    Attributes:
        spec: The specification's bytes, as they were given.
        plan: What it asks for.
        read_cast: Reads who is cast in an arm; asked once, when the batch is begun.
        model: Who writes the replies.
        settings: In effect; what dialogues depend on is kept when the batch is begun.
        embedder: In place of the one of the settings.
    """

    spec: bytes
    plan: BatchPlan
    read_cast: ReadCast
    model: ModelSpec
    settings: Settings
    embedder: Embedder | None = None


async def run_in_folder(
    path: Path, asked: Asked, how: How, told: Told, stopping: asyncio.Event
) -> Summary:
    """Run a batch in a folder to its end, or until it is asked to stop.

    Raises:
        Conflict: The folder holds something else, or this batch and is not to be gone on with; or
            another model or embedder would go on with it.
        PersonaError: No model answers, the cast cannot be read, or results cannot be written.
    """
    resume = how.resume or how.retry_failed
    async with begin_folder(path, asked.spec, resume=resume, force=how.force) as folder:
        counts = await folder.store.counts()
        if folder.finished and not (how.retry_failed and counts.failed):
            check_name(await folder.store.fact(BEGUN), asked.model.name)
            if how.resume and await asyncio.to_thread(is_damaged, folder.path):
                await written_again(folder, asked)
            total = asked.plan.total
            return Summary(
                total, counts.done, counts.failed, counts.turns, counts.calls, False, 0.0, 0.0
            )
        return await hold_in(folder, asked, how, told, stopping)


def is_damaged(path: Path) -> bool:
    """Tell whether a file of a finished batch is not as it was written. Blocks."""
    try:
        return bool(changed_files(path, read_manifest(path)))
    except BadSnapshot:
        return True


async def written_again(folder: BatchFolder, asked: Asked) -> None:
    """Write the results of a finished batch from its store; no model is asked.

    Raises:
        StorageUnavailable: The store cannot be read, or the folder cannot be written.
    """
    casts, begun = await asyncio.to_thread(folder.casts), await folder.store.fact(BEGUN)
    if casts is None or begun is None:
        raise StorageUnavailable(
            f"a file of '{folder.path.name}' is damaged, and {CAST} or what it was begun with is "
            "gone, of which it would be made again; run the batch anew with another --out"
        )
    await finish(folder, asked.plan, casts, as_begun(asked.settings, begun))


async def hold_in(
    folder: BatchFolder, asked: Asked, how: How, told: Told, stopping: asyncio.Event
) -> Summary:
    """Hold what is left of a batch in its folder, and write its results if nothing is left.

    Raises:
        PersonaError: As `run_in_folder`.
    """
    store, plan = folder.store, asked.plan
    begun = await store.fact(BEGUN)
    settings = asked.settings if begun is None else as_begun(asked.settings, begun)
    casts = await cast_in(folder, asked)
    async with open_parts(asked, settings) as (host, pool):
        embedder, model = host.embedder.model_id, (await pool.info()).id
        if begun is None:
            await store.note_fact(BEGUN, begun_with(settings, embedder, model))
        else:
            check_embedder(begun, embedder)
            check_model(begun, model)
        if how.retry_failed:
            await asyncio.to_thread(folder.reopen)
            await retry_failed(plan, store, settings.conversation.attempts)
        worlds = Worlds(host)
        engine = await engine_for(how, asked, settings, host, pool, store.keep_call)
        try:
            summary = await run_batch(plan, casts, store, engine, worlds, told, stopping)
        finally:
            await engine.aclose()
    if summary.complete:
        await finish(folder, plan, casts, settings)
    return summary


@asynccontextmanager
async def open_parts(
    asked: Asked, settings: Settings
) -> AsyncIterator[tuple[DialogueHost, ModelPool]]:
    """Open what dialogues are held with in this process."""
    host = dialogue_host(settings, asked.embedder)
    pool = open_pool(settings.llm, asked.model)
    try:
        yield host, pool
    finally:
        await pool.aclose()
        await host.aclose()


async def engine_for(
    how: How,
    asked: Asked,
    settings: Settings,
    host: DialogueHost,
    pool: ModelPool,
    made: Made,
) -> Engine:
    """Open where dialogues are held.

    Raises:
        NotConfigured: A worker did not start, or Ray is not installed or does not start.
    """
    if how.engine == "local":
        return LocalEngine(host, pool, how.workers, made)
    if how.engine == "processes":
        return await open_processes(settings, asked.model, asked.plan.total, how.workers, made)
    from persona_mcp.server.batch.ray_cluster import open_ray  # noqa: PLC0415 - an extra

    return await open_ray(settings, asked.model, asked.plan.total, how.workers, made)


async def cast_in(folder: BatchFolder, asked: Asked) -> Casts:
    """Return who is cast: as it was when the batch was begun, else read now and kept.

    Raises:
        PersonaError: Somebody cannot be read.
    """
    casts = await asyncio.to_thread(folder.casts)
    if casts is None:
        casts = await read_casts(asked.plan.arms, asked.read_cast)
        await asyncio.to_thread(folder.write_casts, casts)
    return casts
