"""Resources that the MCP door offers: what is kept, by its address.

They are read by the operations that tools call, so both validate and refuse alike. An address is
of the default world; `?world=ID` behind it names another one.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mcp_types import ListResourcesResult, Resource, ResourceTemplate

from persona_mcp.server.admission import home_of
from persona_mcp.server.operations.registry import call_operation
from persona_mcp.state.errors import NotFound

if TYPE_CHECKING:
    from persona_mcp.server.store import Store

JSON = "application/json"
URI = re.compile(r"(?P<scheme>[a-z]+)://(?P<path>[^?#]+)(?:\?world=(?P<world>[^&#]+))?")
PAGE = 100
MOST = 200
"""Personas that a world's resource names; persona_list tells of more."""
Read = Callable[["Store", Sequence[str], Mapping[str, str]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class ResourceKind:
    """Resources of one kind.

    Attributes:
        variables: Names of the parts of its address, in order.
        title: For people.
        description: For a model that chooses among resources.
        read: Reads one, by the parts of its address and the world that it names.
    """

    variables: tuple[str, ...]
    title: str
    description: str
    read: Read


def as_returned(operation: str, *arguments: str) -> Read:
    """Read what an operation returns; the parts of the address are these arguments of it."""

    async def read(
        store: "Store", parts: Sequence[str], world: Mapping[str, str]
    ) -> dict[str, Any]:
        given = dict(zip(arguments, parts, strict=True))
        return await call_operation(store, operation, {**given, **world})

    return read


async def read_world(
    store: "Store", parts: Sequence[str], world: Mapping[str, str]
) -> dict[str, Any]:
    """Read who is in a world, and how its relationships and shared memories stand."""
    named = {"world_id": parts[0]}
    people = await call_operation(store, "persona_list", {**named, "limit": MOST})
    ties = await call_operation(store, "relationship_stats", named)
    shared = await call_operation(store, "memory_shared_stats", named)
    return {**named, **people, **ties, **shared}


KINDS = {
    "persona": ResourceKind(
        ("id",),
        "Persona",
        "Everything that is set of one persona, as persona_get returns it; by its id or name",
        as_returned("persona_get", "persona_id"),
    ),
    "conversation": ResourceKind(
        ("id",),
        "Conversation",
        "The first page of a conversation's transcript, as conversation_get returns it",
        as_returned("conversation_get", "conversation_id"),
    ),
    "memory": ResourceKind(
        ("id",),
        "Memory",
        "Everything that is kept of one memory, as memory_get returns it",
        as_returned("memory_get", "memory_id"),
    ),
    "relationship": ResourceKind(
        ("a", "b"),
        "Relationship",
        "How a sees b and b sees a, and why, as relationship_get returns it; each a persona's id "
        "or name, or a user's id",
        as_returned("relationship_get", "persona1_id", "persona2_id"),
    ),
    "world": ResourceKind(
        ("id",),
        "World",
        "Who is in a world, how many relationships and shared memories there are, and of what kind",
        read_world,
    ),
}


def templates() -> list[ResourceTemplate]:
    """Describe how addresses are made."""
    return [
        ResourceTemplate(
            name=scheme,
            title=kind.title,
            description=kind.description,
            uri_template=template_of(scheme),
            mime_type=JSON,
        )
        for scheme, kind in KINDS.items()
    ]


def template_of(scheme: str) -> str:
    """Write the template of a kind's addresses."""
    return f"{scheme}://{'/'.join(f'{{{name}}}' for name in KINDS[scheme].variables)}"


async def listed(store: "Store", cursor: str | None) -> ListResourcesResult:
    """List the caller's usual world, and its personas a page at a time."""
    page = await call_operation(store, "persona_list", {"limit": PAGE, "cursor": cursor})
    found = [persona_resource(persona) for persona in page["personas"]]
    if cursor is None:
        found.insert(0, world_resource(home_of(store)))
    return ListResourcesResult(resources=found, next_cursor=page["next_cursor"])


def world_resource(id: str) -> Resource:
    """Describe a world as a resource."""
    return Resource(
        name=id,
        title=f"World {id}",
        description=KINDS["world"].description,
        uri=f"world://{id}",
        mime_type=JSON,
    )


def persona_resource(persona: dict[str, Any]) -> Resource:
    """Describe a persona as a resource."""
    return Resource(
        name=persona["id"],
        title=persona["name"],
        description=persona["description"] or None,
        uri=f"persona://{persona['id']}",
        mime_type=JSON,
    )


async def contents(store: "Store", uri: str) -> dict[str, Any]:
    """Read the resource of an address.

    Raises:
        NotFound: It is nobody's address, or nothing is there.
        InvalidParams: A part of it cannot be an id or a name.
    """
    match = URI.fullmatch(uri)
    kind = KINDS.get(match["scheme"]) if match else None
    parts = [unquote(part) for part in match["path"].split("/")] if match else []
    if match is None or kind is None or len(parts) != len(kind.variables):
        raise NotFound.of("resource", uri, [template_of(scheme) for scheme in KINDS])
    world = {"world_id": unquote(match["world"])} if match["world"] else {}
    return await kind.read(store, parts, world)
