"""The MCP door: tools made from the registry, served by the official SDK's low-level server.

The SDK's own validation is lax (it takes "4" for 4), so raw arguments go to our one strict
validation, and our error data comes back in the result.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

import structlog
from mcp.server import Server
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from persona_mcp.server.door_watch import called_at
from persona_mcp.server.mcp_context import Context, ContextHandlers, Ready, correlated
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.modules import MODULES
from persona_mcp.server.operations.registry import Caller, Operation, call_operation
from persona_mcp.server.schemas import input_schema, outline, output_schema, plain
from persona_mcp.server.wire import problem_of
from persona_mcp.state.errors import InternalError, MethodNotFound, PersonaError

log = structlog.get_logger(__name__)

NAME = "persona"
HEARTBEAT_S = 10.0
"""A call that is silent for longer is taken for dead by some clients."""
LOST = "persona_mcp.lost"
"""Under this name an HTTP request's scope has the event that is set when its caller is gone."""
INSTRUCTIONS = (
    "AI personas that remember and relate. Call persona_list for ids, then persona_chat with a "
    "persona_id and a message; pass the conversation_id of the reply to go on. memory_search and "
    "relationship_get show what a persona remembers and feels; dialogue_start has personas talk "
    "among themselves; system_status says what is down. Of every tool: the same request_id gives "
    "the first answer again; world_id and session_id may be left out."
)


