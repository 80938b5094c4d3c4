"""The dense index without an index: the vectors in SQL, kept in memory and scored exactly."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, or_, select

from persona_mcp.state.database import Database
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.embedding import Vector, dots
from persona_mcp.state.index.vector_index import (
    DECIMALS,
    Hit,
    Kind,
    VectorEntry,
    other_length,
    ranked,
)
from persona_mcp.state.memory.memory import OPEN
from persona_mcp.state.prepared import Prepared, listed
from persona_mcp.state.tables import Memory, MemoryVector

GROWTH = 2
"""Room of a full matrix grows by this factor, and so does a search that met too many dead rows."""
SHORTEST = np.finfo(np.float32).tiny
"""Divides a vector of length 0, which stays what it is."""


class Shard:
    """Vectors in memory: those of one persona, or those of a world that are open to others.

    Rows are only ever added behind the last one, so a search that began before still reads its own.

    Attributes:
        ids: Memory of each row.
        seen: Newest `seq` in SQL that was considered, whoever's it is.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.seen = 0
        self.ids: list[str] = []
        self._held: set[str] = set()
        self._matrix: Vector = np.empty((0, 0), dtype=np.float32)

    def __contains__(self, memory_id: str) -> bool:
        """Tell whether it has a row of this memory."""
        return memory_id in self._held

    def extend(self, ids: Sequence[str], new: Vector) -> None:
        """Add vectors of length 1, float32, shape (n, d), behind the last one.

        Raises:
            StorageUnavailable: They are of another length than those before; it is as it was.
        """
        held = len(self.ids)
        if not held:
            self._matrix = new
        elif new.shape[1] != self._matrix.shape[1]:
            raise other_length()
        else:
            if held + len(new) > len(self._matrix):
                room = np.empty((GROWTH * held + len(new), new.shape[1]), dtype=np.float32)
                room[:held] = self._matrix[:held]
                self._matrix = room
            self._matrix[held : held + len(new)] = new
        self.ids.extend(ids)
        self._held.update(ids)

    def cosines(self, query: Vector) -> Vector:
        """Score every row: float32, shape (rows,).

        Raises:
            StorageUnavailable: The rows are of another length than the query.
        """
        held = len(self.ids)
        if not held:
            return np.empty(0, dtype=np.float32)
        if self._matrix.shape[1] != len(query):
            raise other_length()
        return dots(self._matrix[:held], query)


def unpack_rows(blobs: Sequence[bytes]) -> Vector:
    """Turn stored float16 vectors into rows of length 1: float32, shape (n, d).

    Raises:
        StorageUnavailable: They are not of one length.
    """
    if len({len(blob) for blob in blobs}) != 1:
        raise other_length()
    rows = np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), -1)
    return unit_length(rows.astype(np.float32))


def unit_length(vectors: Vector) -> Vector:
    """Scale vectors to length 1; one without a direction stays zero."""
    lengths = np.sqrt(np.add.reduce(vectors * vectors, axis=-1, keepdims=True))
    scaled: Vector = (vectors / np.maximum(lengths, SHORTEST)).astype(np.float32, copy=False)
    return scaled


