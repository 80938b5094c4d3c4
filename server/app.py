"""The HTTP app: MCP, REST with its streams, WebSocket, and health, over one service.

`create_app` makes it; its lifespan opens the service and closes it. `persona serve` runs it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from persona_mcp.config.access_settings import OAuthSettings
from persona_mcp.config.settings import Settings
from persona_mcp.server.access import METADATA, Access, Identified
from persona_mcp.server.admission import check_scope
from persona_mcp.server.challenge import Challenge
from persona_mcp.server.door_watch import WatchedDoors
from persona_mcp.server.guard import (
    ComingBack,
    Guard,
    Noticing,
    problem_response,
    security_of,
    sharing,
)
from persona_mcp.server.health import Health
from persona_mcp.server.issuer import Issuer, audiences_of, metadata_of
from persona_mcp.server.mcp import Serving, make_server
from persona_mcp.server.rest import PREFIX as REST
from persona_mcp.server.rest import openapi_of, rest_router
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.websocket import WebSocketDoor
from persona_mcp.state.callers import current_caller
from persona_mcp.state.errors import InvalidRequest, MethodNotFound, PersonaError

log = structlog.get_logger(__name__)

PATHS = {"/mcp": "core", "/x/all/mcp": "all"}
"""Where MCP is served, and with which toolset."""
SOCKETS = ("/ws", "/mcp")
"""Where JSON-RPC is served over WebSocket; at the second for the original server's clients."""
REQUIRED = "required"
"""Of `access.tokens`."""
ROOM_S = 60.0
"""Some MCP session is likely to have ended after so long."""
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - what is told apart, not bound to
NOT_FOUND, NOT_ALLOWED = 404, 405
Endpoint = Callable[..., Any]
Opening = Callable[[], AbstractAsyncContextManager[Service]]


