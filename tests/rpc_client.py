"""A client of the WebSocket door that sends what it is told to, and reads what comes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from persona_mcp.config.server_settings import WebSocketSettings
from persona_mcp.server.chat_stream import ENDS
from persona_mcp.server.service import Service
from tests.http_server import LIMIT_S, Served


def with_sockets(service: Service, **limits: float) -> Service:
    """Return the service with other limits of its WebSocket door."""
    sockets = WebSocketSettings(**limits)
    return replace(service, settings=service.settings.model_copy(update={"websocket": sockets}))


@dataclass
class Client:
    """One connection.

    Attributes:
        socket: The connection itself.
        ids: The next request's id.
    """

    socket: ClientConnection
    ids: "count[int]" = field(default_factory=lambda: count(1))

    async def send(self, method: str, params: Any = None, **more: Any) -> None:
        """Send a request, or a notification if `more` has no id."""
        await self.socket.send(
            json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more})
        )

    async def read(self) -> Any:
        """Read one frame."""
        return json.loads(await self.socket.recv())

    async def ask(self, method: str, params: Any = None) -> dict[str, Any]:
        """Send a request and read its answer, which must be the next one."""
        id = next(self.ids)
        await self.send(method, params, id=id)
        told: dict[str, Any] = await self.read()
        assert told["id"] == id, told
        return told

    async def result(self, method: str, params: Any = None) -> Any:
        """Send a request and return its result."""
        told = await self.ask(method, params)
        assert "error" not in told, told
        return told["result"]

    async def error(self, method: str, params: Any = None) -> dict[str, Any]:
        """Send a request and return the error that it must give."""
        told = await self.ask(method, params)
        assert "result" not in told, told
        error: dict[str, Any] = told["error"]
        return error

    async def events(self, last: str = "") -> list[dict[str, Any]]:
        """Read the frames of a stream up to the first event of a kind, or to the stream's end."""
        found = []
        while True:
            found.append(await self.read())
            if found[-1]["result"]["event_type"] in (last, *ENDS):
                return found


ManyAtOnce = Callable[[str, Any], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def many_at_once(client: Client) -> AsyncIterator[ManyAtOnce]:
    """Give a function that sends a request and waits for its own answer among the others."""
    waiting: dict[Any, asyncio.Future[dict[str, Any]]] = {}

    async def listen() -> None:
        while True:
            told = await client.read()
            waiting.pop(told["id"]).set_result(told)

    async def ask(method: str, params: Any) -> dict[str, Any]:
        id = next(client.ids)
        answer = waiting[id] = asyncio.get_running_loop().create_future()
        await client.send(method, params, id=id)
        told = await answer
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    listener = asyncio.create_task(listen())
    try:
        yield ask
    finally:
        listener.cancel()


@asynccontextmanager
async def connected(
    served: Served, path: str = "/ws", origin: str | None = None, legacy: bool = False, **more: Any
) -> AsyncIterator[Client]:
    """Open a connection while the block lasts."""
    async with connect(
        served.url.replace("http", "ws", 1) + path,
        origin=Origin(origin) if origin else None,
        subprotocols=[Subprotocol("persona-mcp.legacy")] if legacy else None,
        proxy=None,
        open_timeout=LIMIT_S,
        max_size=None,
        **more,
    ) as socket:
        yield Client(socket)
