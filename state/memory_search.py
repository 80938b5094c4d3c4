"""Finding memories: by meaning and by words, fused; what the reader may not know never appears."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog
from sqlalchemy import Connection

from persona_mcp.state import memories
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Embedder, Vector, dots, unpack
from persona_mcp.state.errors import PersonaError, StorageUnavailable
from persona_mcp.state.lexical import bm25
from persona_mcp.state.memories import Found
from persona_mcp.state.memory import ANYTHING, Memory, Recall, Recalled, Sought
from persona_mcp.state.memory_params import RetrievalParams
from persona_mcp.state.memory_store import read_memories
from persona_mcp.state.memory_words import statistics
from persona_mcp.state.retrieval import Candidate, Scored, Spoken, rank
from persona_mcp.state.vector_index import Hit, ranked

log = structlog.get_logger(__name__)

TURN = "conversation"
"""The type of a memory that is a turn, word for word."""


INDEX_S = 10.0
"""Limit of a search of the index where nobody says otherwise, in seconds."""


Withhold = Callable[[Connection, Sequence[str]], frozenset[str]]
"""From an open transaction and ids of memories to those that are not to be told."""


class Nearest(Protocol):
    """What a search needs of a dense index."""

    async def search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        """Find the reader's own memories and those open to others, best first, ties by id.

        Raises:
            StorageUnavailable: The index did not answer, or holds vectors of another length.
        """
        ...


class MemorySearch:
    """Searches the memories of a world for one reader."""

    def __init__(
        self,
        database: Database,
        index: Nearest,
        embedder: Embedder,
        params: RetrievalParams,
        index_s: float = INDEX_S,
    ) -> None:
        """Search this database through this index, which has `index_s` seconds for an answer."""
        self._database = database
        self._index_s = index_s
        self._index = index
        self._embedder = embedder
        self._params = params

    async def search(
        self,
        world_id: str,
        reader: str,
        query: str,
        limit: int,
        sought: Sought = ANYTHING,
        withhold: Withhold | None = None,
    ) -> Recall:
        """Find what bears on a text, among what the reader may know.

        Args:
            world_id: Where.
            reader: Who asks; the witness rule is applied for it.
            query: Any text; of a long one the beginning is used.
            limit: How many, at most.
            sought: Which ones; as many are found as there are, however few of all they be.
            withhold: Tells which of those that are found are left out; nothing takes their place.

        Raises:
            StorageUnavailable: The database did not answer. An embedder or index that fails
                makes the answer `degraded`: words alone.
        """
        params, text = self._params, query[: self._params.query_chars]
        most, model_id = max(params.candidates, limit), self._embedder.model_id
        all_of_them = sought == ANYTHING
        vector, near, degraded = await self._by_meaning(
            world_id, reader, text, most if all_of_them else 0
        )

        def read(connection: Connection) -> Recall:
            words = memories.search_words(connection, text, world_id, reader, most, sought, params)
            close = near
            if not all_of_them and vector is not None:
                some = memories.sought_vectors(connection, world_id, reader, model_id, sought)
                close = nearest(some, vector, most)
            around = memories.neighbours(connection, world_id, close, words)
            rows = memories.read_candidates(
                connection, world_id, reader, model_id, close, {*words, *around}
            )
            known = statistics(connection, text, world_id, reader)
            pool = pool_of(rows, bm25(text, [r.indexed_text for r in rows], known, params), vector)
            # What stands around a turn counts for it, whether it is sought itself or not.
            wanted = {row.id for row in rows if is_sought(row, reader, sought)}
            best = rank(text, pool, params, limit, wanted)
            ids = [one.candidate.id for one in best]
            found = {m.id: m for m in read_memories(connection, world_id, ids)}
            left_out = withhold(connection, ids) if withhold and ids else frozenset[str]()
            hits = (recalled(one, found[one.candidate.id]) for one in best)
            told = tuple(hit for hit in hits if hit.memory.id not in left_out)
            return Recall(told, degraded, left_out)

        return await self._database.read(read)

    async def _by_meaning(
        self, world_id: str, reader: str, text: str, most: int
    ) -> tuple[Vector | None, list[str], str]:
        try:
            # One after the other: of two at once, the second would run on after the first failed.
            vector = await self._embedder.embed_query(text)
            if not most:
                return vector, [], ""
            hits = await self._nearest(world_id, vector, reader, most)
        except PersonaError as error:
            log.warning("search by words alone", reason=error.message, code=error.code)
            return None, [], error.message
        return vector, [hit.memory_id for hit in hits], ""

    async def _nearest(self, world_id: str, vector: Vector, reader: str, most: int) -> list[Hit]:
        """Ask the index, within its limit.

        Raises:
            StorageUnavailable: It did not answer in time, or failed.
        """
        try:
            async with asyncio.timeout(self._index_s) as clock:
                return await self._index.search(world_id, vector, reader, most)
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise StorageUnavailable(
                f"the dense index did not answer a search within {self._index_s:g} s "
                "(PERSONA_INDEX__REQUEST_S); `persona doctor` tells more"
            ) from error


def is_sought(row: Found, reader: str, sought: Sought) -> bool:
    """Tell whether a row is one of those that a search is for."""
    if row.archived_at is not None:
        return False
    if sought == ANYTHING:
        return True
    if row.importance < sought.min_importance:
        return False
    if sought.memory_type not in (None, row.memory_type):
        return False
    others = {"shared": sought.shared, "public": sought.public}
    own = row.persona_id == reader and (sought.private or row.visibility != "private")
    return own or others.get(row.visibility, False)


def nearest(vectors: Mapping[str, bytes], vector: Vector, limit: int) -> list[str]:
    """Return the ids of those nearest to a vector, best first, ties by id.

    The dense index knows nothing of types and weights: few rows that are sought would drown in it.
    """
    found = cosines(list(vectors.values()), vector)
    by_id = {id: cosine or 0.0 for id, cosine in zip(vectors, found, strict=True)}
    return [hit.memory_id for hit in ranked(by_id, limit)]


def cosines(blobs: Sequence[bytes | None], vector: Vector | None) -> list[float | None]:
    """Compare stored vectors with one; None where one of the two is not there."""
    there = [blob for blob in blobs if blob is not None]
    if vector is None or not there:
        return [None] * len(blobs)
    rows = unpack(b"".join(there)).reshape(len(there), -1)
    found = iter(dots(rows, vector).tolist())
    return [None if blob is None else next(found) for blob in blobs]


def pool_of(
    rows: Sequence[Found], lexical: Sequence[float], vector: Vector | None
) -> list[Candidate]:
    """Make candidates of rows and the scores of their words."""
    dense = cosines([row.vector for row in rows], vector)
    speakers: dict[str, str] = {}
    return [
        Candidate(row.id, cosine, words, spoken_of(row, speakers))
        for row, cosine, words in zip(rows, dense, lexical, strict=True)
    ]


def spoken_of(found: Found, speakers: dict[str, str]) -> Spoken | None:
    """Read what is known of a turn; None for a memory that is none.

    Args:
        found: The memory.
        speakers: Speakers by what stands before a text; what is new is added.
    """
    if found.turn_id is None or found.memory_type != TURN or found.conversation_id is None:
        return None
    before = found.indexed_text[: len(found.indexed_text) - len(found.content)]
    if before not in speakers:
        speakers[before] = before.partition("] ")[2].rstrip().removesuffix(":")
    where = found.persona_id, found.conversation_id, found.turn_number
    return Spoken(*where, found.created_at, speakers[before], found.content)


def recalled(one: Scored, memory: Memory) -> Recalled:
    """Return what was found, with its memory."""
    meaning = one.candidate.dense or 0.0
    return Recalled(
        memory=memory,
        similarity=min(1.0, max(0.0, meaning)),
        score=one.score,
        parts={"dense": meaning, "lexical": one.candidate.lexical, **one.parts},
    )
