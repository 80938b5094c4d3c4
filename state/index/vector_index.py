"""The dense index: which memories are near a vector. It narrows; SQL decides.

Two kinds pass one contract suite: Chroma (`state/index/chroma.py`) and exact scoring of the vectors
in SQL. Either only gives candidates: the caller reads the rows and applies the witness rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from persona_mcp.state.embedding import Vector
from persona_mcp.state.errors import StorageUnavailable

Kind = Literal["chroma", "exact"]

DECIMALS = 6
"""Of a similarity: what is nearer than float32 can tell apart is a tie."""


@dataclass(frozen=True, eq=False)
class VectorEntry:
    """A memory as the index keeps it.

    Attributes:
        memory_id: Which.
        persona_id: Its owner.
        visibility: private, shared or public.
        version: Of the memory that was embedded, >= 1.
        vector: float32, shape (d,).
    """

    memory_id: str
    persona_id: str
    visibility: str
    version: int
    vector: Vector


@dataclass(frozen=True)
class Hit:
    """A candidate.

    Attributes:
        memory_id: Which.
        similarity: Cosine with the query, limited to [0, 1].
    """

    memory_id: str
    similarity: float


class VectorIndex(Protocol):
    """Finds memories near a vector; can be dropped and rebuilt from SQL at any time."""

    @property
    def kind(self) -> Kind:
        """Which one it is."""
        ...

    @property
    def fault(self) -> str:
        """Why it was begun anew, and so lacks what SQL has; empty if it was not."""
        ...

    @property
    def is_own(self) -> bool:
        """Whether it is this process's alone, so that it can be made anew where it fails."""
        ...

    async def check(self) -> None:
        """See whether it answers.

        Raises:
            StorageUnavailable: It does not.
        """
        ...

    async def upsert(self, world_id: str, entries: Sequence[VectorEntry]) -> None:
        """Write entries; an older version never overwrites a newer one, repeating changes nothing.

        Raises:
            StorageUnavailable: The index did not answer.
        """
        ...

    async def delete(self, world_id: str, memory_ids: Sequence[str]) -> None:
        """Forget memories; unknown ids are left alone.

        Raises:
            StorageUnavailable: The index did not answer.
        """
        ...

    async def search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        """Find the reader's own memories and those open to others, best first, ties by id.

        Raises:
            StorageUnavailable: The index did not answer, or holds vectors of another length.
        """
        ...

    async def versions(self, world_id: str) -> dict[str, int]:
        """Give the version of each memory that it holds, by id.

        Raises:
            StorageUnavailable: The index did not answer.
        """
        ...

    async def worlds(self) -> set[str]:
        """Give the worlds of which it holds anything.

        Raises:
            StorageUnavailable: The index did not answer.
        """
        ...

    async def drop(self, world_id: str) -> None:
        """Forget a world; unknown worlds are left alone.

        Raises:
            StorageUnavailable: The index did not answer.
        """
        ...

    async def aclose(self) -> None:
        """Let go of files and memory."""
        ...


def other_length() -> StorageUnavailable:
    """Make the error for vectors that cannot be compared."""
    return StorageUnavailable(
        "stored vectors have another length than those of the embedder: the model behind its name "
        "has changed; `persona memory reindex --embed` computes them anew"
    )


def ranked(cosines: dict[str, float], limit: int) -> list[Hit]:
    """Sort by cosine, best first, ties by id; then limit the cosine to [0, 1]."""
    limited = ((-min(1.0, max(0.0, round(c, DECIMALS))), id) for id, c in cosines.items())
    return [Hit(id, -similarity) for similarity, id in sorted(limited)[:limit]]
