"""What a call asks of a persona: accepted and begun, or found again under its request id."""

import time
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from persona_mcp.nodes.parts import ChatContext
from persona_mcp.server.current import find_current, session_with
from persona_mcp.server.runs import ChatRequest, Run
from persona_mcp.state import exchanges
from persona_mcp.state.correlation import current_correlation_id
from persona_mcp.state.exchange import Exchange
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import derived_id, new_id, timed_id
from persona_mcp.state.personas import answering, was_called
from persona_mcp.state.request import Request

if TYPE_CHECKING:
    from persona_mcp.server.operations.chat import ChatArguments
    from persona_mcp.server.operations.registry import Call
    from persona_mcp.state.sessions import Session


def accept(
    connection: Connection,
    request: ChatRequest,
    lease: Lease,
    until: float | None = None,
) -> Exchange:
    """Write an exchange as pending, or find the one that has this request id.

    Args:
        connection: A transaction that writes.
        request: What is asked.
        lease: What a new exchange will run under; it says what it and its conversation are called.
        until: Take that at once where nobody holds the conversation, until then: a new exchange is
            one that runs. None to leave that for later.

    Raises:
        NotFound: The persona or the conversation is not there.
        InvalidParams: The conversation is not of these two.
        Conflict: The request id was used for something else.
    """
    known = (
        exchanges.callers_own(connection, request.world_id, request.request_id)
        if request.request_id is not None
        else None
    )
    asked = Request(
        world_id=request.world_id,
        conversation_id=lease.conversation_id,
        persona_id=request.persona
        if known is not None and known.persona_id == request.persona
        else answering(connection, request.world_id, request.persona, request.user_id),
        user_id=request.user_id,
        request_id=request.request_id or timed_id(),
        message=request.message,
        parameters=request.parameters,
        starts=request.may_start,
        scene=request.scene,
    )
    return exchanges.accept(connection, asked, lease, current_correlation_id(), time.time(), until)


def lease_for(request: ChatRequest, process: str) -> Lease:
    """Return what the exchange of a request runs under, if it is a new one."""
    conversation_id = request.conversation_id or request.current_id or new_id()
    return Lease(request.world_id, conversation_id, timed_id(), process)


async def begin_chat(
    call: "Call", arguments: "ChatArguments", *, host: bool = False
) -> tuple[Run, Exchange]:
    """Accept a message and begin its run, or find the run that has this request id.

    Args:
        call: The call.
        arguments: Its arguments.
        host: The run stops with a prompt, which the host's own model answers.

    Raises:
        NoCurrentPersona: Nobody is named, and no session stands for somebody.
        PersonaError: As `Service.chat`.
    """
    request, session = await requested(call, arguments, host=host)
    run, exchange = await call.service.chat(request)
    if session is not None and exchange.conversation_id != session.conversation_id:
        await call.store.sessions.go_on(session, exchange.conversation_id)
    return run, exchange


async def requested(
    call: "Call", arguments: "ChatArguments", *, host: bool = False
) -> tuple[ChatRequest, "Session | None"]:
    """Return what a call asks of whom, and the session that it is sent in.

    Raises:
        NoCurrentPersona: Nobody is named, and no session stands for somebody.
        NotFound: There is no such persona; suggests near names.
    """
    persona_id = await call.store.database.read(persona_asked, call, arguments)
    session = session_with(call, persona_id)
    request = ChatRequest(
        world_id=call.world_id,
        persona=persona_id,
        user_id=arguments.user_id or call.service.settings.user,
        message=arguments.message,
        conversation_id=arguments.conversation_id,
        request_id=arguments.request_id,
        context=ChatContext(
            routing=arguments.routing, token_budget=arguments.token_budget, host=host
        ),
        session_id=session.id if session else None,
        current_id=await open_chat(call, session) if session else None,
        scene=arguments.scene,
    )
    return request, session


def persona_asked(connection: Connection, call: "Call", arguments: "ChatArguments") -> str:
    """Return the id of who is asked; where the call was made before, of who was asked then.

    That one may have been renamed or deleted since, and its reply is still the answer.

    Raises:
        NoCurrentPersona: Nobody is named, and no session stands for somebody.
        NotFound: There is no such persona; suggests near names.
    """
    named = arguments.persona_id or (call.session.persona_id if call.session else None)
    if named is not None and arguments.request_id is not None:
        known = exchanges.callers_own(connection, call.world_id, arguments.request_id)
        if known is not None and was_called(connection, call.world_id, known.persona_id, named):
            return known.persona_id
    return find_current(connection, call, arguments.persona_id).id


async def run_followed(call: "Call", arguments: "ChatArguments") -> Run | None:
    """Return the run whose reply a caller has begun to read under this request_id, if it is kept.

    None where the exchange was run more than once, since nobody knows which of the runs was read;
    and where it failed, since it is run again.

    Raises:
        PersonaError: As `begin_chat`; so also where the request_id is of another call.
    """
    service, world_id = call.service, call.world_id
    if arguments.request_id is None or not await service.exchanges.find(
        world_id, arguments.request_id
    ):
        return None
    request, _ = await requested(call, arguments)
    exchange = await service.accept(request)
    if exchange.attempts > 1:
        return None
    runs = service.runs.of(world_id, exchange.id)
    return next((run for run in runs if not run.repeats and not run.failed), None)


async def open_chat(call: "Call", session: "Session") -> str | None:
    """Return the chat that a session is in; the next one, where that is over or is no chat."""
    current = session.conversation_id
    while current is not None:
        found = await call.store.conversations.find(call.world_id, current)
        if found is None or (found.kind == "chat" and found.status == "active"):
            break
        current = derived_id(call.world_id, current, "next")  # the same for two calls at once
    return current
