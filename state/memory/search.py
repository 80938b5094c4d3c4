"""Finding memories: by meaning and by words, fused; what the reader may not know never appears."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol

import structlog
from sqlalchemy import Connection

from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Embedder, Vector
from persona_mcp.state.errors import PersonaError, StorageUnavailable
from persona_mcp.state.index.vector_index import Hit, ranked
from persona_mcp.state.memory import memories
from persona_mcp.state.memory.asked import Asked, Withhold
from persona_mcp.state.memory.held import HeldMemories
from persona_mcp.state.memory.lexical import bm25
from persona_mcp.state.memory.memories import Found
from persona_mcp.state.memory.memory import ANYTHING, Memory, Recall, Recalled, Sought
from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.memory.pool import cosines, pool_of
from persona_mcp.state.memory.retrieval import Pool, Scored, rank
from persona_mcp.state.memory.store import read_memories
from persona_mcp.state.memory.words import statistics

log = structlog.get_logger(__name__)

INDEX_S = 10.0
"""Limit of a search of the index where nobody says otherwise, in seconds."""


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
        held: HeldMemories | None = None,
    ) -> None:
        """Search a database through an index.

        Args:
            database: Where the memories are.
            index: Of their vectors.
            embedder: Of what is asked.
            params: The weights.
            index_s: Limit of the index's answer, in seconds.
            held: Searched in place of the index where it has room for what a reader may know; None
                for never.
        """
        self._database = database
        self._index = index
        self._embedder = embedder
        self._params = params
        self._index_s = index_s
        self._held = held

    async def search(
        self,
        world_id: str,
        reader: str,
        query: str,
        limit: int,
        sought: Sought = ANYTHING,
        withhold: Withhold | None = None,
        uses: bool = True,
        shown: Collection[str] = (),
        degraded: str = "",
    ) -> Recall:
        """Find what bears on a text, among what the reader may know.

        Args:
            world_id: Where.
            reader: Who asks; the witness rule is applied for it.
            query: Any text; of a long one the beginning is used.
            limit: How many, at most.
            sought: Which ones; as many are found as there are, however few of all they be.
            withhold: Tells which of those that are found are left out; others of the candidates
                take their place.
            uses: Whether it is told how often they were used; else they look unused.
            shown: Turns that are shown beside what is found: memories of them are left out.
            degraded: Why words alone are searched; empty to search by meaning as well.

        Raises:
            StorageUnavailable: The database did not answer. An embedder or index that fails
                makes the answer `degraded`: words alone.
        """
        text = query[: self._params.query_chars]
        vector = None
        if not degraded:
            vector, degraded = await self._embedded(text)
        model_id, params = self._embedder.model_id, self._params
        asked = Asked(
            world_id,
            reader,
            text,
            vector,
            degraded,
            model_id,
            limit,
            frozenset(shown),
            sought,
            withhold,
            params,
            uses,
        )
        near: Sequence[str] = ()
        if sought == ANYTHING and vector is not None:
            try:
                if self._held is not None:
                    found = await self._database.read(of_held, asked, vector, self._held)
                    if found is not None:
                        return found
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


def of_held(
    connection: Connection, asked: Asked, vector: Vector, held: HeldMemories
) -> Recall | None:
    """Score the best of what is held; None where it has no room for what the reader may know."""
    found = held.pool(connection, asked, vector)
    return None if found is None else recall_of(connection, asked, found)


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
    known = statistics(connection, asked.text, *its)
    lexical = bm25(asked.text, [row.indexed_text for row in rows], known, asked.params)
    # What stands around a turn counts for it, whether it is sought itself or not.
    wanted = [
        is_sought(row, asked.reader, sought) and row.turn_id not in asked.shown for row in rows
    ]
    return recall_of(connection, asked, pool_of(rows, lexical, asked.vector, wanted))


def recall_of(connection: Connection, asked: Asked, pool: Pool) -> Recall:
    """Rank a pool and read the best of it."""
    told, left_out = chosen(connection, asked, rank(asked.text, pool, asked.params))
    ids = [one.id for one in told]
    rows = read_memories(connection, asked.world_id, ids, asked.uses) if ids else []
    found = {memory.id: memory for memory in rows}
    # What is held may be newer than this transaction.
    hits = tuple(recalled(one, found[one.id]) for one in told if one.id in found)
    return Recall(hits, asked.degraded, left_out, asked.shown)


def chosen(
    connection: Connection, asked: Asked, best: Iterator[Scored]
) -> tuple[list[Scored], frozenset[str]]:
    """Take as many of the best as are wanted; return ids of what was left out on the way."""
    told, left_out = list[Scored](), set[str]()
    while len(told) < asked.limit and (some := list(islice(best, asked.limit))):
        ids = [one.id for one in some]
        kept_back = asked.withhold(connection, ids) if asked.withhold else frozenset[str]()
        for one in some:
            if len(told) == asked.limit:
                break
            if one.id in kept_back:
                left_out.add(one.id)
            else:
                told.append(one)
    return told, frozenset(left_out)


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
    by_id = dict(zip(vectors, cosines(list(vectors.values()), vector).tolist(), strict=True))
    return [hit.memory_id for hit in ranked(by_id, limit)]


def recalled(one: Scored, memory: Memory) -> Recalled:
    """Return what was found, with its memory."""
    similarity = min(1.0, max(0.0, one.parts["dense"]))
    return Recalled(memory, similarity, one.score, one.parts)
