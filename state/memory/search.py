"""Finding memories: by meaning and by words, fused; what the reader may not know never appears."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from sqlalchemy import Connection

from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Embedder, Vector, dots, unpack
from persona_mcp.state.errors import PersonaError, StorageUnavailable
from persona_mcp.state.index.vector_index import Hit, ranked
from persona_mcp.state.memory import memories
from persona_mcp.state.memory.lexical import Statistics, bm25, counted
from persona_mcp.state.memory.memories import Found
from persona_mcp.state.memory.memory import ANYTHING, Memory, Recall, Recalled, Sought
from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.memory.retrieval import Candidate, Scored, Spoken, rank
from persona_mcp.state.memory.store import read_memories
from persona_mcp.state.memory.words import statistics

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
        sought: Which ones.
        withhold: Tells which of those that are found are left out.
        params: The weights.
    """

    world_id: str
    reader: str
    text: str
    vector: Vector | None
    degraded: str
    model_id: str
    limit: int
    sought: Sought
    withhold: Withhold | None
    params: RetrievalParams

    @property
    def candidates(self) -> int:
        """Return how many candidates each side gives."""
        return max(self.params.candidates, self.limit)


class MemorySearch:
    """Searches the memories of a world for one reader."""

    def __init__(
        self,
        database: Database,
        index: Nearest,
        embedder: Embedder,
        params: RetrievalParams,
        index_s: float = INDEX_S,
        few: int = 0,
    ) -> None:
        """Search a database through an index.

        Args:
            database: Where the memories are.
            index: Of their vectors.
            embedder: Of what is asked.
            params: The weights.
            index_s: Limit of the index's answer, in seconds.
            few: Of up to so many that a reader may know, all are scored; no index is asked. 0 for
                never.
        """
        self._database = database
        self._index = index
        self._embedder = embedder
        self._params = params
        self._index_s = index_s
        self._few = few

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
        text = query[: self._params.query_chars]
        vector, degraded = await self._embedded(text)
        model_id, params = self._embedder.model_id, self._params
        asked = Asked(
            world_id, reader, text, vector, degraded, model_id, limit, sought, withhold, params
        )
        if self._few and vector is not None:
            found = await self._database.read(of_few, asked, self._few)
            if found is not None:
                return found
        near: Sequence[str] = ()
        if sought == ANYTHING and vector is not None:
            try:
                near = await self._nearest(world_id, vector, reader, asked.candidates)
            except PersonaError as error:
                asked = replace(asked, vector=None, degraded=in_words(error))
        return await self._database.read(of_best, asked, near)

    async def _embedded(self, text: str) -> tuple[Vector | None, str]:
        """Embed what is asked, or say why it could not be."""
        try:
            return await self._embedder.embed_query(text), ""
        except PersonaError as error:
            return None, in_words(error)

    async def _nearest(self, world_id: str, vector: Vector, reader: str, most: int) -> list[str]:
        """Ask the index, within its limit, for the ids of what is near.

        Raises:
            StorageUnavailable: It did not answer in time, or failed.
        """
        try:
            async with asyncio.timeout(self._index_s) as clock:
                hits = await self._index.search(world_id, vector, reader, most)
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise StorageUnavailable(
                f"the dense index did not answer a search within {self._index_s:g} s "
                "(PERSONA_INDEX__REQUEST_S); `persona doctor` tells more"
            ) from error
        return [hit.memory_id for hit in hits]


def in_words(error: PersonaError) -> str:
    """Log that a search is one by words alone, and return why."""
    log.warning("search by words alone", reason=error.message, code=error.code)
    return error.message


def of_few(connection: Connection, asked: Asked, few: int) -> Recall | None:
    """Score all that the reader may know; None if that is more than so many."""
    rows = memories.read_few(connection, asked.world_id, asked.reader, asked.model_id, few)
    if rows is None:
        return None
    own = [row.indexed_text for row in rows if row.persona_id == asked.reader]
    return recall_of(connection, asked, rows, counted(asked.text, own))


def of_best(connection: Connection, asked: Asked, near: Sequence[str]) -> Recall:
    """Score the best by meaning, the best by words, and what stands around them.

    Args:
        connection: An open transaction.
        asked: What for.
        near: Ids of the nearest, from the index; none where it was not asked.
    """
    its = asked.world_id, asked.reader
    most, sought = asked.candidates, asked.sought
    words = memories.search_words(connection, asked.text, *its, most, sought, asked.params)
    close = near
    if sought != ANYTHING and asked.vector is not None:
        some = memories.sought_vectors(connection, *its, asked.model_id, sought)
        close = nearest(some, asked.vector, most)
    around = memories.neighbours(connection, asked.world_id, close, words)
    rows = memories.read_candidates(connection, *its, asked.model_id, close, {*words, *around})
    return recall_of(connection, asked, rows, statistics(connection, asked.text, *its))


def recall_of(
    connection: Connection, asked: Asked, rows: Sequence[Found], known: Statistics
) -> Recall:
    """Score candidates and read the best.

    Args:
        connection: An open transaction.
        asked: What for.
        rows: The candidates.
        known: Of the reader's own memories.
    """
    lexical = bm25(asked.text, [row.indexed_text for row in rows], known, asked.params)
    pool = pool_of(rows, lexical, asked.vector)
    # What stands around a turn counts for it, whether it is sought itself or not.
    wanted = {row.id for row in rows if is_sought(row, asked.reader, asked.sought)}
    best = rank(asked.text, pool, asked.params, asked.limit, wanted)
    ids = [one.candidate.id for one in best]
    found = {m.id: m for m in read_memories(connection, asked.world_id, ids)}
    left_out = asked.withhold(connection, ids) if asked.withhold and ids else frozenset[str]()
    hits = (recalled(one, found[one.candidate.id]) for one in best)
    told = tuple(hit for hit in hits if hit.memory.id not in left_out)
    return Recall(told, asked.degraded, left_out)


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