class MCPDoor:
    """One toolset over Streamable HTTP, in both protocol eras.

    Attributes:
        app: The ASGI app.
        broken: Set when the session manager has ended by itself; it cannot be started again.
    """

    def __init__(
        self, settings: Settings, toolset: str, service: Callable[[], Service], serving: Serving
    ) -> None:
        """Make the door; `open` starts it."""

        async def ready() -> Service:
            return service()

        limits = settings.server
        self._manager = StreamableHTTPSessionManager(
            serving(ready, toolset, settings.conversation.progress_s, limits.heartbeat_s),
            session_idle_timeout=limits.mcp_session_idle_s,
            max_request_body_size=limits.max_body_bytes,
            max_sessions=limits.mcp_sessions,
        )
        room_s = min(ROOM_S, limits.mcp_session_idle_s)
        self.app: ASGIApp = Noticing(ComingBack(self._manager.handle_request, room_s))
        self.broken = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Serve while the block lasts; in a task of its own, so that its end is noticed."""
        started, stop = asyncio.Event(), asyncio.Event()
        keeper = asyncio.create_task(self._keep(started, stop), name="MCP sessions")
        await started.wait()
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self, started: asyncio.Event, stop: asyncio.Event) -> None:
        try:
            async with self._manager.run():
                started.set()
                await stop.wait()
        except Exception:  # nothing is above this task that could tell
            log.exception("the MCP sessions ended")
        finally:
            started.set()
            if not stop.is_set():
                self.broken.set()


def create_app(
    settings: Settings,
    *,
    opening: Opening | None = None,
    everybody: bool = False,
    guarded: bool = False,
    pages: bool = True,
    serving: Serving = make_server,
) -> FastAPI:
    """Make the app; nothing is opened before its lifespan begins.

    Args:
        settings: What to serve, and its limits.
        opening: In place of `open_service(settings)` (tests, Studio).
        everybody: Answer under any host name (`--insecure` with no hosts given).
        guarded: Every caller needs a token; else it is as `access.tokens` says.
        pages: Let pages of the allowed origins read answers (CORS); where another does that, not.
        serving: In place of `make_server`, to put more on the MCP servers (conformance tests).
    """
    limits, oauth = settings.server, settings.oauth
    required = guarded or settings.access.tokens == REQUIRED
    issuer = Issuer(oauth, audiences_of(oauth, tuple(PATHS))) if oauth.issuer else None
    doors = {
        path: MCPDoor(settings, toolset, lambda: app.state.service, serving)
        for path, toolset in PATHS.items()
    }

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for door in doors.values():
                await stack.enter_async_context(door.open())
            opened = opening() if opening else open_service(settings)
            service = await stack.enter_async_context(opened)
            app.state.service = service
            app.state.access = Access(settings.access, service.tokens, issuer, required=required)
            app.state.health = Health(service, doors["/mcp"].app)
            yield

    app = FastAPI(
        title="Persona MCP",
        version=version("persona-mcp"),
        description="AI personas that remember, feel and relate.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(WatchedDoors),
            Middleware(
                Guard,
                security=security_of(
                    [*limits.allowed_hosts, *named(limits.host)],
                    limits.allowed_origins,
                    everybody=everybody and not limits.allowed_hosts,
                ),
            ),
            *sharing(limits.allowed_origins if pages else ()),
            Middleware(Identified, challenge=Challenge(PATHS, metadata_addresses(oauth))),
        ],
    )
    app.state.doors = doors
    app.state.websockets = WebSocketDoor(settings.websocket.connections, lambda: app.state.service)
    app.openapi = lambda: openapi_of(app)  # type: ignore[method-assign]
    add_routes(app, oauth)
    app.add_exception_handler(PersonaError, on_error)
    app.add_exception_handler(HTTPException, on_http_error)
    return app


def add_routes(app: FastAPI, oauth: OAuthSettings) -> None:
    """Put the doors, which are made already, at their paths."""
    # First, or each call would try every REST route before.
    for path, door in app.state.doors.items():
        app.router.routes.append(Route(path, door.app, include_in_schema=False))
    app.include_router(rest_router())
    app.add_api_route("/", front, methods=["GET"], tags=["health"], summary="What this is")
    app.add_api_route("/health/live", live, methods=["GET"], tags=["health"], summary="It serves")
    app.add_api_route(
        "/health/ready", ready, methods=["GET"], tags=["health"], summary="State of all"
    )
    app.add_api_route("/metrics", numbers, methods=["GET"], include_in_schema=False)
    looks: dict[str, Endpoint] = {"/": front, "/health/live": live, "/health/ready": ready}
    for path, look in looks.items():  # monitors ask for no more than the head
        app.add_api_route(path, look, methods=["HEAD"], include_in_schema=False)
    if oauth.issuer:
        for path in ("", *PATHS):
            app.router.routes.append(Route(METADATA + path, trusting(oauth, path)))
    for path in SOCKETS:
        app.router.routes.append(WebSocketRoute(path, app.state.websockets.serve))


def named(host: str) -> list[str]:
    """Return the Host headers that name the address it listens on; none where it is every one."""
    shown = f"[{host}]" if ":" in host else host
    return [] if host in EVERY_ADDRESS else [shown, f"{shown}:*"]


def metadata_addresses(oauth: OAuthSettings) -> dict[str, str]:
    """Return where is told whose tokens are taken, by path; nothing where no issuer is trusted."""
    base = oauth.resource.rstrip("/")
    return {path: base + METADATA + path for path in ("", *PATHS)} if oauth.issuer else {}


def trusting(oauth: OAuthSettings, path: str) -> Callable[[Request], Response]:
    """Make the function that says whose tokens are taken at a path."""
    told = metadata_of(oauth, path)
    return lambda _: JSONResponse(told)


async def front(request: Request) -> dict[str, Any]:
    """Say what this is, how it is, and where its doors are; without a token nobody asks here."""
    report = await request.app.state.health.report()
    return {
        "name": request.app.title,
        "version": request.app.version,
        "status": report.status,
        "doors": {
            "mcp": list(PATHS),
            "websocket": list(SOCKETS),
            "rest": REST,
            "description": "/openapi.json",
            "health": "/health/ready",
        },
    }


async def live() -> dict[str, str]:
    """Say that the process serves requests."""
    return {"status": "ok"}


async def ready(request: Request) -> JSONResponse:
    """Say whether database, index, model and MCP answer; 503 when nobody can be served.

    What each of them said counts what waits in every world: it is told only to who may read in all.
    """
    state = request.app.state
    report, stopping = await state.health.report(), state.service.runs.closing
    status = 503 if stopping or report.status == "down" else 200
    told = report.shown(stopping)
    caller = current_caller()
    if "read" not in caller.scopes or caller.worlds is not None:
        told = {"status": told["status"]}
    return JSONResponse(told, status)


async def numbers(request: Request) -> Response:
    """Answer what was counted, as Prometheus asks for it.

    Raises:
        Forbidden: The caller lacks the scope.
    """
    check_scope("/metrics", "admin")
    service: Service = request.app.state.service
    await asyncio.gather(service.count_waiting(), request.app.state.health.report())
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def on_error(_: Request, error: Exception) -> JSONResponse:
    """Answer an error of ours."""
    assert isinstance(error, PersonaError)
    return problem_response(error)


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Answer an unknown path or method in our form."""
    assert isinstance(error, HTTPException)
    path = f"{request.method} {request.url.path[:80]}"
    problem: PersonaError = InvalidRequest(str(error.detail))
    if error.status_code == NOT_FOUND:
        problem = MethodNotFound(f"{path} is not served; /openapi.json lists what is")
    elif error.status_code == NOT_ALLOWED:
        problem = InvalidRequest(f"{path}: another method is served there, see /openapi.json")
    answer = problem_response(problem, error.status_code)
    answer.headers.update(error.headers or {})
    return answer
