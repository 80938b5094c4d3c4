"""Answers of the MCP door to what is not about tools: resources, prompts and completions."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    TextResourceContents,
)

from persona_mcp.server.mcp_completions import completion
from persona_mcp.server.mcp_prompts import listed_prompts, written_prompt
from persona_mcp.server.mcp_resources import JSON, contents, listed, templates
from persona_mcp.server.wire import WIRES, problem_of
from persona_mcp.state.callers import Identity, called_by, current_caller
from persona_mcp.state.correlation import correlation, new_correlation_id
from persona_mcp.state.errors import (
    Forbidden,
    InternalError,
    InvalidParams,
    NotFound,
    PersonaError,
)

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]
Ready = Callable[[], Awaitable["Service"]]

CORRELATION = "persona_mcp.correlation"
"""Under this name an HTTP request's scope has the correlation id that its answer names."""
IDENTITY = "persona_mcp.identity"
"""Under this name it has its caller's identity."""


class ContextHandlers:
    """Answers the requests of MCP that are not about tools."""

    def __init__(self, ready: Ready) -> None:
        """Ask `ready` for the service; its first call may wait for it to open."""
        self._ready = ready

    async def list_resources(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        """List the default world and its personas, a page at a time."""
        with protocol_errors(context):
            return await listed(await self._ready(), params.cursor if params else None)

    async def list_resource_templates(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        """List how the addresses of resources are made."""
        return ListResourceTemplatesResult(resource_templates=templates())

    async def read_resource(
        self, context: Context, params: ReadResourceRequestParams
    ) -> ReadResourceResult:
        """Read a resource as JSON."""
        with protocol_errors(context, uri=params.uri):
            result = await contents(await self._ready(), str(params.uri))
        text = json.dumps(result, ensure_ascii=False)
        found = TextResourceContents(uri=params.uri, mime_type=JSON, text=text)
        return ReadResourceResult(contents=[found])

    async def list_prompts(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListPromptsResult:
        """List the prompts: one for each persona of the default world, a page at a time."""
        with protocol_errors(context):
            return await listed_prompts(await self._ready(), params.cursor if params else None)

    async def get_prompt(self, context: Context, params: GetPromptRequestParams) -> GetPromptResult:
        """Write a prompt."""
        with protocol_errors(context):
            return await written_prompt(await self._ready(), params.name, params.arguments or {})

    async def complete(self, context: Context, params: CompleteRequestParams) -> CompleteResult:
        """Complete an argument of a prompt or of an address."""
        with protocol_errors(context):
            return CompleteResult(completion=await completion(await self._ready(), params))


@contextmanager
def correlated(context: Context) -> Iterator[None]:
    """Do a request in its caller's name, with its correlation id: the HTTP door's, else a new one.

    A session of the handshake era is one task for all of its requests, so whose each of them is
    must be taken from the request itself.
    """
    scope = context.request.scope if context.request else {}
    identity: Identity = scope.get(IDENTITY) or current_caller()
    with called_by(identity), correlation(scope.get(CORRELATION) or new_correlation_id()):
        yield


@contextmanager
def protocol_errors(context: Context, **data: Any) -> Iterator[None]:
    """Give a request its correlation id, and turn our errors into JSON-RPC's.

    Args:
        context: The request.
        data: What an error's data has beside what it says itself.
    """
    with correlated(context):
        try:
            yield
        except PersonaError as error:
            raise refusal(error, data) from error
        except Exception as error:
            log.exception("request failed")
            hidden = InternalError()
            raise refusal(hidden, data) from error


def refusal(error: PersonaError, data: dict[str, Any]) -> MCPError:
    """Write an error for a request that has no error result.

    The number is one of JSON-RPC's own: MCP of 2026-07-28 wants -32602 for a resource that is not
    there (SEP-2164), and to clients of before our -32002 would say just that.
    """
    code = INVALID_PARAMS if isinstance(error, InvalidParams | NotFound) else INTERNAL_ERROR
    if isinstance(error, Forbidden):
        code = WIRES[error.code].rpc
    return MCPError(code, error.message, {**problem_of(error)["data"], **data})
