"""What the MCP door offers beside tools: resources, prompts and completions.

Resources are read by the operations that tools call, so both validate and refuse alike.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from persona_mcp.server.mcp_prompts import listed_prompts, written_prompt
from persona_mcp.server.operations import call_operation
from persona_mcp.server.wire import problem_of
from persona_mcp.state.correlation import correlation, new_correlation_id
from persona_mcp.state.errors import InternalError, InvalidParams, NotFound, PersonaError

if TYPE_CHECKING:
    from persona_mcp.server.service import Service
    from persona_mcp.server.store import Store

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]
Ready = Callable[[], Awaitable["Service"]]

CORRELATION = "persona_mcp.correlation"
"""Under this name an HTTP request's scope has the correlation id that its answer names."""
JSON = "application/json"
URI = re.compile(r"(?P<scheme>[a-z]+)://(?P<id>[^/?#]+)")
PAGE = 100
MOST_COMPLETIONS = 100
"""MCP allows no more in one answer."""


@dataclass(frozen=True)
class ResourceKind:
    """Resources of one kind: `scheme://{argument}`.

    Attributes:
        operation: Whose result they are.
        argument: What of it the address gives.
        title: For people.
        description: For a model that chooses among resources.
    """

    operation: str
    argument: str
    title: str
    description: str


KINDS = {
    "persona": ResourceKind(
        "persona_get",
        "persona_id",
        "Persona",
        "Everything that is set of one persona, as persona_get returns it",
    ),
    "conversation": ResourceKind(
        "conversation_get",
        "conversation_id",
        "Conversation",
        "The first page of a conversation's transcript, as conversation_get returns it",
    ),
}


class ContextHandlers:
    """Answers the requests of MCP that are not about tools."""

    def __init__(self, ready: Ready) -> None:
        """Ask `ready` for the service; its first call may wait for it to open."""
        self._ready = ready

    async def list_resources(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        """List the personas of the default world, a page at a time."""
        cursor = params.cursor if params else None
        with protocol_errors(context):
            page = {"limit": PAGE, "cursor": cursor}
            found = await call_operation(await self._ready(), "persona_list", page)
        return ListResourcesResult(
            resources=[persona_resource(persona) for persona in found["personas"]],
            next_cursor=found["next_cursor"],
        )

    async def list_resource_templates(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        """List how the addresses of resources are made."""
        return ListResourceTemplatesResult(
            resource_templates=[
                ResourceTemplate(
                    name=scheme,
                    title=kind.title,
                    description=kind.description,
                    uri_template=f"{scheme}://{{{kind.argument}}}",
                    mime_type=JSON,
                )
                for scheme, kind in KINDS.items()
            ]
        )

    async def read_resource(
        self, context: Context, params: ReadResourceRequestParams
    ) -> ReadResourceResult:
        """Read a resource as JSON."""
        with protocol_errors(context, uri=params.uri):
            kind, id = parsed(params.uri)
            result = await call_operation(await self._ready(), kind.operation, {kind.argument: id})
        text = json.dumps(result, ensure_ascii=False)
        contents = TextResourceContents(uri=params.uri, mime_type=JSON, text=text)
        return ReadResourceResult(contents=[contents])

    async def list_prompts(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListPromptsResult:
        """List the prompts."""
        return ListPromptsResult(prompts=listed_prompts())

    async def get_prompt(self, context: Context, params: GetPromptRequestParams) -> GetPromptResult:
        """Write a prompt."""
        with protocol_errors(context):
            return await written_prompt(await self._ready(), params.name, params.arguments or {})

    async def complete(self, context: Context, params: CompleteRequestParams) -> CompleteResult:
        """Complete an argument of a prompt or template; without a completer nothing is found."""
        completer = COMPLETERS.get(params.argument.name)
        found = []
        if completer is not None:
            with protocol_errors(context):
                found = await completer(await self._ready(), params.argument.value)
        return CompleteResult(
            completion=Completion(
                values=found[:MOST_COMPLETIONS],
                total=len(found),
                has_more=len(found) > MOST_COMPLETIONS,
            )
        )


async def persona_ids(store: "Store", begun: str) -> list[str]:
    """Return ids of the default world's personas whose id or name begins so, in any case."""
    start = begun.casefold()
    names = await store.personas.names(store.settings.world)
    return [
        id
        for id, name in names.items()
        if id.casefold().startswith(start) or name.casefold().startswith(start)
    ]


COMPLETERS: dict[str, Callable[["Store", str], Awaitable[list[str]]]] = {"persona_id": persona_ids}
"""By the name of the argument, which means the same wherever it stands."""


def persona_resource(persona: dict[str, Any]) -> Resource:
    """Describe a persona as a resource."""
    return Resource(
        name=persona["id"],
        title=persona["name"],
        description=persona["description"] or None,
        uri=f"persona://{persona['id']}",
        mime_type=JSON,
    )


def parsed(uri: str) -> tuple[ResourceKind, str]:
    """Read the address of a resource.

    Returns:
        Its kind and id.

    Raises:
        NotFound: It is nobody's address.
    """
    match = URI.fullmatch(uri)
    kind = KINDS.get(match["scheme"]) if match else None
    if match is None or kind is None:
        raise NotFound.of("resource", uri)
    return kind, unquote(match["id"])


def correlated(context: Context) -> AbstractContextManager[str]:
    """Bind the correlation id of a request: the HTTP door's, else a new one."""
    scope = context.request.scope if context.request else {}
    return correlation(scope.get(CORRELATION) or new_correlation_id())


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
            hidden = InternalError("something went wrong on our side; the log has the cause")
            raise refusal(hidden, data) from error


def refusal(error: PersonaError, data: dict[str, Any]) -> MCPError:
    """Write an error for a request that has no error result.

    The number is one of JSON-RPC's own: MCP of 2026-07-28 wants -32602 for a resource that is not
    there (SEP-2164), and to clients of before our -32002 would say just that.
    """
    code = INVALID_PARAMS if isinstance(error, InvalidParams | NotFound) else INTERNAL_ERROR
    return MCPError(code, error.message, {**problem_of(error)["data"], **data})
