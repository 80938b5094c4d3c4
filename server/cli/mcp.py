"""`persona mcp`: MCP over standard input and output."""

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.run import INTERRUPTED, command_module, run_loop
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
            raise InvalidParams.one("--toolset", "core or all", toolset)
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
        serving = asyncio.create_task(serve_stdio(server))
        try:
            await asyncio.wait([serving])  # it cannot be cancelled while a thread reads for it
        finally:
            stop.set()
            await keeper
        serving.result()

    def loop(settings: Settings, terminal: Terminal, runner: asyncio.Runner) -> None:
        try:
            runner.run(work(settings, terminal))
        except KeyboardInterrupt:
            terminal.err.print("stopped")
            sys.stderr.flush()
            os._exit(INTERRUPTED)  # else the end would wait for the thread that reads, and a client

    run_loop(loop)


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
