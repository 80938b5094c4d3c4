"""What the methods of JSON-RPC do: every operation as `noun.verb`, and those of a connection."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import Field

from persona_mcp.server.admission import home_of
from persona_mcp.server.chat_requests import begin_chat
from persona_mcp.server.chat_stream import begun_of, stream_events, stream_named
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.chat import ChatArguments
from persona_mcp.server.operations.registry import (
    Arguments,
    Call,
    Caller,
    Operation,
    Result,
    accepted,
    call_operation,
    unknown,
)
from persona_mcp.state.callers import Scope, current_caller
from persona_mcp.state.errors import NotFound
from persona_mcp.state.fields import Id
from persona_mcp.state.sessions import Session

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

STREAM = "persona.chat_stream"
CANCEL = "stream.cancel"
SWITCH = "persona_switch"
GIVEN_LENGTH = 64
Params = dict[str, Any]


def method_of(name: str) -> str:
    """Return an operation's name as a method: persona_chat is persona.chat."""
    return name.replace("_", ".", 1)


METHODS: dict[str, Operation] = {method_of(o.name): o for o in operations("all")}


class StreamCancelArguments(Arguments):
    """Arguments of stream.cancel."""

    stream_id: Id = Field(description="From the events of persona.chat_stream")


class StreamCancelled(Result):
    """Result of stream.cancel."""

    cancelled: bool = Field(description="false: it had ended already")


class SessionInfo(Result):
    """Result of session.get_info and session.clear."""

    session_id: str = Field(description="Send it after a reconnect to be where you were")
    world_id: str
    current_persona_id: str | None
    current_conversation_id: str | None = Field(
        description="Where the next message goes; it begins the conversation if it is not there"
    )


class Described(Result):
    """A method, with JSON Schemas."""

    name: str
    title: str
    description: str
    params: dict[str, Any]
    result: dict[str, Any]


class Discovered(Result):
    """Result of rpc.discover."""

    methods: list[Described]


class Methods:
    """Carries out the requests of one connection, which has a session handle of its own.

    The handle is made when a call first needs it, so that a connection that asks for nothing
    leaves nothing behind.
    """

    def __init__(self, service: "Service") -> None:
        """Begin a connection."""
        self._service = service
        self._own: Session | None = None
        self._making = asyncio.Lock()

    async def call(self, method: str, params: Params, caller: Caller) -> dict[str, Any]:
        """Carry out a method that answers once.

        Raises:
            MethodNotFound: There is no such method; the nearest are told.
            PersonaError: What it raises.
        """
        operation, extra = METHODS.get(method), EXTRAS.get(method)
        if operation is not None:
            return await self._operation(operation, params, caller)
        if extra is None:
            raise unknown("method", method[:GIVEN_LENGTH], [*METHODS, *EXTRAS, STREAM])
        own = await self._session() if extra.on_session else None
        given = params if own is None else with_session(params, own)
        call, arguments = await accepted(self._service, extra.arguments, given, method, extra.scope)
        result = await extra.run(self, call, arguments)
        return result.model_dump(mode="json")

    async def stream(self, params: Params, tell: Callable[[dict[str, Any]], None]) -> None:
        """Chat, and tell each event of the reply while it is made.

        Whoever is cancelled here leaves the run to itself for the time of grace.

        Raises:
            PersonaError: The message was not accepted; nothing was told.
        """
        with await self._service.limits.admit_stream(current_caller()):
            await self._streamed(params, tell)

    async def _streamed(self, params: Params, tell: Callable[[dict[str, Any]], None]) -> None:
        """Tell of a reply to its end."""
        service = self._service
        given = await self._with_own(params)
        call, arguments = await accepted(service, ChatArguments, given, STREAM, "chat")
        run, _ = await begin_chat(call, arguments)
        run.join()
        try:
            begun = await begun_of(service, run, arguments.token_budget)
            async with aclosing(stream_events(service, run, begun)) as events:
                async for told in events:
                    tell(told)
        finally:
            run.leave(service.settings.server.grace_s)

    async def world_of(self, params: Params) -> str:
        """Say in which world a call with these arguments works."""
        named = params.get("world_id")
        return named if isinstance(named, str) else (await self._session()).world_id

    async def _operation(
        self, operation: Operation, params: Params, caller: Caller
    ) -> dict[str, Any]:
        given = await self._with_own(params)
        own = self._own
        try:
            result = await call_operation(self._service, operation.name, given, caller)
        except NotFound as error:
            if own and error.data.get("kind") == "session" and error.data.get("id") == own.id:
                self._own = None  # it has ended; the next call gets another one
            raise
        if operation.name == SWITCH and params.get("session_id") is None:
            self._own = await self._service.sessions.use(result["session_id"], time.time())
        return result

    async def _with_own(self, params: Params) -> Params:
        """Add the connection's handle, unless the call has one or works in another world."""
        if params.get("session_id") is not None:
            return params
        own = await self._session()
        elsewhere = params.get("world_id") not in (None, own.world_id)
        return params if elsewhere else with_session(params, own)

    async def _session(self) -> Session:
        async with self._making:
            if self._own is None:
                world_id = home_of(self._service)
                self._own = await self._service.sessions.create(world_id, None, time.time())
            return self._own

    async def get_info(self, call: Call, _: Arguments) -> SessionInfo:
        """Say what is current on this connection; with a session_id, take that session up."""
        self._own = session_of(call)
        return shown(self._own)

    async def clear(self, call: Call, _: Arguments) -> SessionInfo:
        """Forget the session's current persona and conversation; what was said is kept."""
        session = session_of(call)
        return shown(await self._service.sessions.clear(session.id, time.time()))

    async def cancel(self, _: Call, arguments: StreamCancelArguments) -> StreamCancelled:
        """Stop a reply that is being streamed, the model's work too; it is not remembered."""
        run = stream_named(self._service, arguments.stream_id)
        running = not run.ended
        await run.cancel("client")
        return StreamCancelled(cancelled=running)

    async def discover(self, _: Call, __: Arguments) -> Discovered:
        """List all methods with the JSON Schema of their arguments and results."""
        return await asyncio.to_thread(discovered)


