"""The answer for a caller whom nobody knows: 401, and how to become known (RFC 6750)."""

from collections.abc import Collection, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from persona_mcp.server.wire import WIRES, problem_of
from persona_mcp.state.errors import PersonaError

REALM = "persona-mcp"


class Challenge:
    """Answers callers that are not known, each in the form of its door."""

    def __init__(self, rpc: Collection[str], metadata: Mapping[str, str] | None = None) -> None:
        """Prepare the answers.

        Args:
            rpc: Paths whose errors are JSON-RPC's, as MCP's are.
            metadata: By path, the address of what RFC 9728 tells of it; by "" of every other one.
        """
        self._rpc = rpc
        self._metadata = metadata or {}

    async def answer(self, error: PersonaError, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self.response(error, scope["path"])(scope, receive, send)

    def response(self, error: PersonaError, path: str) -> Response:
        """Write the answer."""
        problem = problem_of(error)
        problem["data"].pop("invalid_token", None)
        status = WIRES[error.code].http
        headers = {}
        if error.code == "unauthenticated":
            headers["WWW-Authenticate"] = self.header(error, path)
        body: dict[str, Any] = {"error": problem}
        if path in self._rpc:
            body = {"jsonrpc": "2.0", "id": None, **body}
        return JSONResponse(body, status, headers)

    def header(self, error: PersonaError, path: str) -> str:
        """Write what WWW-Authenticate says; who showed no token is told of no error (RFC 6750)."""
        parts = [f'Bearer realm="{REALM}"']
        if error.data.get("invalid_token"):
            parts.append('error="invalid_token"')
        where = self._metadata.get(path) or self._metadata.get("")
        if where:
            parts.append(f'resource_metadata="{where}"')
        return ", ".join(parts)
