"""A run of a graph of conversations, on its conversation's thread; `graph_making` compiles them."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from persona_mcp.nodes.events import STORED, heard_by
from persona_mcp.nodes.parts import ChatContext
from persona_mcp.server.runs import Run
from persona_mcp.state.errors import Conflict, StorageUnavailable
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import thread_id

if TYPE_CHECKING:
    from langgraph.types import Durability

    from persona_mcp.server.service import Service

GRAPH, DIALOGUE = "conversation", "dialogue"
SLACK = 10
"""One part in so many of the checkpoints may be too many, so that not every exchange deletes."""
LEASE_SHARE = 3
"""A lease is renewed this many times within its length."""


def config_of(service: "Service", lease: Lease, graph: str = GRAPH) -> dict[str, Any]:
    """Return a graph's configuration for a conversation."""
    return {
        "configurable": {"thread_id": thread_id(lease.world_id, lease.conversation_id)},
        "recursion_limit": service.settings.conversation.recursion_limit,
        "metadata": {"graph_id": graph},
    }


def started_with(lease: Lease, exchange: Exchange) -> dict[str, Any]:
    """Return what the conversation's graph is started with for an exchange that runs."""
    return {**which(lease, exchange), "message": exchange.message}


def which(lease: Lease, exchange: Exchange) -> dict[str, Any]:
    """Return what tells a graph which exchange it is."""
    return {
        "world_id": lease.world_id,
        "conversation_id": lease.conversation_id,
        "exchange_id": lease.exchange_id,
        "follows": exchange.follows_id,
    }


async def run_graph(
    service: "Service",
    run: Run,
    lease: Lease,
    exchange: Exchange,
    given: Any,
    context: ChatContext,
    durability: "Durability",
    graph: str = GRAPH,
) -> Exchange | None:
    """Run a graph from what is given to its end or its interrupt, and tell of its events.

    Returns:
        The exchange as it was stored; None where the graph waits for something first.
    """
    stored: Exchange | None = None

    def hear(event: dict[str, Any]) -> None:
        nonlocal stored
        if (kind := event.pop("event")) == STORED:
            stored = event["exchange"]
        else:
            run.emit(kind, **event)

    config = config_of(service, lease, graph)
    own = service.graphs.conversation if context.host else service.graphs.chat
    chosen = service.graphs.dialogue if graph == DIALOGUE else own
    with heard_by(hear):
        await chosen.ainvoke(
            given,
            config,
            context=context.model_dump(),
            durability=durability,
            stream_mode=[],  # nobody reads the state after each node
        )
    kept = service.settings.database.checkpoints_kept
    # With "exit" an exchange leaves one checkpoint, else one a step.
    if durability != "exit" or exchange.number % max(1, kept // SLACK) == 0:
        with contextlib.suppress(StorageUnavailable):  # the exchange is stored; this can wait
            await service.checkpointer.akeep(config["configurable"]["thread_id"], kept)
    return stored


async def keep_lease(service: "Service", lease: Lease) -> None:
    """Renew a lease until cancelled; a database that fails is asked again while the lease lasts.

    Raises:
        Conflict: Another run took the conversation.
        StorageUnavailable: The database did not answer for the length of a lease.
    """
    length = service.settings.conversation.lease_s
    renewed = time.monotonic()
    while True:
        await asyncio.sleep(length / LEASE_SHARE)
        try:
            kept = await service.exchanges.renew(lease, length, service.now())
        except StorageUnavailable:
            if time.monotonic() - renewed >= length:
                raise
        else:
            renewed = time.monotonic()
            if not kept:
                raise Conflict("another run took the conversation; send it again", retryable=True)


async def forget_run(service: "Service", lease: Lease) -> None:
    """Delete what a graph has kept of a conversation that was erased while it ran."""
    thread = thread_id(lease.world_id, lease.conversation_id)
    with contextlib.suppress(StorageUnavailable):  # the database says what there is
        await service.checkpointer.aprune([thread], strategy="delete")
