"""Who calls: the token that a request shows is looked at before any door sees the request.

Pure ASGI, behind the guard: what is under it runs in the caller's name (`state/callers.py`). A
request over HTTP shows its token as `Authorization: Bearer`, and so may a WebSocket. A page in a
browser cannot set that header there: it offers two sub-protocols, `persona-mcp` and
`persona-mcp.bearer.TOKEN`, and is answered with the first. Never in the address: addresses are
written to logs, and kept in histories.
"""

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from persona_mcp.server.challenge import Challenge
from persona_mcp.server.mcp_context import IDENTITY
from persona_mcp.server.outbox import Close
from persona_mcp.server.websocket import turn_away
from persona_mcp.server.wire import problem_of
from persona_mcp.state.callers import LOCAL, NOBODY, Identity, called_by
from persona_mcp.state.errors import PersonaError, Unauthenticated

if TYPE_CHECKING:
    from persona_mcp.config.access_settings import AccessSettings
    from persona_mcp.state.tokens import TokenStore

log = structlog.get_logger(__name__)

AUTHORIZATION = b"authorization"
BEARER = "bearer"
OFFERED = "persona-mcp.bearer."
"""A browser's sub-protocol that shows a token begins so."""
MOST_CHARS = 8192
"""Of a token; those of issuers are long, but no longer than headers usually may be."""
METADATA = "/.well-known/oauth-protected-resource"
"""Under this path is told which issuer's tokens are taken (RFC 9728)."""
OPEN = ("/health/live", "/health/ready", METADATA)
"""What begins so answers without a token, too; it tells of the parts only to who may read."""
UNKNOWN = Close(1008, "a token is needed, and none, or none that is in use, was shown")
CLOSE_S = 2.0


class Issued(Protocol):
    """Tokens that somebody else issues."""

    def is_one(self, token: str) -> bool:
        """Tell whether a token looks like one of these."""

    async def identity(self, token: str) -> tuple[Identity, float]:
        """Check a token; returns its bearer, and when it expires, in seconds since the epoch.

        Raises:
            Unauthenticated: It is not good.
        """


@dataclass(frozen=True)
class Known:
    """A token that was looked at.

    Attributes:
        identity: Of its bearer.
        expires_at: Seconds since the epoch, UTC; None for never.
        looked_at: On the monotonic clock, in seconds.
    """

    identity: Identity
    expires_at: float | None
    looked_at: float


class Access:
    """Finds out who shows a token, and remembers it for a little while.

    What it remembers is half as old as `access.kept_s` at most, and an open connection is looked at
    as often: so within that time a token that was revoked acts no more, in this process or another.
    """

    def __init__(
        self,
        settings: "AccessSettings",
        tokens: "TokenStore",
        issued: Issued | None = None,
        *,
        required: bool,
    ) -> None:
        """Look at tokens.

        Args:
            settings: How long and how many are remembered.
            tokens: Those that were made here.
            issued: Those of an issuer; None where none is trusted.
            required: Who shows none may do nothing; else, everything.
        """
        self.every_s = settings.kept_s / 2
        self._most = settings.kept
        self._tokens = tokens
        self._issued = issued
        self._required = required
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    async def identity(self, token: str | None) -> Identity:
        """Return for whom a call with this token is.

        Raises:
            Unauthenticated: It is needed and missing, or is not one that is in use.
        """
        if token is None:
            if self._required:
                raise Unauthenticated(
                    "a token is needed: send it as Authorization: Bearer TOKEN; `persona token "
                    "create` makes one"
                )
            return LOCAL
        key, now = hashlib.sha256(token.encode()).digest(), time.monotonic()
        known = self._known.get(key)
        if known is None or now - known.looked_at > self.every_s:
            self._known.pop(key, None)
            known = await self._look(token, now)
            self._known[key] = known
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        if known.expires_at is not None and known.expires_at <= time.time():
            raise refused()
        return known.identity

    async def _look(self, token: str, now: float) -> Known:
        if len(token) > MOST_CHARS:
            raise refused()
        if self._issued is not None and self._issued.is_one(token):
            return Known(*await self._issued.identity(token), now)
        found = await self._tokens.find(token, time.time())
        if found is None:
            raise refused()
        return Known(found.identity, found.expires_at, now)


def refused() -> Unauthenticated:
    """Say that a token is not good; not why, since who guesses learns nothing from it."""
    return Unauthenticated(
        "the token is not one that is in use: it is unknown, has expired or was revoked; "
        "`persona token list` shows which there are",
        invalid_token=True,
    )


