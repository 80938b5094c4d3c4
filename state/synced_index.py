"""The dense index in step with the vectors in SQL, whoever writes them.

A process whose index is Chroma looks, before each search, at the vectors that were written since
the last time. So each process finds what the others stored.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog
from sqlalchemy import ColumnElement, Connection, Integer, Row, and_, bindparam, func, select

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Vector, dots, unpack
from persona_mcp.state.exact_index import findable, its_memory
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.vector_index import (
    OPEN,
    Hit,
    Kind,
    VectorEntry,
    VectorIndex,
    other_length,
    ranked,
)

log = structlog.get_logger(__name__)

M = tables.Memory
V = tables.MemoryVector
ENTRIES = select(
    V.seq,
    V.memory_id,
    V.persona_id,
    V.version,
    V.vector,
    M.visibility,
    and_(*findable()).label("found"),
).join(M, its_memory())
NEW_ENTRIES = Prepared(
    ENTRIES.where(
        # By the key of the table: the conditions on it that an index knows are kept from it.
        V.seq > bindparam("after", type_=Integer),
        V.world_id + "" == bindparam("world"),
        V.model_id + "" == bindparam("model"),
    )
    .order_by(V.seq)
    .limit(bindparam("most", type_=Integer))
)


@dataclass
class Fresh:
    """Vectors of a world that the index does not have yet.

    Attributes:
        seen: Newest `seq` that was looked at.
        entries: By memory; one that was embedded anew stands here and, older, in the index.
    """

    seen: int
    entries: dict[str, VectorEntry] = field(default_factory=dict)


class SyncedIndex:
    """Searches an index and keeps it in step."""

    def __init__(self, database: Database, index: VectorIndex, model_id: str, batch: int) -> None:
        """Follow the vectors of one embedder.

        Args:
            database: Where they are.
            index: What is kept in step with them.
            model_id: Of the embedder.
            batch: Vectors written to the index at once.
        """
        self._database = database
        self._index = index
        self._model_id = model_id
        self._batch = batch
        self._fresh: dict[str, Fresh] = {}
        self._carrying = asyncio.Lock()

    @property
    def kind(self) -> Kind:
        """Which index it is."""
        return self._index.kind

    async def search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        """Find the reader's own memories and those open to others, best first, ties by id.

        Raises:
            StorageUnavailable: The database or the index did not answer, or vectors are of another
                length.
        """
        fresh = await self.catch_up(world_id)
        # What was hidden since may still be in the index, and must not crowd out the rest.
        hidden = sum(not entry.found for entry in fresh)
        hits = await self._index.search(world_id, vector, reader, limit + hidden)
        return with_fresh(hits, fresh, vector, reader, limit)

    async def catch_up(self, world_id: str) -> Sequence[VectorEntry]:
        """Look at the vectors that were written since the last time, and return the fresh ones.

        They are not in the index yet: a write to it costs more than the rest of a search, so it
        takes them a batch at a time. What is fresh is scored one by one (`with_fresh`).

        Raises:
            StorageUnavailable: The database or the index did not answer.
        """
        if self._index.kind == "exact":
            return ()
        async with self._carrying:
            if world_id not in self._fresh:
                await self._mend(world_id)
            while await self._look(world_id):
                if len(self._fresh[world_id].entries) == self._batch:
                    await self._carry(world_id)
            return tuple(self._fresh[world_id].entries.values())

    async def reconcile(self, world_id: str) -> tuple[int, int]:
        """Carry what is fresh over, then compare SQL and index both ways and mend the index.

        Returns:
            How many vectors were missing or old, and how many were too many.
        """
        if self._index.kind == "exact":
            return 0, 0
        async with self._carrying:
            if world_id in self._fresh:
                await self._carry(world_id)
            return await self._mend(world_id)

    async def rebuild(self, world_id: str) -> None:
        """Make the index of a world anew from the vectors in SQL.

        Raises:
            StorageUnavailable: The database or the index did not answer.
        """
        await self._index.drop(world_id)
        await self.reconcile(world_id)

    async def aclose(self) -> None:
        """Let go of the index."""
        await self._index.aclose()

    def _of(self, world_id: str) -> tuple[ColumnElement[bool], ...]:
        return V.world_id == world_id, V.model_id == self._model_id

    async def _mend(self, world_id: str) -> tuple[int, int]:

        def read(connection: Connection) -> tuple[int, dict[str, int]]:
            newest = connection.scalar(select(func.max(V.seq)).where(*self._of(world_id)))
            query = select(V.memory_id, V.version).join(M, its_memory())
            rows = connection.execute(query.where(*self._of(world_id), *findable()))
            return newest or 0, {row.memory_id: row.version for row in rows}

        newest, wanted = await self._database.read(read)
        there = await self._index.versions(world_id)
        extra = [memory_id for memory_id in there if memory_id not in wanted]
        missing = [m for m, version in wanted.items() if there.get(m, 0) < version]
        await self._index.delete(world_id, extra)
        for start in range(0, len(missing), self._batch):
            batch = missing[start : start + self._batch]
            query = ENTRIES.where(*self._of(world_id), V.memory_id.in_(batch))
            rows = await self._database.read(Prepared(query).all)
            await self._index.upsert(world_id, [to_entry(row) for row in rows])
        self._fresh[world_id] = Fresh(newest)
        if missing or extra:
            log.info("index mended", world=world_id, missing=len(missing), extra=len(extra))
        return len(missing), len(extra)

    async def _look(self, world_id: str) -> bool:
        """Read vectors behind those that were seen; return whether there may be more."""
        fresh = self._fresh[world_id]
        room = self._batch - len(fresh.entries)
        rows = await self._database.read(
            NEW_ENTRIES.all,
            world=world_id,
            model=self._model_id,
            after=fresh.seen,
            most=room,
        )
        fresh.entries |= {row.memory_id: to_entry(row) for row in rows}
        fresh.seen = rows[-1].seq if rows else fresh.seen
        return len(rows) == room

    async def _carry(self, world_id: str) -> None:
        """Write what is fresh to the index."""
        fresh = self._fresh[world_id]
        entries = list(fresh.entries.values())
        await self._index.delete(world_id, [e.memory_id for e in entries if not e.found])
        await self._index.upsert(world_id, [e for e in entries if e.found])
        fresh.entries.clear()


def to_entry(row: Row[Any]) -> VectorEntry:
    """Read a row."""
    return VectorEntry(
        row.memory_id,
        row.persona_id,
        row.visibility,
        row.version,
        unpack(row.vector),
        bool(row.found),
    )


def with_fresh(
    hits: Sequence[Hit], fresh: Sequence[VectorEntry], vector: Vector, reader: str, limit: int
) -> list[Hit]:
    """Add to what an index found the vectors that it does not have yet, under the same rule.

    Args:
        hits: What it found for this vector and reader.
        fresh: What it lacks; of a memory that is in both, this is the newer.
        vector: float32, shape (d,).
        reader: Who asks.
        limit: How many, at most.

    Raises:
        StorageUnavailable: The fresh vectors are of another length.
    """
    if not fresh:
        return list(hits[:limit])
    rows = np.stack([entry.vector for entry in fresh])
    if rows.shape[1:] != vector.shape:
        raise other_length()
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(vector)
    cosines = dots(rows, vector) / np.where(lengths > 0, lengths, 1)
    newer = {entry.memory_id for entry in fresh}
    found = {hit.memory_id: hit.similarity for hit in hits if hit.memory_id not in newer}
    found |= {
        entry.memory_id: cosine
        for entry, cosine in zip(fresh, cosines.tolist(), strict=True)
        if entry.found and (entry.persona_id == reader or entry.visibility in OPEN)
    }
    return ranked(found, limit)