class ExactIndex:
    """Scores the vectors in SQL, all of them; what it keeps in memory follows what others write.

    A search costs one look at the newest `seq`, two products of a matrix and a vector, and one look
    at the rows that it found, in which what was deleted drops out. It relies on two rules of
    `memory_vectors`: a rewritten vector gets a new `seq`, greater than any before, and the vector
    of a memory whose visibility changes is rewritten.
    """

    kind: Kind = "exact"
    fault = ""
    is_own = False

    def __init__(self, database: Database, model_id: str, shards_cached: int) -> None:
        """Score the vectors of one embedder.

        Args:
            database: Where they are.
            model_id: Of the embedder.
            shards_cached: Personas whose vectors stay in memory; the one unused for longest goes.
        """
        self._database = database
        self._model_id = model_id
        self._shards_cached = shards_cached
        self._shards: OrderedDict[tuple[str, str | None], Shard] = OrderedDict()
        self._reading = threading.Lock()

    async def check(self) -> None:
        """Do nothing: it answers whenever the database does."""

    async def upsert(self, world_id: str, entries: Sequence[VectorEntry]) -> None:
        """Do nothing: the rows in SQL are the index, and whoever calls this has written them."""

    async def delete(self, world_id: str, memory_ids: Sequence[str]) -> None:
        """Do nothing: a row that is gone or switched off in SQL is not found."""

    async def search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        """Find the reader's own memories and those open to others, best first, ties by id.

        Raises:
            StorageUnavailable: The database did not answer, or holds vectors of another length.
        """
        query = unit_length(vector.astype(np.float32))
        return await self._database.read(self._search, world_id, query, reader, limit)

    def _search(
        self, connection: Connection, world_id: str, query: Vector, reader: str, limit: int
    ) -> list[Hit]:
        with self._reading:
            newest = NEWEST.scalar(connection) or 0
            own = self._shard(connection, world_id, reader, newest)
            open_to_all = self._shard(connection, world_id, None, newest)
            ids = [*own.ids, *open_to_all.ids]
            cosines = np.concatenate([own.cosines(query), open_to_all.cosines(query)])
        # A memory of the reader's that is open stands in both.
        cosines, wanted = cosines.round(DECIMALS), GROWTH * limit
        while True:
            best = top(cosines, ids, wanted)
            known = self._known(connection, world_id, reader, list(best))
            if len(known) >= limit or wanted >= len(ids):
                return ranked({id: best[id] for id in known}, limit)
            wanted *= GROWTH

    async def versions(self, world_id: str) -> dict[str, int]:
        """Give the version of each vector whose memory can be found, by id.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        statement = (
            select(MemoryVector.memory_id, MemoryVector.version)
            .join(Memory, its_memory())
            .where(
                MemoryVector.world_id == world_id,
                MemoryVector.model_id == self._model_id,
                *found(),
            )
        )

        def read(connection: Connection) -> dict[str, int]:
            return {row.memory_id: row.version for row in connection.execute(statement)}

        return await self._database.read(read)

    async def worlds(self) -> set[str]:
        """Give the worlds that have vectors.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        statement = (
            select(MemoryVector.world_id).where(MemoryVector.model_id == self._model_id).distinct()
        )
        rows = await self._database.read(Prepared(statement).all)
        return {row.world_id for row in rows}

    async def drop(self, world_id: str) -> None:
        """Forget what is in memory of a world; its vectors in SQL stay."""
        await asyncio.to_thread(self._forget, world_id)

    async def aclose(self) -> None:
        """Forget what is in memory."""
        await asyncio.to_thread(self._forget)

    def _forget(self, world_id: str | None = None) -> None:
        with self._reading:
            for key in [key for key in self._shards if world_id in (None, key[0])]:
                del self._shards[key]

    def _shard(
        self, connection: Connection, world_id: str, owner: str | None, newest: int
    ) -> Shard:
        """Bring a shard up to date: add what is new, read all again if something was rewritten."""
        key = (world_id, owner)
        shard = self._shards.get(key)
        rows: Sequence[Row[Any]] = ()
        if shard is not None and newest > shard.seen:
            rows = self._newer(connection, world_id, owner, shard.seen)
            if any(row.memory_id in shard for row in rows):
                shard = None
            elif owner is None:
                rows = [row for row in rows if row.visibility in OPEN]
        if shard is None:
            shard, rows = Shard(), self._rows(connection, world_id, owner)
        if rows:
            shard.extend([row.memory_id for row in rows], unpack_rows([r.vector for r in rows]))
        shard.seen = newest
        self._shards[key] = shard
        self._shards.move_to_end(key)
        while len(self._shards) > self._shards_cached:
            self._shards.popitem(last=False)
        return shard

    def _newer(
        self, connection: Connection, world_id: str, owner: str | None, after: int
    ) -> list[Row[Any]]:
        """Read the vectors of an owner, or all of a world, that were written later."""
        rows = NEWER.all(connection, world=world_id, model=self._model_id, after=after)
        return [row for row in rows if owner in (None, row.persona_id)]

    def _rows(self, connection: Connection, world_id: str, owner: str | None) -> list[Row[Any]]:
        """Read what a shard holds."""
        its = {"world": world_id, "model": self._model_id}
        if owner is None:
            return list(OPEN_ROWS.all(connection, **its))
        return list(OWN_ROWS.all(connection, **its, owner=owner))

    def _known(
        self, connection: Connection, world_id: str, reader: str, memory_ids: list[str]
    ) -> list[str]:
        """Keep the memories that can be found and that the reader may be given as candidates."""
        its = {"world": world_id, "model": self._model_id, "reader": reader}
        return [row[0] for row in KNOWN.all(connection, **its, ids=memory_ids)]


def its_memory() -> ColumnElement[bool]:
    """Match a vector and the memory that it is of."""
    return (Memory.world_id == MemoryVector.world_id) & (Memory.id == MemoryVector.memory_id)


def found() -> tuple[ColumnElement[bool], ...]:
    """Say which memories can be found: neither switched off nor archived."""
    return Memory.active.is_(True), Memory.archived_at.is_(None)


NEWEST = Prepared(select(func.max(MemoryVector.seq)))
ROWS = (
    select(MemoryVector.memory_id, MemoryVector.vector, Memory.visibility)
    .join(Memory, its_memory())
    .where(MemoryVector.world_id == bindparam("world"), MemoryVector.model_id == bindparam("model"))
    .order_by(MemoryVector.seq)
)
OWN_ROWS = Prepared(ROWS.where(MemoryVector.persona_id == bindparam("owner")))
OPEN_ROWS = Prepared(ROWS.where(or_(*(Memory.visibility == one for one in OPEN))))
NEWER = Prepared(
    select(MemoryVector.memory_id, MemoryVector.persona_id, MemoryVector.vector, Memory.visibility)
    .join(Memory, its_memory())
    .where(
        # By the key of the table: the conditions on it that an index knows are kept from it.
        MemoryVector.seq > bindparam("after", type_=INTEGER),
        MemoryVector.world_id + "" == bindparam("world"),
        MemoryVector.model_id + "" == bindparam("model"),
    )
    .order_by(MemoryVector.seq)
)
KNOWN = Prepared(
    select(Memory.id)
    .join(MemoryVector, its_memory())
    .where(
        Memory.world_id == bindparam("world"),
        MemoryVector.model_id == bindparam("model"),
        or_(
            Memory.persona_id == bindparam("reader"),
            *(Memory.visibility == visibility for visibility in OPEN),
        ),
        Memory.id.in_(listed("ids")),
        *found(),
    )
)


def top(cosines: Vector, ids: Sequence[str], count: int) -> dict[str, float]:
    """Pick the best rows, ties by id: cosine by id, best first."""
    rows = list(range(len(cosines)))
    if count < len(cosines):
        least = np.partition(cosines, len(cosines) - count)[len(cosines) - count]
        rows = np.flatnonzero(cosines >= least).tolist()
    best = sorted((-float(cosines[row]), ids[row]) for row in rows)[:count]
    return {id: -cosine for cosine, id in best}
