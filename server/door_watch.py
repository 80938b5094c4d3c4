"""Counts what comes in at each door, and begins its trace, or goes on with the caller's."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from persona_mcp.server.metrics import Metrics, code_of
from persona_mcp.server.wire import WIRES
from persona_mcp.state.watching import Span

SPAN = "persona_mcp.span"
"""Where a request's scope has the span of its door: a session's task was begun by another one."""
DOORS = {
    "/api/v1/persona/chat_stream": "stream",
    "/api/v1/": "rest",
    "/x/all/mcp": "mcp",
    "/mcp": "mcp",
    "/health/": "health",
    "/metrics": "metrics",
    "/openapi.json": "page",
}
"""By what a path begins with, the longest first."""
UNTRACED = ("health", "metrics")
"""Asked every few seconds, by who looks after the process."""
CARRIED = ("traceparent", "tracestate")
CORRELATION_HEADER = b"x-correlation-id"
DEFECT, DONE, CLOSED = 500, 200, 499
"""Status of a request that failed, of one that did not, and of one whose caller left."""
METHODS = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"})


class WatchedDoors:
    """Stands before all other middleware of an app whose state has the service; pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        """Watch an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch a request or a socket while it lasts."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        metrics: Metrics = scope["app"].state.service.metrics
        metrics.connected(kind, 1)
        try:
            if kind == "http":
                await self._request(metrics, scope, receive, send)
            else:  # its requests are watched one by one
                await self._app(scope, receive, send)
        finally:
            metrics.connected(kind, -1)

    async def _request(self, metrics: Metrics, scope: Scope, receive: Receive, send: Send) -> None:
        door = door_of(scope["path"])
        status = CLOSED
        with traced(metrics, door, scope) as span:

            async def seen(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    if span is not None:
                        note_answer(span, message)
                await send(message)

            try:
                inner = scope if span is None else {**scope, SPAN: span}
                await self._app(inner, receive, seen)
            except Exception:
                status = DEFECT
                raise
            finally:
                metrics.answered(door, status)


def door_of(path: str) -> str:
    """Name the door that a path leads to."""
    if path == "/":
        return "page"
    return next((door for start, door in DOORS.items() if path.startswith(start)), "other")


def traced(metrics: Metrics, door: str, scope: Scope) -> AbstractContextManager[Span | None]:
    """Begin the trace of a request over HTTP, where traces are written."""
    if metrics.tracer is None or door in UNTRACED:
        return nullcontext()
    headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
    carrier = {name: headers[name].decode("latin-1") for name in CARRIED if name in headers}
    method = scope["method"] if scope["method"] in METHODS else "_OTHER"
    facts = {"http.request.method": method, "persona.door": door}
    return metrics.tracer.call(f"{method} {door}", carrier, facts)


def note_answer(span: Span, message: Message) -> None:
    """Add to a span what the head of an answer says."""
    span.note({"http.response.status_code": message["status"]})
    for name, value in message.get("headers", ()):
        if name == CORRELATION_HEADER:
            span.note({"persona.correlation_id": value.decode("latin-1")})


@contextmanager
def watched_call(metrics: Metrics, door: str, given: Any) -> Iterator[None]:
    """Watch a call at a door that has no HTTP: `websocket` or `stdio`.

    Args:
        metrics: Where it is counted.
        door: Which.
        given: The arguments, or `_meta` of MCP; a trace is taken over from it.
    """
    status = DONE
    span: AbstractContextManager[Span | None] = nullcontext()
    if metrics.tracer is not None:
        span = metrics.tracer.call(door, carrier_of(given), {"persona.door": door})
    try:
        with span:
            yield
    except BaseException as error:
        wire = WIRES.get(code_of(error))
        status = CLOSED if wire is None else wire.http
        raise
    finally:
        metrics.answered(door, status)


def carrier_of(given: Any) -> Mapping[str, str]:
    """Find the caller's trace in the `_meta` of a call, or in what is that itself."""
    if not isinstance(given, Mapping):
        return {}
    meta = given.get("_meta", given)
    if not isinstance(meta, Mapping):
        return {}
    return {name: meta[name] for name in CARRIED if isinstance(meta.get(name), str)}


def called_at(
    metrics: Metrics, scope: Mapping[str, Any] | None, meta: Any
) -> AbstractContextManager[None]:
    """Watch a call of a tool: over stdio as a call of its own, over HTTP below its request's span.

    Args:
        metrics: Where it is counted.
        scope: Of the request over HTTP; None over stdio.
        meta: The call's `_meta`.
    """
    if scope is None:
        return watched_call(metrics, "stdio", meta)
    span = scope.get(SPAN)
    if span is None or metrics.tracer is None:
        return nullcontext()
    return metrics.tracer.inside(span)
