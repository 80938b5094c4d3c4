"""What a call that does nothing costs at each door, in CPU time of this process.

Each door's app is called directly, without a network: a client's and the kernel's work would only
blur the figures. The baselines are a plain FastAPI route, and the bare MCP SDK with as many tools.

    uv run python -m benchmarks.doors
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from mcp.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent
from rich.console import Console
from rich.table import Table
from starlette.types import ASGIApp

from benchmarks.instant import HashEmbedder, InstantModel
from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.server.app import create_app
from persona_mcp.server.health import OK, ask
from persona_mcp.server.mcp import tool_of
from persona_mcp.server.operations import system as system_operations
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.registry import (
    REGISTRY,
    Arguments,
    Call,
    Result,
    call_operation,
)
from persona_mcp.server.service import open_service

MICROSECONDS = 1_000_000
NOTHING = "system_nothing"
MODERN = "2026-07-28"
HANDSHAKE = "2025-11-25"


class Nothing(Result):
    """Result of a call that does nothing."""

    ok: bool = True


async def nothing(call: Call, arguments: Arguments) -> Nothing:
    """Do nothing."""
    return Nothing()


nothing.__module__ = system_operations.__name__  # the catalogue orders operations by module


def register() -> None:
    """Add the operation that does nothing to the registry."""
    REGISTRY[NOTHING] = replace(
        REGISTRY["system_status"],
        name=NOTHING,
        run=nothing,
        arguments=Arguments,
        result=Nothing,
    )


@dataclass(frozen=True)
class Request:
    """One request to an app."""

    path: str
    body: bytes
    headers: dict[str, str]


async def send_to(app: ASGIApp, request: Request) -> dict[bytes, bytes]:
    """Call an app, read its answer to the end, and return its headers.

    Raises:
        RuntimeError: It did not answer with 200.
    """
    headers = {"host": "127.0.0.1:8000", **request.headers}
    status, answered = await ask(app, "POST", request.path, request.body, headers)
    if status != OK:
        raise RuntimeError(f"{request.path} answered {status}")
    return answered


def modern(name: str) -> Request:
    """Ask for a tool in the era of 2026-07-28: one request that says all."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": name, "arguments": {}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": name,
    }
    return Request("/mcp", json.dumps(body).encode(), headers)


async def in_session(app: ASGIApp, name: str) -> Request:
    """Open a session of the handshake era, and return a call in it."""
    client = {"name": "bench", "version": "1"}
    params = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": client}
    first = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    answered = await send_to(app, Request("/mcp", json.dumps(first).encode(), {}))
    session = answered[b"mcp-session-id"].decode()
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": name, "arguments": {}},
    }
    headers = {"mcp-session-id": session, "mcp-protocol-version": HANDSHAKE}
    return Request("/mcp", json.dumps(call).encode(), headers)


def bare_sdk() -> StreamableHTTPSessionManager:
    """Make the SDK's server with the product's tools, each of which does nothing."""
    tools = [tool_of(operation) for operation in operations("all")]

    async def list_tools(context: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call_tool(context: Any, params: CallToolRequestParams) -> CallToolResult:
        text = TextContent(text='{"ok": true}')
        return CallToolResult(content=[text], structured_content={"ok": True})

    server = Server("bare", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
    return StreamableHTTPSessionManager(server)


def plain_route() -> FastAPI:
    """Make an app with one route that does nothing."""
    app = FastAPI()

    @app.post("/nothing")
    async def answer() -> dict[str, bool]:
        return {"ok": True}

    return app


Work = Callable[[], Awaitable[object]]


async def costs(works: dict[str, Work], batches: int, calls: int) -> dict[str, tuple[float, float]]:
    """Measure calls: least and median CPU time over batches, in microseconds.

    They take turns, so that what else the machine does falls on all of them alike.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for batch in range(batches + 1):
        sys.stderr.write(f"batch {batch} of {batches}\n")
        for name, work in works.items():
            before = time.process_time()
            for _ in range(calls):
                await work()
            found[name].append((time.process_time() - before) / calls * MICROSECONDS)
    warm = {name: times[1:] for name, times in found.items()}
    return {name: (min(times), statistics.median(times)) for name, times in warm.items()}


async def measure(batches: int, calls: int) -> dict[str, tuple[float, float]]:
    """Measure every door and both baselines."""
    register()
    works: dict[str, Work] = {}

    def take(name: str, app: ASGIApp, request: Request) -> None:
        works[name] = lambda: send_to(app, request)

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        settings = Settings(
            _env_file=None, data_dir=Path(folder), index=IndexSettings(kind="exact")
        )
        configure_logging(settings.log)
        take("plain FastAPI route", plain_route(), Request("/nothing", b"{}", {}))
        bare = bare_sdk()
        await stack.enter_async_context(bare.run())
        take("bare SDK, 2026-07-28", bare.handle_request, modern(NOTHING))
        session = await in_session(bare.handle_request, NOTHING)
        take("bare SDK, handshake", bare.handle_request, session)
        app = create_app(
            settings, opening=lambda: open_service(settings, InstantModel(), HashEmbedder())
        )
        await stack.enter_async_context(app.router.lifespan_context(app))
        all_tools = "/x/all/mcp"
        take("MCP, 2026-07-28", app, replace(modern(NOTHING), path=all_tools))
        take("MCP, handshake", app, await in_session_at(app, all_tools))
        take("REST", app, Request("/api/v1/system/nothing", b"{}", {}))
        service = app.state.service
        works["no door (the operation itself)"] = lambda: call_operation(service, NOTHING, {})
        return await costs(works, batches, calls)


async def in_session_at(app: ASGIApp, path: str) -> Request:
    """Open a session at another path."""

    async def there(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    return replace(await in_session(there, NOTHING), path=path)


def show(found: dict[str, tuple[float, float]]) -> None:
    """Print the table."""
    route = found["plain FastAPI route"][0]
    table = Table("call", "CPU us, least", "median", "x plain route", "x bare SDK of its era")
    for name, (least, median) in found.items():
        era = name.rpartition(", ")[2]
        sdk = found.get(f"bare SDK, {era}")
        ratio = f"{least / sdk[0]:.2f}" if sdk else ""
        table.add_row(name, f"{least:.0f}", f"{median:.0f}", f"{least / route:.1f}", ratio)
    Console().print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doors", description=__doc__)
    parser.add_argument("--batches", type=int, default=14, help="batches a row")
    parser.add_argument("--calls", type=int, default=150, help="calls a batch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    found = asyncio.run(measure(given.batches, given.calls))
    if given.json:
        rows = {name: {"least_us": row[0], "median_us": row[1]} for name, row in found.items()}
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        show(found)


if __name__ == "__main__":
    main()