class Identified:
    """Lets a request through in its caller's name, or answers that nobody knows the caller."""

    def __init__(self, app: ASGIApp, challenge: Challenge) -> None:
        """Stand before an app whose state has the `access`.

        Args:
            app: What is behind.
            challenge: Writes the answer for who is not known.
        """
        self._app = app
        self._challenge = challenge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who calls, and pass the request on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        access: Access = scope["app"].state.access
        try:
            token = shown_token(scope)
            identity = await access.identity(token)
        except PersonaError as error:
            if scope["type"] != "http" or not scope["path"].startswith(OPEN):
                await self._refuse(error, scope, receive, send)
                return
            token, identity = None, NOBODY
        within = {**scope, IDENTITY: identity}
        if token is not None:
            within["user"] = bound_user(identity)
        with called_by(identity):
            if token is None:
                await self._app(within, receive, send)
            else:
                watch = Watch(access, token)
                await watch.over(self._app, within, receive, send, self._refuse)

    async def _refuse(
        self, error: PersonaError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["type"] == "http":
            await self._challenge.answer(error, scope, receive, send)
        elif isinstance(error, Unauthenticated):
            await turn_away(WebSocket(scope, receive, send), UNKNOWN)
        else:
            await turn_away(WebSocket(scope, receive, send), Close(1011, error.message[:120]))


Refuse = Callable[[PersonaError, Scope, Receive, Send], Awaitable[None]]


class Watch:
    """Looks at a caller's token again and again while an answer is under way, or a socket open."""

    def __init__(self, access: Access, token: str) -> None:
        """Watch over one request."""
        self._access = access
        self._token = token
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._error: Unauthenticated | None = None
        self._streams = False

    async def over(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, refuse: Refuse
    ) -> None:
        """Pass a request on; when its token is no longer good, end what is under way."""
        begun = False

        async def noticed(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                self._streams = streams(message)
            await send(message)

        self._task = asyncio.current_task()
        self._wait()
        try:
            await app(scope, receive, noticed)
        except asyncio.CancelledError:
            if self._error is None or self._task is None or self._task.uncancel() > 0:
                raise
            log.info("caller's token is no longer good", path=scope["path"])
            if begun:
                await self._end(self._error, scope, send)
            else:
                await refuse(self._error, scope, receive, send)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._looking is not None:
                self._looking.cancel()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._access.every_s, self._look)

    def _look(self) -> None:
        self._looking = asyncio.create_task(self._looked(), name="look at a caller's token")

    async def _looked(self) -> None:
        try:
            await self._access.identity(self._token)
        except Unauthenticated as error:
            self._error = error
            assert self._task is not None
            self._task.cancel()
            return
        except PersonaError as error:  # nothing is known of it now; the next look may tell
            log.warning("token not looked at", reason=error.message)
        self._wait()

    async def _end(self, error: Unauthenticated, scope: Scope, send: Send) -> None:
        """Tell the client of an answer that has begun that nothing more comes, and a stream why."""
        body = last_event(error) if self._streams else b""
        end: Message = {"type": "http.response.body", "body": body, "more_body": False}
        if scope["type"] == "websocket":
            end = {"type": "websocket.close", "code": UNKNOWN.code, "reason": UNKNOWN.reason}
        try:
            async with asyncio.timeout(CLOSE_S):
                await send(end)
        except (TimeoutError, RuntimeError, OSError):  # it had ended, or nobody is there
            log.debug("answer could not be ended", path=scope["path"])


def streams(start: Message) -> bool:
    """Tell whether an answer is of server-sent events."""
    kind = dict(start["headers"]).get(b"content-type", b"")
    return bool(kind.startswith(b"text/event-stream"))


def last_event(error: Unauthenticated) -> bytes:
    """Write the end of a stream whose reader may read no more."""
    told = json.dumps({"event_type": "stream_error", "error": problem_of(error)})
    return f"event: stream_error\r\ndata: {told}\r\n\r\n".encode()


def shown_token(scope: Scope) -> str | None:
    """Return the token that a request shows; a browser's is taken out of its sub-protocols.

    Raises:
        Unauthenticated: It shows several.
    """
    given = [value for name, value in scope["headers"] if name == AUTHORIZATION]
    shown = [token for value in given if (token := bearer(value.decode("latin-1"))) is not None]
    if scope["type"] == "websocket":
        offered: list[str] = scope["subprotocols"]
        shown += [one.removeprefix(OFFERED) for one in offered if one.startswith(OFFERED)]
        scope["subprotocols"] = [one for one in offered if not one.startswith(OFFERED)]
    if len(given) > 1 or len(shown) > 1:
        raise Unauthenticated("Authorization: allowed is one token; send one", invalid_token=True)
    return shown[0] if shown else None


def bearer(header: str) -> str | None:
    """Return the token of an Authorization header; None where it is of another scheme."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == BEARER else None


def bound_user(identity: Identity) -> AuthenticatedUser:
    """Return what the SDK binds an MCP session, and what it seals for a client, to."""
    its = AccessToken(token="", client_id=identity.id, scopes=sorted(identity.scopes))
    return AuthenticatedUser(its)
