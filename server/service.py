"""The composition root: opens every part from the settings, and takes an exchange from end to end.

The way of a message: `Service.chat` -> `graphs/conversation.py` -> `nodes/`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection

from persona_mcp.config.checkpoints import open_checkpointer
from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.index import open_index
from persona_mcp.config.llm import open_model
from persona_mcp.config.saver import PersonaSaver
from persona_mcp.config.settings import Settings
from persona_mcp.config.tracing import open_tracer
from persona_mcp.nodes.parts import Parts
from persona_mcp.nodes.summarising import sum_up
from persona_mcp.server.batch.jobs import BatchJobs
from persona_mcp.server.chat_requests import accept, lease_for
from persona_mcp.server.gathering import Gathering
from persona_mcp.server.graph_making import Graphs, graphs_of, parts_of
from persona_mcp.server.graph_runs import forget_run, keep_lease, run_graph, started_with
from persona_mcp.server.measured import MeasuredEmbedder
from persona_mcp.server.metered_model import metered
from persona_mcp.server.probing import Probe
from persona_mcp.server.runs import ChatRequest, Run, Runs, guarded, within
from persona_mcp.server.stopping import check_ours
from persona_mcp.server.store import Store, open_store
from persona_mcp.server.summaries import Summaries
from persona_mcp.server.upkeep import Upkeep
from persona_mcp.server.wire import problem_of
from persona_mcp.server.workers import (
    alive,
    batches_of,
    begin_worker,
    drain,
    indexer_of,
    noting_spending,
    stop_summaries,
    upkeep_of,
)
from persona_mcp.state.answers import AnswerStore
from persona_mcp.state.dialogues import busy
from persona_mcp.state.embedding import Embedder, RecentQueries
from persona_mcp.state.errors import (
    Cancelled,
    Conflict,
    InternalError,
    NotFound,
    PersonaError,
    StorageUnavailable,
)
from persona_mcp.state.exchange import Exchange, ExchangeStatus
from persona_mcp.state.exchanges import ExchangeStore, Lease
from persona_mcp.state.index.indexer import Indexer
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.memory.held import HeldMemories
from persona_mcp.state.memory.search import MemorySearch
from persona_mcp.state.model import ChatModel
from persona_mcp.state.watching import Tracer

if TYPE_CHECKING:
    from langgraph.types import Durability

log = structlog.get_logger(__name__)

LOOK_S, LONGEST_LOOK_S = 0.05, 0.4
"""How often a lease that another run holds is looked at, at first and at last, in seconds."""


@dataclass(frozen=True)
class Service(Store):
    """Every live part of the product; made by `open_service`."""

    exchanges: ExchangeStore
    answers: AnswerStore
    memories: MemorySearch
    indexer: Indexer
    index: SyncedIndex
    embedder: Embedder
    model: ChatModel
    parts: Parts
    graphs: Graphs
    checkpointer: PersonaSaver
    process: str
    now: Callable[[], float]
    """The clock that leases are held by."""
    runs: Runs
    summaries: Summaries
    upkeep: Upkeep
    probe: Probe
    batches: BatchJobs
    gathering: Gathering

    async def count_waiting(self) -> None:
        """Note in the metrics how much there is, and how much waits now."""
        await self.gathering.refresh(self)

    def wake(self) -> None:
        """Say that there is work for the outbox worker or the upkeep."""
        self.indexer.wake()
        self.upkeep.wake()

    async def stop_runs(self, world_id: str, exchange_ids: Collection[str]) -> None:
        """Stop making the replies of exchanges whose persona is deleted, the model's work too."""
        its = [r for r in self.runs if r.world_id == world_id and r.exchange_id in exchange_ids]
        await asyncio.gather(*(run.cancel("deleted") for run in its))

    async def chat(self, request: ChatRequest) -> tuple[Run, Exchange]:
        """Accept a message and begin its run; the same request id finds the run or the reply again.

        Returns:
            The run to follow, and the exchange as it was accepted.

        Raises:
            NotFound: The persona or the conversation is not there.
            InvalidParams: The conversation is not of these two.
            Conflict: The request id was used for something else.
            StorageUnavailable: The server is going down, and makes no such reply now.
        """
        await check_ours(self, request)
        lease = lease_for(request, self.process)
        until = self.now() + self.settings.conversation.lease_s
        accepted = list[Exchange]()

        def write(connection: Connection) -> Exchange:
            accepted.append(accept(connection, request, lease, until))
            return accepted[0]

        try:
            exchange = await self.database.write(write)
            own = exchange if exchange.id == lease.exchange_id else None
            run = self.runs.start(
                request.world_id,
                exchange.id,
                lambda run: self.carry_out(
                    run, request.world_id, exchange, partial(self._answer, request, own)
                ),
            )
        except asyncio.CancelledError:
            if accepted:  # and maybe stored, the conversation taken, though nobody will run it
                await asyncio.shield(self._end(lease, "cancelled"))
            raise
        except StorageUnavailable:
            if accepted:
                self.exchanges.leave(lease)
            raise
        return run, exchange

    async def accept(self, request: ChatRequest) -> Exchange:
        """Write the exchange as pending, or find the one that has this request id.

        Raises:
            NotFound: The persona or the conversation is not there.
            InvalidParams: The conversation is not of these two.
            Conflict: The request id was used for something else.
        """
        return await self.database.write(accept, request, lease_for(request, self.process))

    async def carry_out(
        self,
        run: Run,
        world_id: str,
        exchange: Exchange,
        work: Callable[[Run, Lease], Awaitable[Exchange]],
        undone: ExchangeStatus | None = None,
    ) -> dict[str, Any]:
        """Do the work on an exchange within its limit, and return what became of it.

        Args:
            run: Tells of it.
            world_id: Where.
            exchange: As it was accepted.
            work: Takes the lease and does it.
            undone: What the exchange is if it is not done; None for failed or cancelled.

        Raises:
            PersonaError: What the work failed with; what was stored before that counts as done.
        """
        run.emit(
            "started",
            exchange_id=exchange.id,
            conversation_id=exchange.conversation_id,
            request_id=exchange.request_id,
        )
        if exchange.status == "done":
            run.repeats = True
            return {"exchange": exchange}
        lease = Lease(world_id, exchange.conversation_id, exchange.id, self.process)
        try:
            async with within(self.settings.conversation.total_s):
                done = await work(run, lease)
            self.metrics.exchanged("waiting" if done.status == "waiting" else "done")
            return {"exchange": done}
        except asyncio.CancelledError:
            self.metrics.exchanged("cancelled")
            await asyncio.shield(self._end(lease, undone or "cancelled", said=run.partial))
            raise
        except PersonaError as error:
            return {"exchange": await self._stored(run, lease, undone or "failed", error)}
        except Exception as error:
            log.exception("exchange failed", exchange_id=exchange.id)
            ours = InternalError()
            ours.__cause__ = error
            return {"exchange": await self._stored(run, lease, undone or "failed", ours)}

    async def _stored(
        self, run: Run, lease: Lease, status: ExchangeStatus, error: PersonaError
    ) -> Exchange:
        """Mark a run that failed; what failed after the exchange was stored is no failure of it.

        Raises:
            PersonaError: The error, if the exchange is not done.
        """
        await self._end(lease, status, error, run.partial)
        try:
            found = await self.exchanges.get(lease.world_id, lease.exchange_id)
        except NotFound:  # its world was emptied or deleted
            found = None
            await forget_run(self, lease)
        except PersonaError:
            found = None
        if isinstance(error, Conflict) and found and found.status == "cancelled" and found.error:
            raise Cancelled(found.error["message"], reason="deleted") from error
        if found is None or found.status != "done":
            self.metrics.exchanged("failed", error)
            raise error from error.__cause__
        self.metrics.exchanged("done")
        log.warning("failed after it was stored", exchange_id=found.id, reason=error.message)
        return found

    async def claim(
        self,
        lease: Lease,
        prompt_id: str | None = None,
        *,
        at_once: bool = False,
        after: Lease | None = None,
    ) -> Exchange:
        """Take the conversation, waiting for other runs, or taking it over from one of ours.

        Args:
            lease: What is taken.
            prompt_id: The prompt whose reply has come; None to begin.
            at_once: Do not wait.
            after: The lease that it takes over from, where we hold it still.

        Returns:
            The exchange as it runs now; or done, if another process did the work; or waiting for
            the reply to its prompt, where that is open and is not the one named.

        Raises:
            NotFound: The prompt is not open any more.
            Conflict: Another run did not end within `conversation.busy_wait_s`, or `at_once`.
        """
        limits = self.settings.conversation
        deadline, look_s = time.monotonic() + limits.busy_wait_s, LOOK_S
        while not (
            found := await self.exchanges.claim(lease, limits.lease_s, self.now(), prompt_id, after)
        ):
            while await self.exchanges.must_wait(lease, self.now()):
                if at_once or time.monotonic() >= deadline:
                    raise busy(lease.conversation_id, limits.lease_s)
                await asyncio.sleep(look_s)
                look_s = min(2 * look_s, LONGEST_LOOK_S)
        return found

    async def _answer(
        self, request: ChatRequest, own: Exchange | None, run: Run, lease: Lease
    ) -> Exchange:
        """Run the graph while the lease is kept alive; losing the lease stops the graph.

        A host's prompt is written down at each step, since what waits must survive a crash.

        Args:
            request: What is asked.
            own: The exchange that was made for it; it may hold the lease already. None where it
                was known before.
            run: Tells of it.
            lease: What it runs under.
        """
        is_held = own is not None and own.status == "running"
        exchange = own if own is not None and is_held else await self.claim(lease)
        if exchange.status != "running":
            run.repeats = True
            return exchange
        given = started_with(lease, exchange)
        durability: Durability = "sync" if request.context.host else "exit"
        work = run_graph(self, run, lease, exchange, given, request.context, durability)
        stored = await guarded(work, keep_lease(self, lease))
        return stored or await self.exchanges.let_go(lease)

    async def _end(
        self,
        lease: Lease,
        status: ExchangeStatus,
        error: PersonaError | None = None,
        said: str = "",
    ) -> None:
        """Keep what became of an exchange that was not done."""
        problem = problem_of(error) if error else None
        try:
            await self.exchanges.end(lease, status, time.time(), problem, said)
        except PersonaError as second:
            self.exchanges.leave(lease)
            log.warning("exchange not marked", exchange_id=lease.exchange_id, reason=second.message)


