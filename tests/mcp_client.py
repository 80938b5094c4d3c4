"""The official MCP client as the tests use it: in both protocol eras, in memory and over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, NamedTuple

import jsonschema  # type: ignore[import-untyped]
from mcp.client import Client
from mcp.server import Server
from mcp_types import CallToolResult, TextContent

from persona_mcp.server.mcp import make_server
from persona_mcp.server.operations.registry import operation_named
from persona_mcp.server.service import Service
from tests.http_server import served as served_over_http

Era = Literal["auto", "legacy"]
ERAS: tuple[Era, ...] = ("auto", "legacy")


class Way(NamedTuple):
    """How a client reaches the server."""

    transport: Literal["memory", "http"]
    era: Era


WAYS = [Way("memory", "auto"), Way("memory", "legacy"), Way("http", "auto"), Way("http", "legacy")]
CORE = [
    "persona_list",
    "persona_get",
    "persona_create",
    "persona_switch",
    "persona_status",
    "persona_chat",
    "memory_search",
    "memory_store",
    "relationship_get",
    "relationship_list",
    "conversation_get",
    "conversation_start",
    "conversation_advance",
    "conversation_end",
    "dialogue_start",
    "dialogue_status",
    "dialogue_result",
    "system_status",
]
REPLY = "Biscuit! A fine name for a cat, and a finer one for a song."
LIMIT_S = 30.0
WRONG: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "text for an integer": (
        "memory_search",
        {"persona_id": "aria", "query": "cat", "n_results": "4"},
        "n_results",
        '"4"',
    ),
    "a number out of range": (
        "persona_chat",
        {"persona_id": "aria", "message": "Hello.", "token_budget": 40000},
        "token_budget",
        "40000",
    ),
    "an unknown argument": (
        "persona_chat",
        {"persona_id": "aria", "message": "Hello.", "colour": "red"},
        "colour",
        "",
    ),
    "a missing argument": ("persona_chat", {"persona_id": "aria"}, "message", ""),
    "a number for text": ("persona_create", {"name": 7}, "name", "7"),
}


def served(service: Service, progress_s: float = 0.01) -> Server[Any]:
    async def ready() -> Service:
        return service

    return make_server(ready, "core", progress_s)


def failing(error: Exception) -> Server[Any]:
    async def ready() -> Service:
        raise error

    return make_server(ready, "core", 1.0)


@asynccontextmanager
async def connected(server: Any, era: Era) -> AsyncIterator[Client]:
    async with asyncio.timeout(LIMIT_S), Client(server, mode=era) as client:
        yield client


@asynccontextmanager
async def talking(
    service: Service, way: Way, progress_s: float = 0.01, path: str = "/mcp"
) -> AsyncIterator[Client]:
    """Connect to a service: to its server in memory, or to the whole app over HTTP."""
    async with AsyncExitStack() as stack:
        server: Any = served(service, progress_s)
        if way.transport == "http":
            chosen = service.settings.conversation.model_copy(update={"progress_s": progress_s})
            settings = service.settings.model_copy(update={"conversation": chosen})
            found = await stack.enter_async_context(served_over_http(service, settings))
            server = found.url + path
        yield await stack.enter_async_context(connected(server, way.era))


def text_of(result: CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


def data_of(result: CallToolResult) -> dict[str, Any]:
    found = result.structured_content
    assert isinstance(found, dict)
    return found


def error_of(result: CallToolResult) -> dict[str, Any]:
    assert result.is_error
    found: dict[str, Any] = data_of(result)["error"]
    return found


async def good(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, text_of(result)
    jsonschema.validate(data_of(result), operation_named(name).output_schema)
    return data_of(result)


class Heard:
    """What a client was told of a call's progress."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.texts: list[str] = []
        self.more = asyncio.Event()

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.values.append(progress)
        self.texts.append(message or "")
        self.more.set()
