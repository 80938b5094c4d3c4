"""Whether the server is alive, and whether its parts answer (part_checks.py), and MCP itself."""

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from starlette.types import ASGIApp, Message

from persona_mcp.server.checking import Check, Checks, check_parts
from persona_mcp.server.part_checks import PartChecks
from persona_mcp.state.errors import PersonaError

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

NEEDED = ("database", "mcp")
"""Without these nobody can be served; without the others less can be done."""
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
            service: Whose parts.
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
                checks: Checks = {**PartChecks(self._service).all(), "mcp": self._call_mcp}
                found = await check_parts(checks, limits.check_s)
                self._service.metrics.well({name: check.ok for name, check in found.items()})
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
