"""Vectors that a dense index does not have yet, scored beside what it finds."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from persona_mcp.state.embedding import Vector
from persona_mcp.state.index.exact import Shard, top, unit_length
from persona_mcp.state.index.vector_index import (
    DECIMALS,
    Hit,
    VectorEntry,
    other_length,
    ranked,
)
from persona_mcp.state.memory.memory import OPEN


class FreshVectors:
    """Vectors of a world that the index lacks, in memory; a batch of them goes to it at once.

    Attributes:
        seen: Newest `seq` in SQL that was looked at.
    """

    def __init__(self, seen: int) -> None:
        """Hold nothing yet."""
        self.seen = seen
        self._entries: dict[str, VectorEntry] = {}
        """By memory; of one that was embedded anew the newer, while the index has the older."""
        self._rows = Shard()
        """The vectors of the first of them, in their order."""

    def __len__(self) -> int:
        """Count them."""
        return len(self._entries)

    def __iter__(self) -> Iterator[VectorEntry]:
        """Go through them, as they came."""
        return iter(self._entries.values())

    def add(self, entries: Sequence[VectorEntry], seen: int) -> None:
        """Add what was written up to this `seq`."""
        if any(one.memory_id in self._entries for one in entries):
            self._rows = Shard()
        self._entries |= {one.memory_id: one for one in entries}
        self.seen = seen

    def forget(self, memory_id: str) -> None:
        """Leave a memory out, if it is there."""
        if self._entries.pop(memory_id, None) is not None:
            self._rows = Shard()

    def among(self, hits: Sequence[Hit], vector: Vector, reader: str, limit: int) -> list[Hit]:
        """Add them to what the index found, under the rule by which it finds.

        Args:
            hits: What it found for this vector and reader.
            vector: float32, shape (d,).
            reader: Who asks.
            limit: How many, at most.

        Raises:
            StorageUnavailable: They are of another length.
        """
        if not self._entries:
            return list(hits)
        self._lay_out()
        readable = [
            one.persona_id == reader or one.visibility in OPEN for one in self._entries.values()
        ]
        rows = np.flatnonzero(readable)
        cosines = self._rows.cosines(unit_length(vector))[rows].round(DECIMALS)
        fresh = top(cosines, [self._rows.ids[row] for row in rows.tolist()], limit)
        older = {h.memory_id: h.similarity for h in hits if h.memory_id not in self._entries}
        return ranked(older | fresh, limit)

    def _lay_out(self) -> None:
        """Put those that came since the last time behind the others.

        Raises:
            StorageUnavailable: They are not all of one length.
        """
        new = list(islice(self._entries.values(), len(self._rows.ids), None))
        if len({one.vector.shape for one in new}) > 1:
            raise other_length()
        if new:
            rows = unit_length(np.stack([one.vector for one in new]))
            self._rows.extend([one.memory_id for one in new], rows)
