"""One run of the conversation's graph, on the thread of its conversation."""

import contextlib
import sqlite3
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from persona_mcp.nodes.parts import ChatContext
from persona_mcp.server.runs import Run
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import thread_id

if TYPE_CHECKING:
    from langgraph.types import Durability

    from persona_mcp.server.service import Service

GRAPH = "conversation"


def config_of(service: "Service", lease: Lease) -> dict[str, Any]:
    """Return the graph's configuration for a conversation."""
    return {
        "configurable": {"thread_id": thread_id(lease.world_id, lease.conversation_id)},
        "recursion_limit": service.settings.conversation.recursion_limit,
        "metadata": {"graph_id": GRAPH},
    }


def started_with(lease: Lease, exchange: Exchange) -> dict[str, Any]:
    """Return what the graph is started with for an exchange that runs."""
    return {
        "world_id": lease.world_id,
        "conversation_id": lease.conversation_id,
        "exchange_id": lease.exchange_id,
        "message": exchange.message,
        "follows": exchange.follows_id,
    }


async def run_graph(
    service: "Service",
    run: Run,
    lease: Lease,
    given: Any,
    context: ChatContext,
    durability: "Durability",
) -> None:
    """Run the graph from what is given to its end or its interrupt, and tell of its events."""
    config = config_of(service, lease)
    events = service.graph.astream(
        given,
        config,
        context=context.model_dump(),
        durability=durability,
        stream_mode="custom",
    )
    async with aclosing(events):
        async for event in events:
            run.emit(event.pop("event"), **event)
    with contextlib.suppress(OSError, sqlite3.Error):  # the exchange is stored; this can wait
        thread = config["configurable"]["thread_id"]
        await service.checkpointer.akeep(thread, service.settings.database.checkpoints_kept)
