"""What stands before every HTTP door: who may call from where, one correlation id, our errors.

Pure ASGI: a middleware that wraps responses would hold up streams.
"""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from persona_mcp.server.challenge import REALM
from persona_mcp.server.mcp import LOST
from persona_mcp.server.mcp_context import CORRELATION
from persona_mcp.server.websocket import FOREIGN, turn_away
from persona_mcp.server.wire import problem_of, status_of, unreadable
from persona_mcp.state.correlation import correlation, new_correlation_id
from persona_mcp.state.errors import (
    Forbidden,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    PersonaError,
)

log = structlog.get_logger(__name__)

HEADER = b"x-correlation-id"
RETRY_AFTER, NO_ROOM = b"retry-after", 503
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """Refuses foreign hosts and origins, gives every request a correlation id, answers for defects.

    A page of another site must not reach a server on the reader's own machine (DNS rebinding,
    forged requests), so `Host` and `Origin` are checked for every path alike.
    """

    def __init__(self, app: ASGIApp, security: TransportSecuritySettings) -> None:
        """Stand before an app."""
        self._app = app
        self._security = TransportSecurityMiddleware(security)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on."""
        if scope["type"] == "websocket":
            asked = Request({**scope, "type": "http"})
            if await self._security.validate_request(asked) is None:
                await self._app(scope, receive, send)
            else:
                await turn_away(WebSocket(scope, receive, send), FOREIGN)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(HEADER, b"").decode("latin-1")
        with correlation(given or new_correlation_id()) as chosen:
            begun = False

            async def marked(message: Message) -> None:
                nonlocal begun
                if message["type"] == "http.response.start":
                    begun = True
                    header = (HEADER, chosen.encode())
                    message = {**message, "headers": [*message.get("headers", ()), header]}
                await send(message)

            refused = await self._security.validate_request(Request(scope))
            if refused is None:
                try:
                    await self._app({**scope, CORRELATION: chosen}, receive, marked)
                except Exception:
                    log.exception("request failed", path=scope["path"])
                    if begun:
                        raise
                    ours = InternalError()
                    await problem_response(ours)(scope, receive, marked)
                return
            which = "Host" if refused.status_code == HOST_REFUSED else "Origin"
            error = Forbidden(
                f"{which} is not one that this server answers; name it in "
                f"PERSONA_SERVER__ALLOWED_{which.upper()}S",
                field=which,
            )
            await problem_response(error, refused.status_code)(scope, receive, marked)


HOST_REFUSED = 421


def security_of(
    hosts: Sequence[str], origins: Sequence[str], *, everybody: bool
) -> TransportSecuritySettings:
    """Say which Host and Origin headers are answered.

    Args:
        hosts: Beside this machine's own names.
        origins: Beside pages of this machine.
        everybody: Answer whatever name the server is called by (`--insecure`, no hosts given).
    """
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=not everybody,
        allowed_hosts=[*LOOPBACK, *(f"{host}:*" for host in LOOPBACK), *hosts],
        allowed_origins=[
            *(f"http://{host}" for host in LOOPBACK),
            *(f"http://{host}:*" for host in LOOPBACK),
            *origins,
        ],
    )


def sharing(origins: Sequence[str]) -> list[Middleware]:
    """Let pages of these origins read what they are answered (CORS); of no others.

    A preflight shows no token, so it is answered before anybody asks for one.
    """
    if not origins:
        return []
    ports = "|".join(re.escape(one[:-1]) + r"\d+" for one in origins if one.endswith(":*"))
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=[one for one in origins if not one.endswith(":*")],
            allow_origin_regex=ports or None,
            allow_methods=["*"],
            allow_headers=["*"],  # Authorization and Mcp-* by name, as the preflight asks
            expose_headers=list(EXPOSED),
        )
    ]


EXPOSED = ("Mcp-Session-Id", "X-Correlation-Id", "WWW-Authenticate", "Retry-After")
"""Headers of answers that such pages may read, beside those that every page may."""


def problem_response(error: PersonaError, status: int | None = None) -> JSONResponse:
    """Write an error as an HTTP answer: `{"error": {code, message, data}}`."""
    problem = problem_of(error)
    headers = {}
    if (seconds := problem["data"].get("retry_after_seconds")) is not None:
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    if (scope := problem["data"].get("scope")) is not None and isinstance(error, Forbidden):
        wanted = f'error="insufficient_scope", scope="{scope}"'
        headers["WWW-Authenticate"] = f'Bearer realm="{REALM}", {wanted}'
    return JSONResponse({"error": problem}, status or status_of(error), headers)


async def read_arguments(request: Request, limit: int) -> dict[str, Any]:
    """Read the JSON object of a request's body; an empty body is an empty object.

    Raises:
        InvalidRequest: The body is not declared as JSON, or is no object.
        LimitExceeded: It is longer than `limit` bytes.
        ParseError: It is not JSON, or too deep.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise LimitExceeded(
                f"body: allowed are {limit} bytes; send less, or raise "
                "PERSONA_SERVER__MAX_BODY_BYTES",
                field="body",
            )
    if not body:
        return {}
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        raise InvalidRequest("Content-Type: allowed is application/json", field="Content-Type")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise unreadable("the body is not JSON in UTF-8", error) from error
    if not isinstance(found, dict):
        raise InvalidRequest("the body: allowed is a JSON object with the arguments by name")
    return found


@asynccontextmanager
async def watched(receive: Receive) -> AsyncIterator[asyncio.Event]:
    """Give an event that is set when the caller of a request, whose body was read, goes away."""
    lost = asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        lost.set()

    watcher = asyncio.create_task(watch(), name="watch for the caller")
    try:
        yield lost
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


class Noticing:
    """Passes requests on with the event that tells that their caller is gone."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an app that itself listens for the caller's going."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        lost = asyncio.Event()

        async def noticed() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                lost.set()
            return message

        await self._app({**scope, LOST: lost}, noticed, send)


class ComingBack:
    """Says when to come back where an app has no room (503) and does not say so itself."""

    def __init__(self, app: ASGIApp, after_s: float) -> None:
        """Wrap an app whose callers may find room after so many seconds."""
        self._app = app
        self._after = str(math.ceil(after_s)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == NO_ROOM:
                message = {**message, "headers": [*message["headers"], (RETRY_AFTER, self._after)]}
            await send(message)

        await self._app(scope, receive, told)
