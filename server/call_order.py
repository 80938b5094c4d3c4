"""Which calls of a JSON-RPC batch wait for which: those of one persona keep their order."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from persona_mcp.server.json_rpc import Request
from persona_mcp.server.rpc_methods import METHODS, SWITCH, Methods
from persona_mcp.state.errors import NotFound
from persona_mcp.state.ids import name_key

if TYPE_CHECKING:
    from persona_mcp.server.service import Service

NAMING = ("persona_id", "persona1_id", "persona2_id", "target_persona", "told_by")
"""Arguments that name one persona."""
NAMING_SEVERAL = ("witnesses", "related_personas")


@dataclass(frozen=True)
class Touch:
    """What a call has to do with.

    Attributes:
        writes: It changes something.
        personas: Whom it names; None for one that may have to do with anybody.
    """

    writes: bool
    personas: frozenset[str] | None


ANYBODY = Touch(writes=True, personas=None)


def clash(one: Touch, other: Touch) -> bool:
    """Tell whether two calls must keep their order: one changes what the other may see."""
    if not (one.writes or other.writes):
        return False
    if one.personas is None or other.personas is None:
        return True
    return not one.personas.isdisjoint(other.personas)


async def touch_of(service: "Service", methods: Methods, request: Request) -> Touch:
    """Find out what a call has to do with.

    One that names nobody may be about whoever is current, and a switch changes who that is. Its
    arguments are not validated yet: what goes wrong with them, the call itself will tell.
    """
    operation = METHODS.get(request.method)
    if operation is None:
        return ANYBODY
    named = references(request.params)
    if not named or operation.name == SWITCH:
        return Touch(not operation.read_only, None)
    try:
        world_id = await methods.world_of(request.params)
        found = {await persona_key(service, world_id, reference) for reference in named}
    except Exception:  # what is wrong with a call is told when it runs, not while it is ordered
        return ANYBODY
    return Touch(not operation.read_only, frozenset(found))


def references(params: dict[str, Any]) -> set[str]:
    """Collect whom a call names, as it names them."""
    lists = (params[name] for name in NAMING_SEVERAL if isinstance(params.get(name), list))
    given = [*(params.get(name) for name in NAMING), *(one for some in lists for one in some)]
    return {one for one in given if isinstance(one, str)}


async def persona_key(service: "Service", world_id: str, reference: str) -> str:
    """Return the same for an id and for the name of its persona."""
    try:
        return (await service.personas.resolve(world_id, reference)).id
    except NotFound:
        return name_key(reference)
