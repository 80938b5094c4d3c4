"""The REST door: `POST /api/v1/persona/chat` and so on, made from the registry, and the streams."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack, aclosing, nullcontext
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from persona_mcp.server.admission import check_scope
from persona_mcp.server.chat_requests import begin_chat, run_followed
from persona_mcp.server.chat_stream import begun_of, stream_events, stream_named
from persona_mcp.server.guard import read_arguments, watched
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.chat import ChatArguments
from persona_mcp.server.operations.registry import (
    Caller,
    Operation,
    accepted,
    call_operation,
)
from persona_mcp.server.runs import Run
from persona_mcp.state.callers import current_caller
from persona_mcp.state.errors import InvalidParams

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

log = structlog.get_logger(__name__)

PREFIX = "/api/v1"
STREAM = "/persona/chat_stream"
REF = "#/components/schemas/{model}"
Endpoint = Callable[[Request], Awaitable[Response]]
LAST_EVENT = "Last-Event-ID"
SEQ_DIGITS = 9
TAKEN_UP: dict[str, Any] = {
    "parameters": [
        {
            "name": LAST_EVENT,
            "in": "header",
            "required": False,
            "description": "Id of the last event that was seen: only what came behind it is sent",
            "schema": {"type": "string", "pattern": rf"^[0-9]{{1,{SEQ_DIGITS}}}$"},
        }
    ]
}
"""What FastAPI cannot see of a route that reads the header by itself."""
BREAKS = {ord(one): f"\\u{ord(one):04x}" for one in "\x85\u2028\u2029"}
"""Some clients end a line there, where server-sent events have none; texts have them in JSON."""
NO_CONTENT = 204


def rest_router() -> APIRouter:
    """Make a route for each operation, and those of the streams.

    The service is taken from the app's state when a request comes.
    """
    router = APIRouter(prefix=PREFIX)
    for operation in operations("all"):
        router.add_api_route(
            path_of(operation.name),
            endpoint_of(operation),
            methods=["POST"],
            name=operation.name,
            summary=operation.title,
            description=operation.description,
            tags=[operation.toolset],
        )
    for path, endpoint, method, title, extra in (
        (STREAM, chat_stream, "POST", "Stream a reply", TAKEN_UP),
        (STREAM + "/{stream_id}", resume_stream, "GET", "Take a stream up again", TAKEN_UP),
        (STREAM + "/{stream_id}", cancel_stream, "DELETE", "Stop a stream", None),
    ):
        router.add_api_route(
            path, endpoint, methods=[method], summary=title, tags=["persona"], openapi_extra=extra
        )
    return router


def path_of(name: str) -> str:
    """Return an operation's path behind the prefix: persona_chat is /persona/chat."""
    return "/" + name.replace("_", "/", 1)


def service_of(request: Request) -> "Service":
    """Return the service that the app opened."""
    service: Service = request.app.state.service
    return service


def endpoint_of(operation: Operation) -> Endpoint:
    """Make the function that answers calls of an operation."""

    async def endpoint(request: Request) -> Response:
        service = service_of(request)
        arguments = await read_arguments(request, service.settings.server.max_body_bytes)
        if not operation.open_world:
            return JSONResponse(await call_operation(service, operation.name, arguments))
        async with watched(request.receive) as lost:
            caller = Caller(lost=lost)
            return JSONResponse(await call_operation(service, operation.name, arguments, caller))

    return endpoint


async def chat_stream(request: Request) -> Response:
    """Send a message to a persona and get its reply as server-sent events while it is made.

    The same request_id follows the run that is under way; with the header Last-Event-ID only what
    comes behind that event is sent, also of a stream that has ended in the last minute.
    """
    service = service_of(request)
    given = await read_arguments(request, service.settings.server.max_body_bytes)
    with ExitStack() as held:
        held.enter_context(await service.limits.admit_stream(current_caller()))
        events = await begun_stream(service, request, given)
        events.held = held.pop_all()
    return events


async def begun_stream(service: "Service", request: Request, given: dict[str, Any]) -> "Events":
    """Accept the message of a stream, or find the stream that it is taken up from."""
    call, arguments = await accepted(service, ChatArguments, given, "persona_chat_stream", "chat")
    after = last_seen(request)
    followed = await run_followed(call, arguments) if after >= 0 else None
    if followed is not None:
        return await streamed(service, followed, arguments.token_budget, after)
    run, _ = await begin_chat(call, arguments)  # of another stream than the event, so all of it
    return await streamed(service, run, arguments.token_budget, -1)


async def resume_stream(request: Request, stream_id: str) -> Response:
    """Take a stream up again, behind the event that the header Last-Event-ID names.

    A browser's EventSource does this by itself, also when it has seen the end: the answer to that
    is 204, so that it stops. Ended streams are kept for a minute.
    """
    check_scope("persona_chat_stream", "chat")
    service = service_of(request)
    with ExitStack() as held:
        held.enter_context(await service.limits.admit_stream(current_caller()))
        rest = await taken_up(service, stream_named(service, stream_id), last_seen(request))
        if isinstance(rest, Events):
            rest.held = held.pop_all()
    return rest


