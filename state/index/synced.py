"""The dense index in step with the vectors in SQL, whoever writes them.

A process whose index is Chroma looks, before each search of it, at the vectors that were written
since the last time. So each process finds what the others stored; its worker looks now and then
too, since most searches are of what is held in memory. A world of which Chroma lacks more than
a batch is filled in the background, and exact scoring answers there meanwhile.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, func, select

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.embedding import Vector, unpack
from persona_mcp.state.errors import PersonaError, StorageUnavailable
from persona_mcp.state.index.exact import ExactIndex, found, its_memory
from persona_mcp.state.index.fresh_vectors import FreshVectors
from persona_mcp.state.index.vector_index import (
    Hit,
    Kind,
    VectorEntry,
    VectorIndex,
)
from persona_mcp.state.prepared import Prepared, listed, listed_numbers

log = structlog.get_logger(__name__)

M = tables.Memory
V = tables.MemoryVector
O = tables.OutboxEntry  # noqa: E741 - the table's letter, as in the other stores
# What cannot be found would only take the place of what can in an index.
HELD = select(V.memory_id, V.version).join(M, its_memory()).where(*found())
ENTRIES = HELD.add_columns(V.seq, V.persona_id, V.vector, M.visibility)
NEW_ENTRIES = Prepared(
    ENTRIES.where(
        # By the key of the table: the conditions on it that an index knows are kept from it.
        V.seq > bindparam("after", type_=INTEGER),
        V.world_id + "" == bindparam("world"),
        V.model_id + "" == bindparam("model"),
    )
    .order_by(V.seq)
    .limit(bindparam("most", type_=INTEGER))
)
EMBEDDED_WORLDS = Prepared(
    select(V.world_id).where(V.model_id == bindparam("model")).distinct().order_by(V.world_id)
)
BEHIND = "it lacks what was written meanwhile"
FAILED = "the dense index failed in a world and is made anew from the database"
WORLDS = Prepared(select(tables.World.id))
TO_FORGET = Prepared(
    select(O.seq, O.world_id, O.memory_id)
    .where(O.operation == "delete")
    .order_by(O.seq)
    .limit(bindparam("most", type_=INTEGER))
)
ROWS_AT_ONCE = 1024
"""A memory that is archived and found again, again and again, has a row for each time."""
FORGOTTEN = Prepared(delete(O).where(O.seq.in_(listed_numbers("seqs"))))
STILL_HELD = Prepared(
    ENTRIES.where(
        V.world_id == bindparam("world"),
        V.memory_id.in_(listed("ids")),
        V.model_id == bindparam("model"),
    )
)


@dataclass(frozen=True)
class Gap:
    """What tells the index of a world and SQL apart.

    Attributes:
        newest: Newest `seq` that was looked at.
        missing: Memories that the index lacks, or has in an older version.
        extra: Memories that it should not have.
    """

    newest: int
    missing: list[str]
    extra: list[str]


class SyncedIndex:
    """Searches an index and keeps it in step."""

    def __init__(
        self,
        database: Database,
        index: VectorIndex,
        model_id: str,
        batch: int,
        shards_cached: int = 8,
    ) -> None:
        """Follow the vectors of one embedder.

        Args:
            database: Where they are.
            index: What is kept in step with them.
            model_id: Of the embedder.
            batch: Vectors written to the index at once.
            shards_cached: Personas whose vectors stay in memory while the index is filled.
        """
        self._database = database
        self._index = index
        self._exact = ExactIndex(database, model_id, shards_cached)
        self._model_id = model_id
        self._batch = batch
        self._fresh: dict[str, FreshVectors] = {}
        self._at_first: set[str] | None = None
        """Worlds that were in the index at first; None before it was looked at."""
        self._carrying = asyncio.Lock()
        self._behind: list[str] = []
        self._filling: asyncio.Task[None] | None = None
        self._failed: set[str] = set()
        """Worlds in which it failed, so that they are made anew; once in a process."""
        self._to_drop: set[str] = set()
        self._closed = False

    @property
    def kind(self) -> Kind:
        """Which index it is."""
        return self._index.kind

    @property
    def trouble(self) -> str:
        """Why exact scoring answers in some worlds for now; empty where the index answers."""
        if not self._behind:
            return ""
        why = self._index.fault or BEHIND
        return f"{why}; it is rebuilt in the background, and exact scoring answers meanwhile"

    async def start(self) -> None:
        """Fill an index that was begun anew, in the background."""
        if self._index.fault:
            worlds = await self._database.read(EMBEDDED_WORLDS.all, model=self._model_id)
            self._fill([world_id for (world_id,) in worlds])

    async def check(self) -> None:
        """See whether the index answers.

        Raises:
            StorageUnavailable: It does not.
        """
        await self._index.check()

    async def search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        """Find the reader's own memories and those open to others, best first, ties by id.

        Raises:
            StorageUnavailable: The database or the index did not answer, or vectors are of another
                length.
        """
        try:
            fresh = await self.catch_up(world_id)
            if world_id in self._behind:
                return await self._exact.search(world_id, vector, reader, limit)
            hits = await self._index.search(world_id, vector, reader, limit)
        except StorageUnavailable:
            if not self._mends(world_id):
                raise
            return await self._exact.search(world_id, vector, reader, limit)
        return fresh.among(hits, vector, reader, limit)

    async def keep_up(self, world_id: str) -> None:
        """Have the index follow what was written in a world that nobody may ask it about.

        Raises:
            StorageUnavailable: The database or the index did not answer.
        """
        try:
            await self.catch_up(world_id)
        except StorageUnavailable:
            if not self._mends(world_id):
                raise

    async def catch_up(self, world_id: str) -> FreshVectors:
        """Look at the vectors that were written since the last time, and return the fresh ones.

        They are not in the index yet: a write to it costs more than the rest of a search, so it
        takes them a batch at a time. Nothing is fresh in a world that is being filled.

        Raises:
            StorageUnavailable: The database or the index did not answer.
        """
        if self._index.kind == "exact":
            return FreshVectors(0)
        async with self._carrying:
            if world_id in self._behind:
                return FreshVectors(0)
            if world_id not in self._fresh:
                gap = await self._compare(world_id)
                if len(gap.missing) > self._batch:
                    self._fill([world_id])
                    return FreshVectors(0)
                await self._mend(world_id, gap)
            while await self._look(world_id):
                if len(self._fresh[world_id]) == self._batch:
                    await self._carry(world_id)
            return self._fresh[world_id]

    async def reconcile(self, world_id: str) -> tuple[int, int]:
        """Carry what is fresh over, then compare SQL and index both ways and mend the index.

        What is filled in the background is waited for.

        Returns:
            How many vectors were missing or old, and how many were too many.

        Raises:
            StorageUnavailable: The database or the index did not answer.
        """
        if self._index.kind == "exact":
            return 0, 0
        if self._filling is not None:
            await asyncio.wait([self._filling])
        async with self._carrying:
            if world_id in self._fresh:
                await self._carry(world_id)
            gap = await self._compare(world_id)
            await self._mend(world_id, gap)
        return len(gap.missing), len(gap.extra)

    async def forget(self) -> int:
        """Take out of the index what was deleted or archived, by any process.

        The rows of the outbox that say so go when that is done: cut off, it is done again. A world
        that is gone has taken its rows with it, so worlds are compared. A process with an exact
        index leaves the rows to the one that holds Chroma.

        Returns:
            How many memories were looked at.

        Raises:
            StorageUnavailable: The database or the index did not answer.
        """
        if self._index.kind == "exact":
            return 0
        async with self._carrying:
            await self._forget_worlds()
            looked_at = 0
            while rows := await self._database.read(TO_FORGET.all, most=ROWS_AT_ONCE):
                for world_id in sorted({row.world_id for row in rows}):
                    named = (row.memory_id for row in rows if row.world_id == world_id)
                    its = list(dict.fromkeys(named))
                    for start in range(0, len(its), self._batch):
                        await self._forget(world_id, its[start : start + self._batch])
                await self._database.write(FORGOTTEN.run, {"seqs": [row.seq for row in rows]})
                looked_at += len(rows)
            return looked_at

    async def rebuild(self, world_id: str) -> None:
        """Make the index of a world anew from the vectors in SQL.

        Raises:
            StorageUnavailable: The database or the index did not answer.
        """
        await self._index.drop(world_id)
        await self.reconcile(world_id)

    async def aclose(self) -> None:
        """Let go of the index; what is not filled yet is filled the next time."""
        self._closed = True
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        await self._exact.aclose()
        await self._index.aclose()

    def _fill(self, worlds: Sequence[str]) -> None:
        """Fill worlds in the background, one after the other."""
        self._behind += [world_id for world_id in worlds if world_id not in self._behind]
        if self._behind and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._fill_all(), name="index rebuild")

    def _mends(self, world_id: str) -> bool:
        """Make a world's part of our own index anew, the first time that it fails.

        Returns:
            Whether it is ours, so that exact scoring answers meanwhile.
        """
        # What it has after it failed is not known: it is compared again.
        self._fresh.pop(world_id, None)
        if not self._index.is_own or self._closed:
            return False
        if world_id not in self._failed:
            self._failed.add(world_id)
            self._to_drop.add(world_id)
            log.warning(f"{FAILED}, and exact scoring answers meanwhile", world=world_id)
            self._fill([world_id])
        return True

    async def _fill_all(self) -> None:
        while self._behind:
            world_id = self._behind[0]
            try:
                if world_id in self._to_drop:
                    await self._index.drop(world_id)
                    self._to_drop.discard(world_id)
                await self._mend(world_id, await self._compare(world_id))
            except PersonaError as error:  # the next search finds it behind, and tries again
                log.warning("index not rebuilt", world=world_id, reason=error.message)
            # From here on the index answers there.
            self._behind.remove(world_id)

    def _of(self, world_id: str) -> tuple[ColumnElement[bool], ...]:
        return V.world_id == world_id, V.model_id == self._model_id

    async def _compare(self, world_id: str) -> Gap:
        """Compare SQL and index, both ways."""

        def read(connection: Connection) -> tuple[int, dict[str, int]]:
            newest = connection.scalar(select(func.max(V.seq)).where(*self._of(world_id)))
            rows = connection.execute(HELD.where(*self._of(world_id)))
            return newest or 0, {row.memory_id: row.version for row in rows}

        newest, wanted = await self._database.read(read)
        there = await self._index.versions(world_id)
        missing = [m for m, version in wanted.items() if there.get(m, 0) < version]
        return Gap(newest, missing, [m for m in there if m not in wanted])

    async def _mend(self, world_id: str, gap: Gap) -> None:
        """Close a gap, a batch at a time; from then on what is newer is looked at."""
        await self._index.delete(world_id, gap.extra)
        for start in range(0, len(gap.missing), self._batch):
            batch = gap.missing[start : start + self._batch]
            query = ENTRIES.where(*self._of(world_id), V.memory_id.in_(batch))
            rows = await self._database.read(Prepared(query).all)
            await self._index.upsert(world_id, [to_entry(row) for row in rows])
        self._fresh[world_id] = FreshVectors(gap.newest)
        if gap.missing or gap.extra:
            missing, extra = len(gap.missing), len(gap.extra)
            log.info("index mended", world=world_id, missing=missing, extra=extra)

    async def _look(self, world_id: str) -> bool:
        """Read vectors behind those that were seen; return whether there may be more."""
        fresh = self._fresh[world_id]
        room = self._batch - len(fresh)
        rows = await self._database.read(
            NEW_ENTRIES.all,
            world=world_id,
            model=self._model_id,
            after=fresh.seen,
            most=room,
        )
        if rows:
            fresh.add([to_entry(row) for row in rows], rows[-1].seq)
        return len(rows) == room

    async def _carry(self, world_id: str) -> None:
        """Write what is fresh to the index."""
        fresh = self._fresh[world_id]
        await self._index.upsert(world_id, list(fresh))
        # Searches that have begun still read the old one.
        self._fresh[world_id] = FreshVectors(fresh.seen)

    async def _forget(self, world_id: str, memory_ids: Sequence[str]) -> None:
        """Take memories out; one that is there again by now is put in as it is now.

        It may have begun anew with version 1, which would not overwrite what was there before.
        """
        rows = await self._database.read(
            STILL_HELD.all, world=world_id, ids=list(memory_ids), model=self._model_id
        )
        if world_id in self._fresh:
            for memory_id in set(memory_ids) - {row.memory_id for row in rows}:
                self._fresh[world_id].forget(memory_id)
        await self._index.delete(world_id, memory_ids)
        await self._index.upsert(world_id, [to_entry(row) for row in rows])

    async def _forget_worlds(self) -> None:
        """Take the worlds out that are gone."""
        if self._at_first is None:
            self._at_first = await self._index.worlds()
        held = self._at_first | self._fresh.keys()
        there = {row.id for row in await self._database.read(WORLDS.all)}
        for world_id in sorted(held - there):
            await self._index.drop(world_id)
            self._fresh.pop(world_id, None)
            self._at_first.discard(world_id)
            log.info("index forgot a world", world=world_id)


def to_entry(row: Row[Any]) -> VectorEntry:
    """Read a row."""
    return VectorEntry(
        row.memory_id, row.persona_id, row.visibility, row.version, unpack(row.vector)
    )
