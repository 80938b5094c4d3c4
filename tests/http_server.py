"""An app served by uvicorn in the test's own process, and readers of what it streams."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from persona_mcp.config.server_settings import ServerSettings
from persona_mcp.config.settings import Settings
from persona_mcp.server.app import create_app
from persona_mcp.server.cli.serve import transport
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from tests.calls import rows

API = "/api/v1"
CHAT = f"{API}/persona/chat"
STREAM = f"{API}/persona/chat_stream"
HEARTBEAT = "heartbeat"
LIMIT_S = 30.0
LOOK_S = 0.01
OURS_TO_KEEP = "_shutdown_watcher"
"""The one task that sse_starlette leaves in each event loop that has streamed."""


@dataclass(frozen=True)
class Served:
    """An app that answers.

    Attributes:
        url: Its base address.
        service: What it serves; opened and closed by the test, or by the app.
        app: The app itself.
    """

    url: str
    service: Service
    app: FastAPI

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect a bare socket to."""
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def client(self) -> httpx.AsyncClient:
        """Open an HTTP client; two of them are two callers."""
        return httpx.AsyncClient(base_url=self.url, timeout=LIMIT_S, trust_env=False)


class Uvicorn(uvicorn.Server):
    """Uvicorn that leaves signals alone, says when it has started, and stops at once."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(transport(app, settings))
        self.answers, self.stop = asyncio.Event(), asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        self.answers.set()
        await self.stop.wait()


@asynccontextmanager
async def serving(
    app: FastAPI, settings: Settings, send_buffer: int | None = None
) -> AsyncIterator[Served]:
    """Serve an app on a free port of this machine while the block lasts.

    Args:
        app: Whose lifespan opens a service.
        settings: Of its connections.
        send_buffer: Bytes that the system takes for a reader who does not read; None leaves it be.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    if send_buffer is not None:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    server = Uvicorn(app, settings)
    task = asyncio.create_task(server.serve([listening]), name="uvicorn")
    started = asyncio.create_task(server.answers.wait())
    try:
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        assert server.started, "the app did not start"
        port = listening.getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", app.state.service, app)
    finally:
        started.cancel()
        server.stop.set()
        await task


def with_limits(service: Service, **limits: float) -> Service:
    """Return the service with other limits of its HTTP doors; everything else is the same."""
    server = ServerSettings(**limits)
    return replace(service, settings=service.settings.model_copy(update={"server": server}))


@asynccontextmanager
async def served(
    service: Service, settings: Settings | None = None, send_buffer: int | None = None
) -> AsyncIterator[Served]:
    """Serve a service that the test has opened.

    Args:
        service: What to serve.
        settings: Of the doors, if they are not to be the service's own.
        send_buffer: As for `serving`.
    """

    @asynccontextmanager
    async def opened() -> AsyncIterator[Service]:
        yield service

    chosen = settings or service.settings
    async with serving(create_app(chosen, opening=opened), chosen, send_buffer) as found:
        yield found


@dataclass(frozen=True)
class Frame:
    """One server-sent event; a comment has the event `heartbeat` and no id."""

    id: str | None
    event: str
    data: dict[str, Any]


async def frames_of(response: httpx.Response) -> AsyncGenerator[Frame]:
    """Read server-sent events as they come."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield Frame(None, HEARTBEAT, {})
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Frame(fields.get("id"), fields["event"], json.loads(fields["data"]))
            fields = {}


@asynccontextmanager
async def streaming(
    client: httpx.AsyncClient, body: dict[str, Any], after: str | None = None
) -> AsyncIterator[AsyncIterator[Frame]]:
    """Ask for a stream and give its events; leaving the block closes the connection."""
    headers = {} if after is None else {"Last-Event-ID": after}
    async with client.stream("POST", STREAM, json=body, headers=headers) as response:
        assert response.status_code == httpx.codes.OK, await response.aread()
        async with aclosing(frames_of(response)) as frames:
            yield frames


async def resumed(client: httpx.AsyncClient, stream_id: str, after: str | None) -> list[Frame]:
    """Take a stream up again as a browser does, and read it to its end."""
    headers = {} if after is None else {"Last-Event-ID": after}
    async with client.stream("GET", f"{STREAM}/{stream_id}", headers=headers) as response:
        assert response.status_code == httpx.codes.OK, await response.aread()
        return [frame async for frame in frames_of(response) if frame.event != HEARTBEAT]


async def until(frames: AsyncIterator[Frame], event: str) -> list[Frame]:
    """Read up to the first event of a kind."""
    found = []
    async for frame in frames:
        found.append(frame)
        if frame.event == event:
            return found
    raise AssertionError(f"the stream ended without {event}: {found}")


async def streamed(
    client: httpx.AsyncClient, body: dict[str, Any], after: str | None = None
) -> list[Frame]:
    """Ask for a stream and read its events to the end."""
    async with streaming(client, body, after) as frames:
        return [frame async for frame in frames if frame.event != HEARTBEAT]


def text_of(frames: list[Frame]) -> str:
    """Put the chunks together that count: those since the last restart."""
    said = ""
    for frame in frames:
        if frame.event == "stream_restart":
            said = ""
        elif frame.event == "stream_chunk":
            said += frame.data["chunk"]
    return said


async def soon(check: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Look until something is so, and return what the look gave."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := await check()):
        assert time.monotonic() < deadline, f"waited {LIMIT_S:g} s for {what}"
        await asyncio.sleep(LOOK_S)
    return found


def tasks() -> set[asyncio.Task[Any]]:
    """Return the tasks that are under way in this event loop, but for the one that may stay."""
    return {task for task in asyncio.all_tasks() if OURS_TO_KEEP not in repr(task.get_coro())}


async def runs_ended(service: Service) -> None:
    """Wait until no run is under way; a model that was stopped is not yet the end of its run."""

    async def ended() -> bool:
        return not len(service.runs)

    await soon(ended, "the runs to end")


@asynccontextmanager
async def leaving_nothing(service: Service) -> AsyncIterator[None]:
    """Check that a block leaves no run, no lease and no task behind; a connection is a task too."""
    before = tasks()
    yield

    async def leases_given_back() -> bool:
        found = await rows(service.database, tables.Conversation)
        return all(row["lease_owner"] is None for row in found)

    async def tasks_ended() -> bool:
        return not left()

    def left() -> set[str]:
        return {repr(task) for task in tasks() - before}

    await runs_ended(service)
    await soon(leases_given_back, "the leases to be given back")
    with contextlib.suppress(AssertionError):
        await soon(tasks_ended, "the tasks to end")
    assert left() == set()
