"""What is asked of the memories."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from persona_mcp.state.embedding import Vector
from persona_mcp.state.memory.memory import Sought
from persona_mcp.state.memory.params import RetrievalParams

Withhold = Callable[[Connection, Sequence[str]], frozenset[str]]
"""From an open transaction and ids of memories to those that are not to be told."""


@dataclass(frozen=True)
class Asked:
    """What is asked of the memories.

    Attributes:
        world_id: Where.
        reader: Who asks.
        text: What.
        vector: Its meaning; None where words alone count.
        degraded: Why they do; empty where they do not.
        model_id: Of the embedder.
        limit: How many are wanted, at most.
        shown: Turns that are shown beside what is found: no memory of one is wanted.
        sought: Which ones.
        withhold: Tells which of those that are found are left out.
        params: The weights.
        uses: Whether it is wanted how often those that are found were used.
    """

    world_id: str
    reader: str
    text: str
    vector: Vector | None
    degraded: str
    model_id: str
    limit: int
    shown: frozenset[str]
    sought: Sought
    withhold: Withhold | None
    params: RetrievalParams
    uses: bool = True

    @property
    def candidates(self) -> int:
        """Return how many candidates each side gives."""
        return max(self.params.candidates, self.limit + len(self.shown))
