"""The product with the official suite's own tools, resources and prompts beside its own.

They are put on the product's MCP server, which its app then mounts as ever, so that the suite tries
every message of the protocol on the server and the doors that the product ships.

    uv run python -m tests.conformance.fixtures
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp_types import (
    CallToolRequestParams,
    EmptyResult,
    GetPromptRequestParams,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from persona_mcp.config.logging import configure_logging
from persona_mcp.config.settings import Settings
from persona_mcp.server.app import create_app
from persona_mcp.server.mcp import make_server
from persona_mcp.server.mcp_context import Ready
from tests.conformance.fixture_pages import PROMPTS, RESOURCES, TEMPLATES, contents
from tests.conformance.fixture_tools import FIXTURES, Context
from tests.http_server import serving

Ours = Callable[[Context, Any], Awaitable[Any]]


def with_fixtures(ready: Ready, toolset: str, progress_s: float, heartbeat_s: float) -> Server[Any]:
    """Make the product's MCP server, and put the suite's fixtures on it."""
    server = make_server(ready, toolset, progress_s, heartbeat_s)
    for method, (params, beside) in BESIDE.items():
        found = server.get_request_handler(method)
        assert found is not None
        server.add_request_handler(method, params, beside(found.handler))
    for method, params in ACCEPTED.items():
        server.add_request_handler(method, params, accept)
    security = RequestStateSecurity.ephemeral()
    server.middleware.append(RequestStateBoundary(security, default_audience=server.name))
    return server


def tools(ours: Ours) -> Ours:
    """List the fixtures behind the product's tools."""

    async def listed(context: Context, params: PaginatedRequestParams) -> ListToolsResult:
        found: ListToolsResult = await ours(context, params)
        added = [fixture.tool for fixture in FIXTURES.values()]
        return found.model_copy(update={"tools": [*found.tools, *added]})

    return listed


def calls(ours: Ours) -> Ours:
    """Carry out a fixture; other tools are the product's."""

    async def called(context: Context, params: CallToolRequestParams) -> Any:
        fixture = FIXTURES.get(params.name)
        return await (fixture.run if fixture else ours)(context, params)

    return called


def resources(ours: Ours) -> Ours:
    """List the fixtures behind the last page of the product's resources."""

    async def listed(context: Context, params: PaginatedRequestParams) -> ListResourcesResult:
        found: ListResourcesResult = await ours(context, params)
        added = [] if found.next_cursor else RESOURCES
        return found.model_copy(update={"resources": [*found.resources, *added]})

    return listed


def templates(ours: Ours) -> Ours:
    """List the fixture behind the product's templates."""

    async def listed(
        context: Context, params: PaginatedRequestParams
    ) -> ListResourceTemplatesResult:
        found: ListResourceTemplatesResult = await ours(context, params)
        both = [*found.resource_templates, *TEMPLATES]
        return found.model_copy(update={"resource_templates": both})

    return listed


def reading(ours: Ours) -> Ours:
    """Read a fixture; other addresses are the product's."""

    async def read(context: Context, params: ReadResourceRequestParams) -> Any:
        return contents(str(params.uri)) or await ours(context, params)

    return read


def prompts(ours: Ours) -> Ours:
    """List the fixtures behind the last page of the product's prompts."""

    async def listed(context: Context, params: PaginatedRequestParams) -> ListPromptsResult:
        found: ListPromptsResult = await ours(context, params)
        added = [] if found.next_cursor else [prompt for prompt, _ in PROMPTS.values()]
        return found.model_copy(update={"prompts": [*found.prompts, *added]})

    return listed


def writing(ours: Ours) -> Ours:
    """Write a fixture; other prompts are the product's."""

    async def written(context: Context, params: GetPromptRequestParams) -> Any:
        found = PROMPTS.get(params.name)
        return await (found[1](params) if found else ours(context, params))

    return written


async def accept(context: Context, params: Any) -> EmptyResult:
    """Take a request that asks for messages which no fixture ever sends."""
    return EmptyResult()


BESIDE: dict[str, tuple[Any, Callable[[Ours], Ours]]] = {
    "tools/list": (PaginatedRequestParams, tools),
    "tools/call": (CallToolRequestParams, calls),
    "resources/list": (PaginatedRequestParams, resources),
    "resources/templates/list": (PaginatedRequestParams, templates),
    "resources/read": (ReadResourceRequestParams, reading),
    "prompts/list": (PaginatedRequestParams, prompts),
    "prompts/get": (GetPromptRequestParams, writing),
}
ACCEPTED: dict[str, Any] = {
    "resources/subscribe": SubscribeRequestParams,
    "resources/unsubscribe": UnsubscribeRequestParams,
    "logging/setLevel": SetLevelRequestParams,
}


async def serve() -> None:
    """Serve until killed, and say where as `persona serve` does."""
    settings = Settings()
    configure_logging(settings.log)
    async with serving(create_app(settings, serving=with_fixtures), settings) as found:
        sys.stdout.write(f"The product with fixtures serves on {found.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