@asynccontextmanager
async def open_service(
    settings: Settings,
    model: ChatModel | None = None,
    embedder: Embedder | None = None,
    *,
    new_index: bool = False,
    holds_batches: bool = True,
    tracer: Tracer | None = None,
) -> AsyncIterator[Service]:
    """Open everything; the database is upgraded and the default world made first.

    Args:
        settings: What to open.
        model: In place of the one that the settings name (tests, recordings).
        embedder: Likewise.
        new_index: Begin with an empty index, also where the old one is damaged (a reindex).
        holds_batches: Hold dialogues in the background; false for who does one thing and ends.
        tracer: Writes spans, in place of the one that the settings ask for (tests).

    Raises:
        StorageUnavailable: The data folder cannot be used.
        NotConfigured: A setting asks for an extra that is not installed.
    """
    async with AsyncExitStack() as stack:
        tracer = tracer or await stack.enter_async_context(open_tracer(settings))
        store = await stack.enter_async_context(open_store(settings, tracer))
        database = store.database
        liveness = await stack.enter_async_context(alive(settings, database))
        limits, asked = settings.server, model or open_model(settings.llm)
        model = metered(store, asked)
        await stack.enter_async_context(noting_spending(store))
        stack.push_async_callback(model.aclose)
        opened_embedder = embedder or open_embedder(settings.embedder)
        embedder = RecentQueries(MeasuredEmbedder(opened_embedder, store.metrics))
        stack.push_async_callback(embedder.aclose)
        opened = await open_index(settings, database, embedder.model_id, anew=new_index)
        chosen = settings.index
        index = SyncedIndex(database, opened, embedder.model_id, chosen.batch, chosen.shards_cached)
        stack.push_async_callback(index.aclose)
        indexer = indexer_of(settings, database, index, embedder, liveness)
        held = HeldMemories(chosen.held_each, chosen.held)
        memories = MemorySearch(
            database, index, embedder, settings.retrieval, chosen.request_s, held
        )
        checkpointer = await stack.enter_async_context(open_checkpointer(settings))
        summaries = Summaries()
        parts = parts_of(store, memories, model, embedder, indexer, summaries, liveness.owner)
        service = Service(
            **vars(store),
            exchanges=ExchangeStore(database, liveness.is_gone),
            answers=AnswerStore(
                database, liveness.owner, liveness.is_gone, settings.conversation.busy_wait_s
            ),
            memories=memories,
            indexer=indexer,
            index=index,
            embedder=embedder,
            model=model,
            parts=parts,
            graphs=graphs_of(parts, checkpointer, store.metrics),
            checkpointer=checkpointer,
            process=liveness.owner,
            now=liveness.now,
            runs=Runs(limits.streams_kept_s, limits.streams_kept),
            summaries=summaries,
            upkeep=upkeep_of(store, embedder.model_id, liveness),
            probe=Probe(model, settings.llm.probe_s),
            batches=batches_of(store, model, embedder, liveness),
            gathering=Gathering(limits.metrics_s, limits.metrics_kept_s, asked),
        )
        await stack.enter_async_context(service.gathering.open(store.metrics))
        await service.exchanges.sweep(settings.world, liveness.now())
        await drain(indexer, settings.index.drain_s)
        await index.start()
        begin_worker(stack, indexer, "outbox worker", settings.index.drain_s)
        summing = asyncio.create_task(summaries.run(partial(sum_up, parts)), name="summaries")
        stack.push_async_callback(stop_summaries, summing, settings.index.drain_s)
        begin_worker(stack, service.upkeep, "upkeep", settings.index.drain_s)
        if holds_batches:
            begin_worker(stack, service.batches, "dialogues", settings.dialogues.stop_s)
        stack.push_async_callback(service.runs.stop)
        yield service
