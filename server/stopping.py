"""What a server that is going down answers: it ends what it is at, and begins nothing new."""

from typing import TYPE_CHECKING

from persona_mcp.state.errors import StorageUnavailable

if TYPE_CHECKING:
    from persona_mcp.server.runs import ChatRequest
    from persona_mcp.server.service import Service

RETRY_S = 5.0
"""When to try again, at the next server or at another one, in seconds."""


def going_down() -> StorageUnavailable:
    """Say that nothing new is begun."""
    return StorageUnavailable(
        "the server is going down and begins nothing new; send it again, with the same request_id, "
        f"to the next one in {RETRY_S:g} s",
        reason="shutdown",
        retry_after_seconds=RETRY_S,
    )


def begin_stop(service: "Service") -> None:
    """Take no new work, and let what is done in the background come to its next step."""
    service.limits.stopping = service.runs.closing = True
    service.batches.stop()
    service.upkeep.stop()


async def check_ours(service: "Service", request: "ChatRequest") -> None:
    """Refuse a message whose reply is not made or kept here, once the server goes down.

    Raises:
        StorageUnavailable: It is none of ours; nothing is written of it.
    """
    if not service.runs.closing:
        return
    if request.request_id is not None:
        known = await service.exchanges.find(request.world_id, request.request_id)
        if known is not None and service.runs.latest(request.world_id, known.id):
            return
    raise going_down()
