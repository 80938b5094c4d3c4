"""What a caller may do, and where: asked once for every call, by every door in the same way."""

from typing import TYPE_CHECKING

from persona_mcp.state.callers import Scope, current_caller
from persona_mcp.state.errors import Forbidden

if TYPE_CHECKING:  # it imports Alembic; tools are listed before that is done
    from persona_mcp.server.store import Store


def check_scope(name: str, scope: Scope | None) -> None:
    """Make sure that the caller may do something.

    Raises:
        Forbidden: It may not; the message names what is missing.
    """
    if scope is not None and scope not in current_caller().scopes:
        raise Forbidden(
            f"{name} needs the scope '{scope}', which this token does not have; ask for one that "
            "has it (persona token create --scopes)",
            scope=scope,
        )


async def check_world(store: "Store", world_id: str) -> None:
    """Make sure that a world is there for the caller; one that is closed to it looks like none.

    Raises:
        NotFound: It is not there, or not open to the caller.
    """
    if current_caller().opens(world_id):
        await store.personas.check_world(world_id)
    else:
        await store.personas.miss_world(world_id)


async def check_named(store: "Store", world_id: str) -> None:
    """Make sure that a world that a call's own argument names is open to its caller.

    It need not be there: one that is not there is closed to whoever may not open every world.

    Raises:
        NotFound: It is not open to the caller, whether it is there or not.
    """
    if not current_caller().opens(world_id):
        await store.personas.miss_world(world_id)


def home_of(store: "Store") -> str:
    """Return the world of a call that names none: the default one, or the first of the caller's."""
    caller, usual = current_caller(), store.settings.world
    if caller.opens(usual) or not caller.worlds:
        return usual
    return min(caller.worlds)