class ProgressText:
    """Joins pieces of a reply into progress messages: at most one every `every_s` seconds.

    While nothing is said it still tells that the work goes on: clients give up on silent calls.
    """

    def __init__(self, context: Context, every_s: float, heartbeat_s: float) -> None:
        """Report to the caller of this request; does nothing if it did not ask for progress."""
        self._context = context
        self._every_s = every_s
        self._heartbeat_s = heartbeat_s
        self._sending = asyncio.Lock()
        self._pieces: list[str] = []
        self._sent = 0
        self._last = time.monotonic()

    async def add(self, text: str) -> None:
        """Take a piece."""
        self._pieces.append(text)
        if time.monotonic() - self._last >= self._every_s:
            await self.flush()

    async def flush(self) -> None:
        """Send what has been taken."""
        if self._pieces:
            text, self._pieces = "".join(self._pieces), []
            await self._send(text)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Show life while the block lasts, whenever nothing was sent for a while.

        Most calls end long before: they cost a timer here, and no task.
        """
        tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        timer = loop.call_later(
            self._heartbeat_s, lambda: tasks.append(loop.create_task(self._beat()))
        )
        try:
            yield
        finally:
            timer.cancel()
            for task in tasks:
                task.cancel()

    async def _beat(self) -> None:
        while True:
            if time.monotonic() - self._last >= self._heartbeat_s:
                await self._send(None)
            await asyncio.sleep(max(0.0, self._last + self._heartbeat_s - time.monotonic()))

    async def _send(self, text: str | None) -> None:
        async with self._sending:  # values must rise on the wire too
            self._sent, self._last = self._sent + 1, time.monotonic()
            await self._context.session.report_progress(self._sent, None, text)


def make_server(
    ready: Ready, toolset: str, progress_s: float, heartbeat_s: float = HEARTBEAT_S
) -> Server[Any]:
    """Make an MCP server of a toolset.

    Args:
        ready: Gives the service; the first call may wait for it to open.
        toolset: core or all.
        progress_s: Shortest time between two progress messages, in seconds.
        heartbeat_s: Longest time between two of them while a call runs, in seconds.
    """
    its: dict[str, Operation] = {}

    def offered() -> dict[str, Operation]:
        # All operations are imported when they are asked for: the first answer does not need them.
        if not its:
            its.update({operation.name: operation for operation in operations(toolset)})
        return its

    @cache
    def listed() -> ListToolsResult:
        return ListToolsResult(tools=[tool_of(one, toolset) for one in offered().values()])

    def schema_of(name: str) -> dict[str, Any] | None:
        operation = offered().get(name)
        return tool_of(operation, toolset).input_schema if operation else None

    async def list_tools(
        context: Context, params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return await asyncio.to_thread(listed)

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        scope = context.request.scope if context.request else None
        progress = ProgressText(context, progress_s, heartbeat_s)
        with correlated(context):
            if not its:
                await asyncio.to_thread(offered)
            return await carry_out(ready, its, progress, params, scope)

    beside = ContextHandlers(ready)
    server = Server[Any](
        NAME,
        version=version("persona-mcp"),
        title="Persona",
        instructions=INSTRUCTIONS,
        get_tool_input_schema=schema_of,  # or every call would list all tools first
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=beside.list_resources,
        on_list_resource_templates=beside.list_resource_templates,
        on_read_resource=beside.read_resource,
        on_list_prompts=beside.list_prompts,
        on_get_prompt=beside.get_prompt,
        on_completion=beside.complete,
    )
    server.middleware.clear()  # a span for each message, a tenth of a call; nothing here exports it
    return server


Serving = Callable[[Ready, str, float, float], Server[Any]]
"""How an MCP server is made: `make_server`, or what adds to it."""


@cache
def tool_of(operation: Operation, toolset: str = "all") -> Tool:
    """Describe an operation as a tool; the core toolset is told in outline."""
    arguments = input_schema(operation.input_schema)
    result = output_schema(operation.output_schema)
    whole = toolset == "all"
    return Tool(
        name=operation.name,
        title=operation.title,
        description=operation.description,
        input_schema=arguments if whole else plain(arguments),
        output_schema=result if whole else outline(result),
        annotations=ToolAnnotations(
            read_only_hint=operation.read_only,
            destructive_hint=operation.destructive,
            idempotent_hint=operation.idempotent,
            open_world_hint=operation.open_world,
        ),
    )


async def carry_out(
    ready: Ready,
    offered: dict[str, Operation],
    progress: ProgressText,
    params: CallToolRequestParams,
    scope: Mapping[str, Any] | None,
) -> CallToolResult:
    """Call an operation; every error becomes a result that a model can act on.

    Args:
        ready: Gives the service.
        offered: Operations of the toolset.
        progress: Tells the client that the call goes on.
        params: Of the call.
        scope: Of its request over HTTP; None over stdio.
    """
    name = params.name
    try:
        if name in MODULES and name not in offered:
            raise not_offered(name)
        with progress.beating():
            caller = Caller(progress.add, scope.get(LOST) if scope else None)
            service = await ready()
            with called_at(service.metrics, scope, params.meta):
                result = await call_operation(service, name, params.arguments or {}, caller)
    except PersonaError as error:
        return failure(error)
    except Exception:
        log.exception("tool failed", tool=params.name)
        return failure(InternalError())
    await progress.flush()
    texts = [TextContent(text=text) for text in texts_of(result)]
    return CallToolResult(content=list(texts), structured_content=result)


def not_offered(name: str) -> MethodNotFound:
    """Say that an operation is there, but not in this set of tools, and how to come by it."""
    return MethodNotFound(
        f"'{name}' is not among the core tools that are offered here: start `persona mcp --toolset "
        "all`, or connect to /x/all/mcp over HTTP",
        suggestions=[],
    )


def texts_of(result: dict[str, Any]) -> list[str]:
    """Write a result for a model: a reply as it was said and how to go on, else JSON."""
    response = result.get("response")
    if not isinstance(response, str):
        return [json.dumps(result, ensure_ascii=False)]
    return [response, f"To go on, pass conversation_id {result['conversation_id']}."]


def failure(error: PersonaError) -> CallToolResult:
    """Write an error as a result: the message, then the data."""
    problem = problem_of(error)
    text = f"{error.message}\n{json.dumps(problem['data'], ensure_ascii=False)}"
    return CallToolResult(
        content=[TextContent(text=text)], structured_content={"error": problem}, is_error=True
    )


async def serve_stdio(server: Server[Any]) -> None:
    """Serve MCP over standard input and output until the client goes away."""
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
