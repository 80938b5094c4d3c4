"""Whether the server is alive, and whether its parts answer: database, index, model, MCP itself."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import structlog
from sqlalchemy import select
from starlette.types import ASGIApp, Message

from persona_mcp.state.errors import PersonaError
from persona_mcp.state.prepared import Prepared

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

log = structlog.get_logger(__name__)

NEEDED = ("database", "mcp")
"""Without these nobody can be served; without the others less can be done."""
MILLISECONDS = 1000
HANDSHAKE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "health", "version": "1"},
    },
}
OK = 200
MCP = "/mcp"
Checks = Mapping[str, Callable[[], Awaitable[str]]]
"""By its name, what uses a part once and says what it found."""


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        ok: The part answers.
        latency_ms: How long it took, in milliseconds.
        detail: What was found, without secrets.
    """

    ok: bool
    latency_ms: float
    detail: str


@dataclass(frozen=True)
class Report:
    """All checks of one moment.

    Attributes:
        at: When, in seconds of the monotonic clock.
        checks: By part.
    """

    at: float
    checks: dict[str, Check]

    @property
    def status(self) -> Literal["ok", "degraded", "down"]:
        """Say ok, degraded (a part that can be done without) or down."""
        failed = [name for name, check in self.checks.items() if not check.ok]
        if not failed:
            return "ok"
        return "down" if any(name in NEEDED for name in failed) else "degraded"

    def shown(self, stopping: bool) -> dict[str, Any]:
        """Return the report as it is answered, with its age in seconds."""
        return {
            "status": "stopping" if stopping else self.status,
            "age_s": round(time.monotonic() - self.at, 3),
            "checks": {name: asdict(check) for name, check in self.checks.items()},
        }


class Health:
    """Checks every part at once, and answers from the last report for a while."""

    def __init__(self, service: "Service", mcp: ASGIApp) -> None:
        """Check these parts.

        Args:
            service: Whose database, index and model.
            mcp: The app of the MCP door.
        """
        self._service = service
        self._mcp = mcp
        self._last: Report | None = None
        self._asking = asyncio.Lock()

    async def report(self) -> Report:
        """Return the last report, or make one."""
        async with self._asking:
            limits = self._service.settings.server
            last = self._last
            if last is None or time.monotonic() - last.at > limits.checks_kept_s:
                checks: Checks = {
                    "database": lambda: database_answers(self._service),
                    "vector_index": lambda: index_answers(self._service),
                    "model": self._service.model.check,
                    "mcp": self._call_mcp,
                }
                found = await check_parts(checks, limits.check_s)
                last = Report(time.monotonic(), found)
                self._last = last
            return last

    async def _call_mcp(self) -> str:
        """Open a session of the handshake era, which needs all of the door's machinery."""
        status, headers = await ask(self._mcp, "POST", MCP, json.dumps(HANDSHAKE).encode(), {})
        if status != OK:
            raise PersonaError(f"the MCP door answers {status}; start the server again")
        session = headers.get(b"mcp-session-id", b"").decode()
        await ask(self._mcp, "DELETE", MCP, b"", {"mcp-session-id": session})
        return "a session was opened and closed"


async def database_answers(service: "Service") -> str:
    """Ask the database for a number.

    Raises:
        StorageUnavailable: It does not answer.
    """
    await service.database.read(Prepared(select(1)).scalar)
    return f"{service.database.engine.dialect.name} answers"


async def index_answers(service: "Service", worlds: Collection[str] | None = None) -> str:
    """Ask the index whether it is there, and see what is still to be put into it.

    Args:
        service: Whose index.
        worlds: Whose memories are counted that wait; None for those of all.

    Raises:
        StorageUnavailable: It does not answer.
    """
    index = service.index
    trouble = f"; {index.trouble}" if index.trouble else ""
    await index.check()
    return f"{index.kind}; {await service.indexer.pending(worlds)} memories wait{trouble}"


async def check_parts(checks: Checks, limit_s: float) -> dict[str, Check]:
    """Carry out checks at once, each within a limit, and return what each found."""
    found = await asyncio.gather(*(tried(check, limit_s) for check in checks.values()))
    return dict(zip(checks, found, strict=True))


async def tried(check: Callable[[], Awaitable[str]], limit_s: float) -> Check:
    """Carry out a check within a limit."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(limit_s):
            ok, detail = True, await check()
    except PersonaError as error:
        ok, detail = False, error.message
    except TimeoutError:
        ok, detail = False, f"no answer within {limit_s:g} s"
    except Exception:  # whatever it is, that part does not answer
        log.exception("health check failed")
        ok, detail = False, "failed on our side; the log has the cause"
    return Check(ok, round((time.monotonic() - started) * MILLISECONDS, 1), detail)


async def ask(
    app: ASGIApp, method: str, path: str, body: bytes, more: dict[str, str]
) -> tuple[int, dict[bytes, bytes]]:
    """Send a request to an app in this process, read its answer to the end, and tell its head."""
    headers = {
        "host": "localhost",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        **more,
    }
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
    }
    sent: list[Message] = []
    asked = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        message = next(asked, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    head = sent[0]
    return head["status"], dict(head["headers"])