def with_session(params: Params, session: Session) -> Params:
    """Add a handle to arguments that have none."""
    return {**params, "session_id": session.id} if params.get("session_id") is None else params


def session_of(call: Call) -> Session:
    """Return the handle of a call that has one."""
    assert call.session is not None
    return call.session


def shown(session: Session) -> SessionInfo:
    """Show what a handle stands for."""
    return SessionInfo(
        session_id=session.id,
        world_id=session.world_id,
        current_persona_id=session.persona_id,
        current_conversation_id=session.conversation_id,
    )


@dataclass(frozen=True)
class Extra:
    """A method that only a connection has.

    Attributes:
        title: For people.
        arguments: Input model.
        result: Output model.
        run: The function.
        on_session: It is about the connection's handle, if no other one is named.
        scope: What a caller must be allowed; None where anybody may.
    """

    title: str
    arguments: type[Arguments]
    result: type[Result]
    run: Callable[[Methods, Call, Any], Awaitable[Result]]
    on_session: bool = False
    scope: Scope | None = None


EXTRAS = {
    "rpc.discover": Extra("List the methods", Arguments, Discovered, Methods.discover),
    CANCEL: Extra(
        "Stop a stream", StreamCancelArguments, StreamCancelled, Methods.cancel, scope="chat"
    ),
    "session.get_info": Extra(
        "What is current", Arguments, SessionInfo, Methods.get_info, on_session=True
    ),
    "session.clear": Extra(
        "Forget what is current", Arguments, SessionInfo, Methods.clear, on_session=True
    ),
}
STREAMED = "As persona.chat; each event of the reply is an answer with the request's id."


@cache
def discovered() -> Discovered:
    """Describe every method."""
    told = [
        Described(
            name=method,
            title=operation.title,
            description=operation.description,
            params=operation.input_schema,
            result=operation.output_schema,
        )
        for method, operation in METHODS.items()
    ]
    told.append(
        Described(
            name=STREAM,
            title="Chat with a persona, streamed",
            description=STREAMED,
            params=ChatArguments.model_json_schema(),
            result={"type": "object", "required": ["event_type", "stream_id", "seq", "data"]},
        )
    )
    for method, extra in EXTRAS.items():
        told.append(
            Described(
                name=method,
                title=extra.title,
                description=" ".join((extra.run.__doc__ or "").split()),
                params=extra.arguments.model_json_schema(),
                result=extra.result.model_json_schema(mode="serialization"),
            )
        )
    return Discovered(methods=told)
