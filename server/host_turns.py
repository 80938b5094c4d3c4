"""Replies that a host's own model writes: the run that waits for one goes on with it, once."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from persona_mcp.nodes.parts import ChatContext
from persona_mcp.server.graph_runs import config_of, keep_lease, run_graph, started_with
from persona_mcp.server.runs import Run, guarded, unless_lost
from persona_mcp.state.errors import Conflict, InvalidParams
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.host_prompts import HostReply, taken
from persona_mcp.state.validation import cut

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

HOSTED = ChatContext(host=True)


async def record(
    service: "Service", world_id: str, prompt_id: str, reply: HostReply, lost: asyncio.Event | None
) -> Exchange:
    """Take the reply to a prompt: as done as any exchange, and once however often it is sent.

    Raises:
        NotFound: The prompt is not there, or not any more.
        Conflict: It was answered by another text.
        InvalidParams: The reply cannot be used; another one may be sent.
        PersonaError: What the run failed with; the prompt stays open.
    """
    exchange = await at_rest(service, world_id, prompt_id)
    if exchange.status != "done":
        work = partial(take, service, prompt_id, reply)
        run = service.runs.start(
            world_id,
            exchange.id,
            lambda run: service.carry_out(run, world_id, exchange, work, "waiting"),
        )
        async with run.joined(lost, service.settings.server.grace_s):
            exchange = (await unless_lost(run.outcome(), lost))["exchange"]
    if exchange.prompt != taken(reply.response):
        raise Conflict(
            f"prompt '{prompt_id}' was answered by another text; persona_prompt makes a new one",
            field="prompt_id",
            given=prompt_id,
        )
    return exchange


async def at_rest(service: "Service", world_id: str, prompt_id: str) -> Exchange:
    """Find the exchange of a prompt at a moment when this process has no run of it.

    Raises:
        NotFound: There is no such prompt.
    """
    while True:
        exchange = await service.exchanges.by_prompt(world_id, prompt_id)
        run = service.runs.latest(world_id, exchange.id)
        if run is None or run.ended:
            return exchange
        await run.wait()


async def take(
    service: "Service", prompt_id: str, reply: HostReply, run: Run, lease: Lease
) -> Exchange:
    """Take the lease and go on with the reply.

    The prompt's id is compared when the lease is taken, before the graph goes on.
    """
    exchange = await service.claim(lease, prompt_id)
    if exchange.status != "running":
        return exchange
    await guarded(go_on(service, run, lease, exchange, reply), keep_lease(service, lease))
    return await service.exchanges.get(lease.world_id, lease.exchange_id)


async def go_on(
    service: "Service", run: Run, lease: Lease, exchange: Exchange, reply: HostReply
) -> None:
    """Run the graph from its interrupt on; back to it first, if a run was cut off behind it.

    Raises:
        InvalidParams: The reply cannot be used; the graph waits for another one.
    """
    from langgraph.types import Command  # noqa: PLC0415 - heavy; a service has imported it

    if await waiting_of(service, lease) is None:
        await run_graph(
            service, run, lease, exchange, started_with(lease, exchange), HOSTED, "sync"
        )
    resumed: Any = Command(resume=reply.model_dump())
    await run_graph(service, run, lease, exchange, resumed, HOSTED, "exit")
    waiting = await waiting_of(service, lease)
    if waiting is not None:
        faults = ", ".join(waiting["faults"])
        raise InvalidParams.one(
            "response",
            f"a reply that the persona can give ({faults}); write another one "
            "and send it with the same prompt_id",
            cut(reply.response),
        )


async def waiting_of(service: "Service", lease: Lease) -> dict[str, Any] | None:
    """Return what the graph waits with for this exchange's reply; None if it does not."""
    snapshot = await service.graphs.conversation.aget_state(config_of(service, lease))
    values = [one.value for one in snapshot.interrupts]
    return next((v for v in values if v["exchange_id"] == lease.exchange_id), None)
