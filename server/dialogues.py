"""Talks between personas, turn by turn: the way of a turn is that of a message to a persona."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection

from persona_mcp.nodes.parts import ChatContext
from persona_mcp.server.runs import Run
from persona_mcp.server.turns import Advance, TurnRequest
from persona_mcp.state import conversations
from persona_mcp.state.correlation import current_correlation_id
from persona_mcp.state.dialogue import Standing, sampling_seed
from persona_mcp.state.dialogues import busy, holder_of, read_standing
from persona_mcp.state.errors import InternalError, PersonaError
from persona_mcp.state.exchange import Conversation, Exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import derived_id, new_id
from persona_mcp.state.request import Request, check_open, ended

if TYPE_CHECKING:
    from persona_mcp.server.service import Service
    from persona_mcp.server.store import Store

log = structlog.get_logger(__name__)


async def standing_of(store: "Store", world_id: str, conversation: Conversation) -> Standing:
    """Read how a talk between personas stands now.

    Raises:
        NotFound: One of its personas is not there any more.
    """
    window, laws = store.settings.conversation.window_turns, store.laws.effects
    return await store.database.read(
        read_standing, world_id, conversation, time.time(), window, laws
    )


async def advance(service: "Service", asked: Advance) -> Run:
    """Begin turns of a talk as one run, or find the run that has this request id.

    Raises:
        NotFound: The conversation or one of its personas is not there.
        Conflict: It has ended, somebody else goes on with it, or it is a chat with a user; or the
            request id was used for something else.
        Cancelled: The server is stopping.
    """
    key = derived_id(asked.conversation_id, asked.request_id)
    run = service.runs.latest(asked.world_id, key)
    if run is None or run.ended:
        await check(service, asked)
    return service.runs.start(asked.world_id, key, lambda run: take_turns(service, run, asked))


async def check(service: "Service", asked: Advance) -> None:
    """Refuse what cannot be begun; what was asked for before is found again.

    Raises:
        PersonaError: As `advance`.
    """
    first = asked.request_ids[0]
    if await service.exchanges.find(asked.world_id, first) is not None:
        return

    def read(connection: Connection) -> tuple[Conversation, str | None, float | None]:
        found = conversations.get(connection, asked.world_id, asked.conversation_id)
        return found, *holder_of(connection, asked.world_id, found.id)

    found, owner, until = await service.database.read(read)
    check_open(found.id, found.kind, found.status, "dialogue")
    if not service.exchanges.is_free(owner, until, time.time()):
        raise busy(found.id, service.settings.conversation.lease_s)


def request_of(asked: Advance, request_id: str, speaker: str, partner: str) -> Request:
    """Write one turn as an exchange is accepted."""
    first = request_id == asked.request_ids[0]
    return Request(
        world_id=asked.world_id,
        conversation_id=asked.conversation_id,
        persona_id=speaker,
        user_id=partner,
        request_id=request_id,
        message=asked.direction if first else "",
        parameters={
            "conversation_id": asked.conversation_id,
            "speaker_id": asked.speaker if first else None,
        },
        kind="dialogue",
    )


async def take_turns(service: "Service", run: Run, asked: Advance) -> dict[str, Any]:
    """Make the turns one after the other under one lease; those that are done stay done.

    Returns:
        The exchange of the last one.

    Raises:
        PersonaError: What a turn failed with; `turns_done` tells how many came before it.
    """
    lease: Lease | None = None
    made: dict[str, Any] = {}
    try:
        for number, request_id in enumerate(asked.request_ids):
            talk = await service.conversations.get(asked.world_id, asked.conversation_id)
            if talk.status == "ended" and number:
                break
            standing = await standing_of(service, asked.world_id, talk)
            exchange = await accept(service, asked, request_id, standing)
            if exchange.status == "done":
                made = {"exchange": exchange}
                continue
            turn = turn_of(asked, exchange, standing, lease, number)
            lease = Lease(asked.world_id, talk.id, exchange.id, service.process)
            try:
                made = await service.carry_out(run, turn, exchange)
            except PersonaError as error:
                error.data["turns_done"] = number
                raise
    except PersonaError:
        raise
    except Exception as error:  # a run always tells its end
        log.exception("turn failed", conversation_id=asked.conversation_id)
        raise InternalError("something went wrong on our side; the log has the cause") from error
    finally:
        if lease is not None:
            await asyncio.shield(service.exchanges.let_go(lease))
    return made


async def accept(
    service: "Service", asked: Advance, request_id: str, standing: Standing
) -> Exchange:
    """Write a turn as pending, or find the one that has this request id."""
    known = await service.exchanges.find(asked.world_id, request_id)
    if standing.conversation.status == "ended" and known is None:
        raise ended(asked.conversation_id)
    first = request_id == asked.request_ids[0]
    speaker = (asked.speaker if first else None) or standing.next_speaker
    partner = standing.partner(speaker).persona.id
    return await service.exchanges.accept(
        request_of(asked, request_id, speaker, partner),
        new_id(),
        service.process,
        current_correlation_id(),
        time.time(),
    )


def turn_of(
    asked: Advance, exchange: Exchange, standing: Standing, after: Lease | None, number: int
) -> TurnRequest:
    """Write one turn as it is run."""
    turn = standing.conversation.turn_count
    return TurnRequest(
        world_id=asked.world_id,
        conversation_id=asked.conversation_id,
        request_id=exchange.request_id,
        context=ChatContext(
            routing="score",
            token_budget=standing.plan.token_budget,
            seed=sampling_seed(standing.plan, turn),
        ),
        speaker=asked.speaker if number == 0 else None,
        direction=exchange.message,
        after=after,
        more=number + 1 < asked.turns,
    )
