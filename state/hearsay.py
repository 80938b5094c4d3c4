"""Hearsay: what somebody told, as a chain of who told whom, and what it weighs."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from persona_mcp.state.appraisal import hearsay_weight
from persona_mcp.state.relationship_params import RelationshipParams

UNMET = 0.5
"""Trust in somebody whom one has never met. Source: the middle of the scale."""
LEAST = 0.1
"""No memory is weighed below this. Source: the floor of the importance of memories."""


@dataclass(frozen=True)
class Hop:
    """One telling.

    Attributes:
        teller: Persona or user who told it.
        listener: Persona who was told.
        trust: The listener's in the teller at that time: 0 none, 0.5 neither way, 1 full.
    """

    teller: str
    listener: str
    trust: float


@dataclass(frozen=True)
class Hearsay:
    """Where a memory that was told comes from.

    Attributes:
        chain: Who told whom, the first telling first; never empty.
        source_memory_id: The memory that was passed on last; None where it is not known.
    """

    chain: tuple[Hop, ...]
    source_memory_id: str | None = None

    @property
    def length(self) -> int:
        """How often it was told."""
        return len(self.chain)

    def weight(self, params: RelationshipParams) -> float:
        """Return the share of its importance that is left, in [0, 1].

        The product, over the chain, of 0.6 trust^2: each telling takes some away, and one that
        comes back to where it was before is one more telling.
        """
        return math.prod(hearsay_weight(2 * hop.trust - 1, params) for hop in self.chain)

    def weighed(self, importance: float, params: RelationshipParams) -> float:
        """Return what is left of an importance, [0, 1]; nothing falls below 0.1 by being told."""
        return max(min(LEAST, importance), importance * self.weight(params))

    def as_origin(self, params: RelationshipParams) -> dict[str, Any]:
        """Write it as it is kept with the memory."""
        return {
            "source_memory_id": self.source_memory_id,
            "chain": [asdict(hop) for hop in self.chain],
            "length": self.length,
            "weight": self.weight(params),
        }


def pass_on(before: Hearsay | None, hop: Hop, source_memory_id: str | None) -> Hearsay:
    """Return what a listener knows of the origin of what it is told.

    Args:
        before: What the teller knows of it, if the teller has it from hearsay.
        hop: The telling.
        source_memory_id: The memory that the teller tells of.
    """
    earlier = before.chain if before is not None else ()
    return Hearsay((*earlier, hop), source_memory_id)


def hearsay_of(origin: Mapping[str, Any] | None) -> Hearsay | None:
    """Read the origin of a memory; None if nobody told it."""
    if not origin or not origin.get("chain"):
        return None
    return Hearsay(tuple(Hop(**hop) for hop in origin["chain"]), origin["source_memory_id"])
