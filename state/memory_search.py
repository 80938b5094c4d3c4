"""Finding memories: by meaning and by words, fused; what the reader may not know never appears."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, Row

from persona_mcp.state import memories
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Embedder, Vector, dots, unpack
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.memory import Memory, Recall, Recalled
from persona_mcp.state.retrieval import RetrievalParams, fuse
from persona_mcp.state.synced_index import SyncedIndex

log = structlog.get_logger(__name__)


class MemorySearch:
    """Searches the memories of a world for one reader."""

    def __init__(
        self,
        database: Database,
        index: SyncedIndex,
        embedder: Embedder,
        params: RetrievalParams,
    ) -> None:
        """Search this database through this index."""
        self._database = database
        self._index = index
        self._embedder = embedder
        self._params = params

    async def search(
        self,
        world_id: str,
        reader: str,
        query: str,
        limit: int,
        memory_type: str | None = None,
        min_importance: float = 0.0,
    ) -> Recall:
        """Find what bears on a text, among what the reader may know.

        Args:
            world_id: Where.
            reader: Who asks; the witness rule is applied for it.
            query: Any text; of a long one the beginning is used.
            limit: How many, at most.
            memory_type: Only memories of this type.
            min_importance: Only memories at least as important, 0..1.

        Raises:
            StorageUnavailable: The database did not answer. An embedder or index that fails
                makes the answer `degraded`: words alone.
        """
        text = query[: self._params.query_chars]
        vector, near, degraded = await self._by_meaning(world_id, reader, text)

        def read(connection: Connection) -> Recall:
            words = memories.search_words(
                connection,
                text,
                world_id,
                reader,
                self._params.candidates,
            )
            rows = memories.read_candidates(
                connection,
                world_id,
                reader,
                self._embedder.model_id,
                near,
                words,
            )
            wanted = [
                row
                for row in rows
                if row.importance >= min_importance and memory_type in (None, row.memory_type)
            ]
            best = rank(wanted, words, vector, self._params)[:limit]
            kept = memories.read_memories(connection, world_id, [one.id for one in best])
            found = {memory.id: memory for memory in kept}
            return Recall(tuple(one.recalled(found[one.id]) for one in best), degraded)

        return await self._database.read(read)

    async def _by_meaning(
        self, world_id: str, reader: str, text: str
    ) -> tuple[Vector | None, list[str], str]:
        try:
            # One after the other: of two at once, the second would run on after the first failed.
            vector = await self._embedder.embed_query(text)
            hits = await self._index.search(world_id, vector, reader, self._params.candidates)
        except PersonaError as error:
            log.warning("search by words alone", reason=error.message, code=error.code)
            return None, [], error.message
        return vector, [hit.memory_id for hit in hits], ""


@dataclass(frozen=True)
class Scored:
    """A candidate and what it scored.

    Attributes:
        id: Of the memory.
        score: Of both ways together.
        meaning: Cosine with the query; None without a vector.
        words: Score of the words; 0 if none is in it.
    """

    id: str
    score: float
    meaning: float | None
    words: float

    def recalled(self, memory: Memory) -> Recalled:
        """Return it with its memory."""
        return Recalled(
            memory=memory,
            similarity=min(1.0, max(0.0, self.meaning or 0.0)),
            score=self.score,
            parts={"dense": self.meaning or 0.0, "lexical": self.words},
        )


def cosines(blobs: Sequence[bytes | None], vector: Vector | None) -> list[float | None]:
    """Compare stored vectors with one; None where one of the two is not there."""
    there = [blob for blob in blobs if blob is not None]
    if vector is None or not there:
        return [None] * len(blobs)
    rows = unpack(b"".join(there)).reshape(len(there), -1)
    found = iter(dots(rows, vector).tolist())
    return [None if blob is None else next(found) for blob in blobs]


def rank(
    rows: Sequence[Row[Any]],
    words: Mapping[int, float],
    vector: Vector | None,
    params: RetrievalParams,
) -> list[Scored]:
    """Score candidates and sort them: best first, ties by id."""
    dense = cosines([row.vector for row in rows], vector)
    lexical = [words.get(row.seq, 0.0) for row in rows]
    asks = [row.content.rstrip().endswith("?") for row in rows]
    scores = fuse(dense, lexical, asks, params)
    hits = [
        Scored(row.id, float(score), meaning, word)
        for row, meaning, word, score in zip(rows, dense, lexical, scores, strict=True)
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))
