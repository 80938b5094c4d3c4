"""The composition root: opens every part from the settings, and takes an exchange from end to end.

The way of a message: `Service.chat` -> `graphs/conversation.py` -> `nodes/`.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from persona_mcp.config.checkpoints import PersonaSqliteSaver, open_checkpointer
from persona_mcp.config.database import ready_database
from persona_mcp.config.embedder import open_embedder
from persona_mcp.config.index import open_index
from persona_mcp.config.llm import open_model
from persona_mcp.config.persona_files import bundled_personas
from persona_mcp.config.settings import Settings
from persona_mcp.graphs.conversation import build_conversation
from persona_mcp.nodes.parts import Laws, Limits, Parts
from persona_mcp.server.runs import ChatRequest, Run, guarded
from persona_mcp.server.wire import problem_of
from persona_mcp.state.conversations import ConversationStore
from persona_mcp.state.correlation import current_correlation_id
from persona_mcp.state.database import Database
from persona_mcp.state.effects import EffectParams
from persona_mcp.state.embedding import Embedder
from persona_mcp.state.errors import Conflict, InternalError, InvalidParams, PersonaError
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.exchanges import ExchangeStore, Lease, Request
from persona_mcp.state.ids import new_id, thread_id
from persona_mcp.state.indexer import Indexer, IndexerLimits
from persona_mcp.state.liveness import Liveness
from persona_mcp.state.local_appraiser import LocalAppraiser
from persona_mcp.state.memory_search import MemorySearch
from persona_mcp.state.model import ChatModel
from persona_mcp.state.persona import Persona
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.vector_index import VectorIndex

log = structlog.get_logger(__name__)

GRAPH = "conversation"
LEASE_SHARE = 3
"""A lease is renewed this many times within its length."""
LOOK_S = 0.05
"""How often a lease that another run holds is looked at, in seconds."""


@dataclass(frozen=True)
class Service:
    """Every live part of the product; made by `open_service`."""

    settings: Settings
    database: Database
    personas: PersonaStore
    conversations: ConversationStore
    exchanges: ExchangeStore
    memories: MemorySearch
    indexer: Indexer
    index: VectorIndex
    embedder: Embedder
    model: ChatModel
    parts: Parts
    graph: Any
    checkpointer: PersonaSqliteSaver
    process: str
    started_at: float
    runs: dict[tuple[str, str], Run]

    async def chat(self, request: ChatRequest) -> tuple[Run, Exchange]:
        """Accept a message and begin its run; the same request id finds the run or the reply again.

        Returns:
            The run to follow, and the exchange as it was accepted.

        Raises:
            NotFound: The persona or the conversation is not there.
            Conflict: The request id was used for something else.
        """
        persona = await self.personas.resolve(request.world_id, request.persona)
        conversation_id = request.conversation_id
        if conversation_id is not None:
            await self._check_partner(request.world_id, conversation_id, persona)
        exchange = await self.exchanges.accept(
            Request(
                world_id=request.world_id,
                conversation_id=conversation_id or new_id(),
                persona_id=persona.id,
                user_id=request.user_id,
                request_id=request.request_id or new_id(),
                message=request.message,
                parameters={
                    **request.context.model_dump(),
                    "conversation_id": conversation_id,
                },
                starts=conversation_id is None,
            ),
            new_id(),
            self.process,
            current_correlation_id(),
            time.time(),
        )
        return self._run(request, exchange), exchange

    async def _check_partner(self, world_id: str, conversation_id: str, persona: Persona) -> None:
        found = await self.conversations.get(world_id, conversation_id)
        if found.persona_id != persona.id:
            allowed = f"{found.persona_id}, who this conversation is with"
            fault = {"field": "persona_id", "allowed": allowed, "given": persona.id}
            raise InvalidParams.of([fault])

    def _run(self, request: ChatRequest, exchange: Exchange) -> Run:
        key = (request.world_id, exchange.id)
        run = self.runs.get(key)
        if run is None:
            run = self.runs[key] = Run(exchange.id)
            run.start(self._carry_out(run, request, exchange), lambda: self._forget(key))
        return run

    def _forget(self, key: tuple[str, str]) -> None:
        del self.runs[key]

    async def _carry_out(
        self, run: Run, request: ChatRequest, exchange: Exchange
    ) -> dict[str, Any]:
        """Run an exchange to its end, or wait for the process that does."""
        run.emit(
            "started",
            exchange_id=exchange.id,
            conversation_id=exchange.conversation_id,
            request_id=exchange.request_id,
        )
        if exchange.status == "done":
            return {"exchange": exchange}
        lease = Lease(request.world_id, exchange.conversation_id, exchange.id, self.process)
        try:
            if not await self._claim(lease):
                return {"exchange": await self.exchanges.get(request.world_id, exchange.id)}
            await self._guarded(run, request, lease)
        except asyncio.CancelledError:
            await asyncio.shield(self._end(run, lease, None))
            raise
        except PersonaError as error:
            await self._end(run, lease, error)
            raise
        except Exception as error:
            log.exception("exchange failed", exchange_id=exchange.id)
            ours = InternalError("something went wrong on our side; the log has the cause")
            await self._end(run, lease, ours)
            raise ours from error
        return {"exchange": await self.exchanges.get(request.world_id, exchange.id)}

    async def _claim(self, lease: Lease) -> bool:
        """Take the conversation, waiting for other runs; False if another process did the work.

        Raises:
            Conflict: Another run did not end within `conversation.busy_wait_s`.
        """
        limits = self.settings.conversation
        deadline = time.monotonic() + limits.busy_wait_s
        while not await self.exchanges.claim(lease, limits.lease_s, time.time()):
            if (await self.exchanges.get(lease.world_id, lease.exchange_id)).status == "done":
                return False
            if time.monotonic() >= deadline:
                raise Conflict(
                    f"conversation '{lease.conversation_id}' is busy: another message has been "
                    f"answered for {limits.busy_wait_s:g} s; send it again with the same request_id",
                    conversation_id=lease.conversation_id,
                    retry_after_seconds=limits.lease_s,
                )
            await asyncio.sleep(LOOK_S)
        return True

    async def _guarded(self, run: Run, request: ChatRequest, lease: Lease) -> None:
        """Run the graph while the lease is kept alive; losing the lease stops the graph."""
        await guarded(self._run_graph(run, request, lease), self._keep(lease))
        await self.exchanges.let_go(lease)

    async def _keep(self, lease: Lease) -> None:
        length = self.settings.conversation.lease_s
        while True:
            await asyncio.sleep(length / LEASE_SHARE)
            if not await self.exchanges.renew(lease, length, time.time()):
                raise Conflict("another run took the conversation; send it again")

    async def _run_graph(self, run: Run, request: ChatRequest, lease: Lease) -> None:
        conversation = await self.conversations.get(lease.world_id, lease.conversation_id)
        thread = thread_id(lease.world_id, lease.conversation_id)
        config = {
            "configurable": {"thread_id": thread},
            "recursion_limit": self.settings.conversation.recursion_limit,
            "metadata": {"graph_id": GRAPH},
        }
        started = {
            "world_id": lease.world_id,
            "conversation_id": lease.conversation_id,
            "exchange_id": lease.exchange_id,
            "message": request.message,
            "follows": conversation.head_exchange_id,
        }
        events = self.graph.astream(
            started,
            config,
            context=request.context.model_dump(),
            durability="exit",
            stream_mode="custom",
        )
        async with aclosing(events):
            async for event in events:
                run.emit(event.pop("event"), **event)
        with contextlib.suppress(OSError, sqlite3.Error):  # the exchange is stored; this can wait
            await self.checkpointer.akeep(thread, self.settings.database.checkpoints_kept)

    async def _end(self, run: Run, lease: Lease, error: PersonaError | None) -> None:
        """Keep what became of an exchange that was not done."""
        try:
            await self.exchanges.end(
                lease,
                "failed" if error else "cancelled",
                time.time(),
                problem_of(error) if error else None,
                run.partial,
            )
        except PersonaError as second:
            log.warning("exchange not marked", exchange_id=lease.exchange_id, reason=second.message)

    async def stop(self) -> None:
        """Stop every run and wait for them."""
        await asyncio.gather(*(run.cancel() for run in list(self.runs.values())))


@asynccontextmanager
async def open_service(
    settings: Settings, model: ChatModel | None = None, embedder: Embedder | None = None
) -> AsyncIterator[Service]:
    """Open everything; the database is upgraded and the default world made first.

    Args:
        settings: What to open.
        model: In place of the one that the settings name (tests, recordings).
        embedder: Likewise.

    Raises:
        StorageUnavailable: The data folder cannot be used.
    """
    async with AsyncExitStack() as stack:
        database = await ready_database(settings)
        stack.push_async_callback(database.aclose)
        liveness = Liveness(settings.data_dir / "processes")
        stack.callback(liveness.close)
        personas = PersonaStore(database)
        await personas.ensure_world(settings.world, settings.world, bundled_personas(), time.time())
        model = model or open_model(settings.llm)
        stack.push_async_callback(model.aclose)
        embedder = embedder or open_embedder(settings.embedder)
        stack.push_async_callback(embedder.aclose)
        index = await open_index(settings, database, embedder.model_id)
        stack.push_async_callback(index.aclose)
        indexer = Indexer(
            database,
            index,
            embedder,
            IndexerLimits(
                settings.index.batch,
                settings.index.claim_s,
                settings.index.poll_s,
                settings.index.attempts,
            ),
            liveness.owner,
            liveness.is_gone,
            time.time,
        )
        memories = MemorySearch(database, index, embedder, indexer, settings.retrieval)
        checkpointer = await stack.enter_async_context(open_checkpointer(settings))
        parts = Parts(
            database=database,
            memories=memories,
            model=model,
            appraiser=LocalAppraiser(embedder),
            laws=laws_of(settings),
            limits=Limits(
                settings.conversation.window_turns,
                settings.retrieval.recalled,
                settings.conversation.attempts,
            ),
            process=liveness.owner,
            now=time.time,
            written=indexer.wake,
        )
        service = Service(
            settings=settings,
            database=database,
            personas=personas,
            conversations=ConversationStore(database),
            exchanges=ExchangeStore(database, liveness.is_gone),
            memories=memories,
            indexer=indexer,
            index=index,
            embedder=embedder,
            model=model,
            parts=parts,
            graph=build_conversation(parts).compile(checkpointer=checkpointer, name=GRAPH),
            checkpointer=checkpointer,
            process=liveness.owner,
            started_at=time.time(),
            runs={},
        )
        await service.exchanges.sweep(settings.world, time.time())
        await drain(indexer, settings.index.drain_s)
        worker = asyncio.create_task(indexer.run(), name="outbox worker")
        stack.push_async_callback(stop_worker, worker)
        stack.push_async_callback(service.stop)
        yield service


def laws_of(settings: Settings) -> Laws:
    """Collect the constants that exchanges are computed with."""
    return Laws(
        effects=EffectParams(settings.relationships, settings.emotions, settings.interaction),
        continuation=settings.continuation,
        importance=settings.importance,
        prompts=settings.prompts,
    )


async def drain(indexer: Indexer, limit_s: float) -> None:
    """Index what earlier processes left over, within a limit; words find the rest meanwhile."""
    with contextlib.suppress(PersonaError, TimeoutError):
        async with asyncio.timeout(limit_s):
            while await indexer.work_off():
                pass


async def stop_worker(worker: asyncio.Task[None]) -> None:
    """Stop a task and wait for it."""
    worker.cancel()
    await asyncio.wait([worker])
