"""One batch of a world, held in its folder from wherever it was left to its outputs."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from persona_mcp.config.postgres import is_postgres
from persona_mcp.config.settings import Settings
from persona_mcp.server.batch.batches import Summary, run_batch
from persona_mcp.server.batch.borrowed_model import BorrowedEmbedder, Paused, borrowed_pool
from persona_mcp.server.batch.cast import cast_of
from persona_mcp.server.batch.casts import Casts, read_casts
from persona_mcp.server.batch.course import Course
from persona_mcp.server.batch.dialogue_host import dialogue_host
from persona_mcp.server.batch.folder import BatchFolder, batch_path, begin_folder
from persona_mcp.server.batch.local_engine import LocalEngine
from persona_mcp.server.batch.results import BEGUN, finish
from persona_mcp.server.batch.settings import Begun, as_begun, begun_with
from persona_mcp.server.batch.store import BatchStore
from persona_mcp.server.batch.worlds import Worlds
from persona_mcp.state.batch.faults import spec_of
from persona_mcp.state.batch.kept_batch import KeptBatch
from persona_mcp.state.batch.kept_batches import BatchRows
from persona_mcp.state.batch.naming import as_in_world
from persona_mcp.state.batch.plan import BatchPlan, plan_batch
from persona_mcp.state.batch.values import Outcome
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.errors import NotConfigured, PersonaError, StorageUnavailable
from persona_mcp.state.folding import fold_into
from persona_mcp.state.model import ChatModel
from persona_mcp.state.snapshots.file import canonical

if TYPE_CHECKING:
    from persona_mcp.server.store import Store

KEPT_AT_ONCE = 20
"""Dialogues that become part of a world in one transaction: others write in between."""


@dataclass(frozen=True)
class Lent:
    """What this process holds batches with.

    Attributes:
        store: What is kept, and the settings.
        model: Its own, which chats use at the same time.
        embedder: Likewise.
    """

    store: "Store"
    model: ChatModel
    embedder: Embedder

    @property
    def settings(self) -> Settings:
        """The settings in effect."""
        return self.store.settings


def written(spec: Mapping[str, Any]) -> bytes:
    """Write a specification as its file: canonical JSON, which is YAML too."""
    return canonical(spec) + b"\n"


@dataclass(frozen=True)
class Opened:
    """A batch whose folder this process has locked.

    Attributes:
        batch: Its row.
        folder: Its folder.
        plan: What is to be held.
        lent: What it is held with.
        settings: Those in effect, and of what dialogues depend on, those that it was begun with.
    """

    batch: KeptBatch
    folder: BatchFolder
    plan: BatchPlan
    lent: Lent
    settings: Settings

    async def course(self) -> Course:
        """Return how far it is, to be counted on."""
        tokens = await asyncio.to_thread(tokens_in, self.folder.store)
        return Course(self.plan.total, self.plan.turns_max, tokens)

    async def hold(self, course: Course, stopping: asyncio.Event) -> Summary:
        """Hold what is left of it; the outputs are written once everything was held.

        Args:
            course: Is told what happens.
            stopping: Once set, dialogues end where their turn ends.

        Raises:
            StorageUnavailable: Its folder or the database cannot be read or written.
            PersonaError: It could not be begun. A dialogue that fails is an outcome.
            Waits: Its caller's limits say to come back later.
        """
        settings, places = self.settings, self.settings.dialogues.at_once
        host = dialogue_host(settings, BorrowedEmbedder(self.lent.embedder))
        paused: Paused = asyncio.get_running_loop().create_future()
        pool = borrowed_pool(self.lent.model, places, paused)
        engine = LocalEngine(host, pool, places, self.folder.store.keep_call)
        try:
            casts = await self._casts()
            store, worlds = self.folder.store, Worlds(host)
            work = run_batch(self.plan, casts, store, engine, worlds, course.told, stopping)
            summary = await unless_paused(work, paused)
        finally:
            await engine.aclose()
        if summary.complete and not self.folder.finished:
            await finish(self.folder, self.plan, casts, settings)
        return summary

    async def _casts(self) -> Casts:
        """Read who is cast: from the folder, or from the world as it stands now."""
        kept = await asyncio.to_thread(self.folder.casts)
        if kept is not None:
            return kept
        store, world_id = self.lent.store, self.batch.world_id
        casts = await read_casts(
            self.plan.arms, lambda arm: cast_of(arm.spec, None, store, world_id)
        )
        await asyncio.to_thread(self.folder.write_casts, casts)
        return casts

    async def first_error(self) -> dict[str, Any]:
        """Return what the first of its dialogues failed with, as a problem."""
        failed = await self.folder.store.places_failed()
        outcome = await self.folder.store.outcome(failed[0])
        assert outcome is not None
        return dict(outcome.error or {})

    async def become_part(self, rows: BatchRows, now: float) -> None:
        """Make what happened in it part of its world, some dialogues at a time.

        Those that are part of it already are left alone. One that failed does not become part.

        Args:
            rows: Sees to it that the batch is still this process's.
            now: Seconds since the epoch, UTC.

        Raises:
            NotFound: One of its personas is not there any more.
            BatchLost: Another process holds it.
        """
        for first in range(0, self.plan.total, KEPT_AT_ONCE):
            last = first + KEPT_AT_ONCE - 1
            outcomes = await asyncio.to_thread(self._done, first, last)

            def fold(connection: Connection, those: list[Outcome] = outcomes) -> None:
                laws, embedder = self.lent.store.laws.effects, self.lent.embedder.model_id
                fold_into(connection, self.batch.world_id, those, laws, embedder, now)

            await rows.hold(self.batch, fold)
            self.lent.store.wake()
        await rows.mark_kept(self.batch, now)

    def _done(self, first: int, last: int) -> list[Outcome]:
        with closing(self.folder.store.outcomes(first, last)) as found:
            return [as_in_world(one, self.batch.id) for one in found if one.status == "done"]


class Waits(Exception):
    """A batch that was begun cannot be gone on with now; another time it may.

    Attributes:
        error: Why.
    """

    def __init__(self, error: PersonaError) -> None:
        """Wait because of this."""
        super().__init__(error.message)
        self.error = error


async def unless_paused(work: Coroutine[Any, Any, Summary], paused: Paused) -> Summary:
    """Do the work; it is cut off, to be gone on with, where it cannot go on for long.

    Raises:
        Waits: It was.
    """
    task = asyncio.create_task(work, name="batch")
    try:
        ways: tuple[asyncio.Future[Any], ...] = (task, paused)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Waits(paused.result())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def open_batch(batch: KeptBatch, lent: Lent) -> AsyncIterator[Opened]:
    """Lock a batch's folder, and read what it was begun with; the folder is made if need be.

    Raises:
        Conflict: Another process works in it.
        StorageUnavailable: It cannot be used.
        ModelError: The model does not answer.
        Waits: It was begun with another model or embedder, or in the data folder of another
            server; or the model does not answer.
    """
    path = batch_path(lent.settings.data_dir, batch.world_id, batch.id)
    if batch.progress.turns_done and is_postgres(lent.settings) and not path.exists():
        raise Waits(
            StorageUnavailable(
                "it was begun by a server with another data folder: that one goes on with it, or "
                "let all servers share the folder `dialogues`; or cancel it"
            )
        )
    async with begin_folder(path, written(batch.spec), resume=True) as folder:
        plan = await asyncio.to_thread(lambda: plan_batch(spec_of(batch.spec)))
        begun: Begun | None = await folder.store.fact(BEGUN)
        if begun is None:
            model = (await lent.model.info()).id
            begun = begun_with(lent.settings, lent.embedder.model_id, model)
            await folder.store.note_fact(BEGUN, begun)
        elif not folder.finished:
            await check_same(begun, lent)
        yield Opened(batch, folder, plan, lent, as_begun(lent.settings, begun))


async def check_same(begun: Begun, lent: Lent) -> None:
    """See to it that a batch is gone on with by the model and embedder that began it.

    Raises:
        Waits: Others are set now, or the model does not answer.
    """
    try:
        model = (await lent.model.info()).id
    except PersonaError as error:
        raise Waits(error) from error
    for name, now in (("embedder", lent.embedder.model_id), ("model", model)):
        if begun[name] != now:
            told = f"it was begun with the {name} {begun[name]}, and now {now} is set"
            raise Waits(NotConfigured(f"{told}; set the other one again, or cancel it"))


def tokens_in(store: BatchStore) -> int:
    """Add up the tokens of the dialogues that are over; blocks."""
    return round(sum(measured.get("tokens", 0.0) for _, measured in store.timings()))
