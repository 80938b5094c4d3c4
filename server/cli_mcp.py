"""`persona mcp`: MCP over standard input and output."""

import asyncio
import sys
from typing import TYPE_CHECKING

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli_run import command_module, run
from persona_mcp.server.mcp import make_server, serve_stdio
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import InvalidParams, InvalidRequest

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

TOOLSETS = ("core", "all")


def mcp(toolset: str) -> None:
    """Serve MCP until the client goes away."""

    async def work(settings: Settings, terminal: Terminal) -> None:
        if toolset not in TOOLSETS:
            fault = {"field": "--toolset", "allowed": "core or all", "given": toolset}
            raise InvalidParams.of([fault])
        if sys.stdin is None or sys.stdout is None:
            raise InvalidRequest(
                "MCP is spoken over standard input and output, and one of them is closed; a client "
                "starts this command, see the README"
            )
        stop = asyncio.Event()
        opened: asyncio.Future[Service] = asyncio.get_running_loop().create_future()
        progress_s = settings.conversation.progress_s
        server = make_server(lambda: asyncio.shield(opened), toolset, progress_s)
        keeper = asyncio.create_task(keep_open(settings, opened, stop))
        try:
            await serve_stdio(server)
        finally:
            stop.set()
            await keeper

    run(work)


async def keep_open(
    settings: Settings, opened: "asyncio.Future[Service]", stop: asyncio.Event
) -> None:
    """Open the service beside the server, so that tools are listed before LangGraph is imported."""
    try:
        service_module = await asyncio.to_thread(command_module, "service")
        async with service_module.open_service(settings) as service:
            opened.set_result(service)
            await stop.wait()
    except Exception as error:  # told to whoever calls a tool
        if opened.done():
            raise
        opened.set_exception(error)
        opened.exception()
