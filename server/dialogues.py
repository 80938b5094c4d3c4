"""Talks between personas, turn by turn: the way of a turn is that of a message to a persona."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection

from persona_mcp.nodes.parts import ChatContext
from persona_mcp.server.graph_runs import DIALOGUE, keep_lease, run_graph, which
from persona_mcp.server.runs import Run, guarded
from persona_mcp.state import conversations
from persona_mcp.state.correlation import current_correlation_id
from persona_mcp.state.dialogue import Standing, sampling_seed
from persona_mcp.state.dialogues import busy, holder_of, read_standing
from persona_mcp.state.errors import InternalError, NotFound, PersonaError
from persona_mcp.state.exchange import Conversation, Exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import derived_id, timed_id
from persona_mcp.state.request import Request, check_open, check_same, ended
from persona_mcp.state.speaking import next_speaker

if TYPE_CHECKING:
    from persona_mcp.server.service import Service
    from persona_mcp.server.store import Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Advance:
    """So many turns of a talk between personas.

    Attributes:
        world_id: Where.
        conversation_id: Of the talk.
        request_id: The caller's name for all of them.
        turns: How many, 1..50; fewer if the talk ends.
        speaker: Who is to speak first, None for whose turn it is.
        direction: What happens before the first one; empty for nothing.
    """

    world_id: str
    conversation_id: str
    request_id: str
    turns: int = 1
    speaker: str | None = None
    direction: str = ""

    @property
    def request_ids(self) -> list[str]:
        """Return what each turn is asked for under."""
        keys = (self.world_id, self.conversation_id, self.request_id)
        return [derived_id(*keys, "turn", number) for number in range(self.turns)]


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
        StorageUnavailable: The server is going down.
    """
    asks_for = request_of(asked, asked.request_ids[0]).hash
    key = derived_id(asked.conversation_id, asked.request_id, asks_for)
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
    if (known := await service.exchanges.find(asked.world_id, first)) is not None:
        check_same(request_of(asked, first), known.request_hash)
        return

    def read(connection: Connection) -> tuple[Conversation, str | None, float | None]:
        found = conversations.get(connection, asked.world_id, asked.conversation_id)
        return found, *holder_of(connection, asked.world_id, found.id)

    found, owner, until = await service.database.read(read)
    check_open(found.id, found.kind, found.status, "dialogue")
    if not service.exchanges.is_free(owner, until, service.now()):
        raise busy(found.id, service.settings.conversation.lease_s)


def request_of(asked: Advance, request_id: str, speaker: str = "", partner: str = "") -> Request:
    """Write one turn as an exchange is accepted; who speaks is no part of what is asked for.

    The first one stands for all of them: how many they are, who begins, and with what.
    """
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
            "turns": asked.turns if first else None,
        },
        kind="dialogue",
        called=asked.request_id,
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
            work = partial(make_turn, service, turn_of(asked, standing, lease, number))
            lease = Lease(asked.world_id, talk.id, exchange.id, service.process)
            try:
                made = await service.carry_out(run, asked.world_id, exchange, work)
            except PersonaError as error:
                error.data["turns_done"] = number
                raise
    except PersonaError:
        raise
    except Exception as error:  # a run always tells its end
        log.exception("turn failed", conversation_id=asked.conversation_id)
        raise InternalError from error
    finally:
        if lease is not None:
            with suppress(NotFound):  # its world was emptied or deleted; what is raised says so
                await asyncio.shield(service.exchanges.let_go(lease))
    return made


async def accept(
    service: "Service", asked: Advance, request_id: str, standing: Standing
) -> Exchange:
    """Write a turn as pending, or find the one that has this request id."""
    known = await service.exchanges.find(asked.world_id, request_id)
    if standing.conversation.status == "ended" and known is None:
        raise ended(asked.conversation_id)
    first, laws = request_id == asked.request_ids[0], service.laws.continuation
    speaker = (asked.speaker if first else None) or next_speaker(standing, laws)
    partner = standing.partner(speaker).persona.id
    return await service.exchanges.accept(
        request_of(asked, request_id, speaker, partner),
        timed_id(),
        service.process,
        current_correlation_id(),
        time.time(),
    )


@dataclass(frozen=True)
class Turn:
    """One turn of a talk, as it is run.

    Attributes:
        context: Knobs of the run.
        speaker: Who is to speak, None for whose turn it is.
        after: The lease of the turn before, which this one takes over.
        more: Another turn is to take over its lease.
    """

    context: ChatContext
    speaker: str | None
    after: Lease | None
    more: bool


def turn_of(asked: Advance, standing: Standing, after: Lease | None, number: int) -> Turn:
    """Write one turn as it is run."""
    context = ChatContext(
        routing="score",
        token_budget=standing.plan.token_budget,
        seed=sampling_seed(standing.plan, standing.conversation.turn_count),
    )
    speaker = asked.speaker if number == 0 else None
    return Turn(context, speaker, after, more=number + 1 < asked.turns)


async def make_turn(service: "Service", turn: Turn, run: Run, lease: Lease) -> Exchange:
    """Take the lease, of the turn before where there is one, and run the graph of talks."""
    exchange = await service.claim(lease, at_once=True, after=turn.after)
    if exchange.status == "done":
        return exchange
    given = {
        **which(lease, exchange),
        "direction": exchange.message,
        "asked_speaker": turn.speaker,
    }
    work = run_graph(service, run, lease, exchange, given, turn.context, "sync", DIALOGUE)
    await guarded(work, keep_lease(service, lease))
    if turn.more:
        return await service.exchanges.get(lease.world_id, lease.exchange_id)
    return await service.exchanges.let_go(lease)