async def taken_up(service: "Service", run: Run, after: int) -> Response:
    """Answer with what a stream has told since an event; 204 if that was the last one."""
    if run.ended:
        begun = await begun_of(service, run, None)
        async with aclosing(stream_events(service, run, begun, after)) as rest:
            if await anext(rest, None) is None:
                return Response(status_code=NO_CONTENT)
    return await streamed(service, run, None, after)


async def cancel_stream(request: Request, stream_id: str) -> Response:
    """Stop making a reply, the model's work too; nothing of it is remembered."""
    check_scope("persona_chat_stream", "chat")
    run = stream_named(service_of(request), stream_id)
    running = not run.ended
    await run.cancel("client")
    return JSONResponse({"stream_id": stream_id, "cancelled": running})


def last_seen(request: Request) -> int:
    """Return the number of the last event that the caller has seen, -1 for none.

    Raises:
        InvalidParams: It is no number.
    """
    given = request.headers.get(LAST_EVENT, "")
    if not given:
        return -1
    if not (given.isascii() and given.isdigit() and len(given) <= SEQ_DIGITS):
        allowed = "whole number, the id of an event of this stream"
        raise InvalidParams.one(LAST_EVENT, allowed, given[:80])
    return int(given)


class Events(EventSourceResponse):
    """Server-sent events; a reader who takes none for too long is let go, which is no defect.

    Attributes:
        held: Given back at their end: the stream's place.
    """

    held: AbstractContextManager[Any] = nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or their reader is gone."""
        with self.held:
            try:
                await super().__call__(scope, receive, send)
            except* SendTimeoutError:
                log.info("reader let go", path=scope["path"], seconds=self.send_timeout)


async def streamed(service: "Service", run: Run, token_budget: int | None, after: int) -> Events:
    """Answer with the events of a run.

    A reader that is gone, or takes nothing for `server.send_s`, leaves the run to itself.
    """
    limits = service.settings.server
    begun = await begun_of(service, run, token_budget)

    run.join()
    run.leave(limits.grace_s)  # a reader that goes before the first event is one that was lost

    async def frames() -> AsyncIterator[ServerSentEvent]:
        run.join()
        try:
            async for told in stream_events(service, run, begun, after):
                data = json.dumps(told, ensure_ascii=False).translate(BREAKS)
                yield ServerSentEvent(data, event=told["event_type"], id=str(told["seq"]))
        finally:
            run.leave(limits.grace_s)

    return Events(frames(), ping=limits.heartbeat_s, send_timeout=limits.send_s)


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """Describe the REST door; arguments and results are those of the registry."""
    if app.openapi_schema:
        return app.openapi_schema
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM
    for operation in operations("all"):
        described = found["paths"][PREFIX + path_of(operation.name)]["post"]
        given = named_schema(schemas, operation.arguments, "validation")
        made = named_schema(schemas, operation.result, "serialization")
        describe(described, given, {"application/json": {"schema": made}})
    stream = found["paths"][PREFIX + STREAM]["post"]
    events: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}
    describe(stream, named_schema(schemas, ChatArguments, "validation"), events)
    one = found["paths"][PREFIX + STREAM + "/{stream_id}"]
    describe(one["get"], None, events)
    one["get"]["responses"][str(NO_CONTENT)] = {"description": "There is nothing behind the event"}
    describe(one["delete"], None, {"application/json": {"schema": STOPPED}})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    app.openapi_schema = found
    return found


PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "data"],
            "properties": {
                "code": {"type": "integer", "description": "JSON-RPC error code"},
                "message": {"type": "string", "description": "What was wrong, and what to do"},
                "data": {"type": "object", "description": "code in a word, fields, ids"},
            },
        }
    },
}
STOPPED: dict[str, Any] = {
    "type": "object",
    "required": ["stream_id", "cancelled"],
    "properties": {
        "stream_id": {"type": "string"},
        "cancelled": {"type": "boolean", "description": "false: it had ended before"},
    },
}
STATUSES = ("400", "404", "409", "413", "422", "429", "500", "501", "502", "503", "504")


def describe(
    described: dict[str, Any], given: dict[str, Any] | None, content: dict[str, Any]
) -> None:
    """Fill in what a route takes, if it takes a body, and answers."""
    if given is not None:
        described["requestBody"] = {"content": {"application/json": {"schema": given}}}
    problem = {"$ref": REF.format(model="Problem")}
    error = {"description": "Error", "content": {"application/json": {"schema": problem}}}
    described["responses"] = {
        "200": {"description": "Done", "content": content},
        **dict.fromkeys(STATUSES, error),
    }


def named_schema(schemas: dict[str, Any], model: Any, mode: Any) -> dict[str, Any]:
    """Put a model's schema among the named ones, and return the reference to it."""
    schema = model.model_json_schema(ref_template=REF, mode=mode)
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    return {"$ref": REF.format(model=model.__name__)}
