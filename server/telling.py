"""What a persona is told by another, or by a user: hearsay, with whom it is from."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from persona_mcp.server.operations.registry import Call
from persona_mcp.server.operations.relationships import party
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.hearsay import Hearsay
from persona_mcp.state.memory.importance import Importance
from persona_mcp.state.memory.memory import HEARSAY
from persona_mcp.state.persona import Persona
from persona_mcp.state.relationship_params import RelationshipParams
from persona_mcp.state.telling import telling

if TYPE_CHECKING:  # it imports this module
    from persona_mcp.server.operations.memories import MemoryStoreArguments


@dataclass(frozen=True)
class Told:
    """What a persona is told.

    Attributes:
        teller_id: Persona or user.
        teller_name: What that one is called.
        hearsay: Who told whom.
        params: What it is weighed by.
    """

    teller_id: str
    teller_name: str
    hearsay: Hearsay
    params: RelationshipParams

    def weigh(self, found: Importance) -> Importance:
        """Return what is left of an importance, and what was taken off."""
        left = self.hearsay.weighed(found.value, self.params)
        return Importance(left, {**found.terms, "told": self.hearsay.weight(self.params)})

    @property
    def origin(self) -> dict[str, Any]:
        """What is kept of it with the memory."""
        return self.hearsay.as_origin(self.params)


async def told_to(call: Call, listener: Persona, arguments: "MemoryStoreArguments") -> Told | None:
    """Find out who tells a persona something, and where that one has it from; None if nobody does.

    Raises:
        NotFound: The teller is not there; or the memory is not, or is not known to the teller.
        InvalidParams: A memory is named without a teller, the persona tells itself, or what is told
            is called something else than hearsay.
    """
    told_by, source_memory_id = arguments.told_by, arguments.source_memory_id
    if told_by is None:
        if source_memory_id is None:
            return None
        raise InvalidParams.one("told_by", "who told it, where source_memory_id is given", None)
    if "memory_type" in arguments.model_fields_set and arguments.memory_type != HEARSAY:
        allowed = "hearsay, or left out, where told_by is given"
        raise InvalidParams.one("memory_type", allowed, arguments.memory_type)
    teller_id = await party(call, told_by)
    if teller_id == listener.id:
        raise InvalidParams.one("told_by", "somebody else", told_by)
    names = await call.store.personas.names(call.world_id)
    params = call.store.laws.effects.relationships
    heard = await call.store.database.read(
        telling, call.world_id, teller_id, listener.id, source_memory_id, time.time(), params
    )
    return Told(teller_id, names.get(teller_id, teller_id), heard, params)
