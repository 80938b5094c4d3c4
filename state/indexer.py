"""The outbox worker: embeds what was written, keeps the vector in SQL and the index in step.

Any process may embed; a process whose index is Chroma also carries over, before each search, the
vectors that others have written since. So each process finds what the others stored.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Embedder, pack, unpack
from persona_mcp.state.errors import Cancelled, PersonaError
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.vector_index import VectorEntry, VectorIndex

log = structlog.get_logger(__name__)

M = tables.Memory
O = tables.OutboxEntry  # noqa: E741 - the table's letter, as in the other stores
V = tables.MemoryVector
SEQS = bindparam("seqs", expanding=True, type_=Integer)
CLAIMS = Prepared(select(O.claimed_by).where(O.claimed_until >= bindparam("now")).distinct())
FREE = Prepared(
    select(O.seq, O.attempts)
    .where(
        or_(
            O.claimed_until < bindparam("now"),
            O.claimed_by.in_(bindparam("gone", expanding=True)),
        ),
        O.attempts < bindparam("tries"),
    )
    .order_by(O.attempts, O.seq)
    .limit(bindparam("most", type_=Integer))
)
CLAIM = Prepared(
    update(O)
    .where(O.seq.in_(SEQS))
    .values(
        claimed_by=bindparam("process"),
        claimed_until=bindparam("until"),
        attempts=O.attempts + 1,
    )
)
CLAIMED = Prepared(select(O).where(O.seq.in_(SEQS)).order_by(O.seq))
WORKED_OFF = Prepared(delete(O).where(O.seq.in_(SEQS)))
TO_EMBED = Prepared(
    select(M.world_id, M.id, M.persona_id, M.version, M.indexed_text).where(
        M.world_id.in_(bindparam("worlds", expanding=True)),
        M.id.in_(bindparam("ids", expanding=True)),
    )
)
IS_CURRENT = Prepared(
    select(M.id).where(
        M.world_id == bindparam("world"),
        M.id == bindparam("memory"),
        M.version == bindparam("number"),
    )
)
FORGET = Prepared(
    delete(V).where(
        V.world_id == bindparam("world"),
        V.memory_id == bindparam("memory"),
        V.model_id == bindparam("model"),
    )
)
ADD = Prepared(insert(V))
Progress = Callable[[int, int], None]
REFUSED = (400, 413, 422)
"""Answers of an embedder over HTTP that are about the text: trying again does not help."""


@dataclass(frozen=True)
class IndexerLimits:
    """How the worker works.

    Attributes:
        batch: Memories embedded at once.
        claim_s: How long a claimed row is kept from others, in seconds.
        poll_s: Look for work of other processes at least this often, in seconds.
        attempts: Tries of a row before it waits for a reindex.
    """

    batch: int
    claim_s: float
    poll_s: float
    attempts: int


class Indexer:
    """Works off the outbox and keeps the index in step with the vectors in SQL."""

    def __init__(
        self,
        database: Database,
        index: VectorIndex,
        embedder: Embedder,
        limits: IndexerLimits,
        process: str,
        is_gone: Callable[[str], bool],
        now: Callable[[], float],
    ) -> None:
        """Work in the name of this process; what a process that `is_gone` claimed is free."""
        self._database = database
        self._index = index
        self._embedder = embedder
        self._limits = limits
        self._process = process
        self._is_gone = is_gone
        self._now = now
        self._carried: dict[str, int] = {}
        self._carrying = asyncio.Lock()
        self._wake = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Say that something was written."""
        self._wake.set()

    def stop(self) -> None:
        """End `run` after the batch that it is at: a cut in the middle is no clean end."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Work until stopped; a failure is logged and tried again."""
        while not self._stopping:
            self._wake.clear()
            try:
                while not self._stopping and await self.work_off():
                    pass
            except PersonaError as error:
                log.warning("outbox waits", reason=error.message, code=error.code)
            except Exception:  # the worker outlives a defect; its row is given up after some tries
                log.exception("outbox worker failed")
            try:
                async with asyncio.timeout(self._limits.poll_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def work_off(self) -> int:
        """Embed one batch of the outbox; return how many rows were done or given up."""
        claimed = await self._claim()
        if not claimed:
            return 0
        seqs = [c.seq for c in claimed]

        async def worked_off(connection: AsyncConnection) -> None:
            await WORKED_OFF.run(connection, {"seqs": seqs})

        try:
            await self._embed(sorted({(c.world_id, c.memory_id) for c in claimed}), worked_off)
        except asyncio.CancelledError:
            await asyncio.shield(self._put_back(seqs, Cancelled("stopped")))
            raise
        except Exception as error:
            await self._put_back(seqs, error)
            raise
        return len(claimed)

    async def pending(self) -> int:
        """Count the outbox rows that are still to be done."""
        async with self._database.read() as connection:
            query = select(func.count()).select_from(O).where(O.attempts < self._limits.attempts)
            return await connection.scalar(query) or 0

    async def given_up(self) -> int:
        """Count the outbox rows that were tried too often and wait for a reindex."""
        async with self._database.read() as connection:
            query = select(func.count()).select_from(O).where(O.attempts >= self._limits.attempts)
            return await connection.scalar(query) or 0

    async def catch_up(self, world_id: str) -> None:
        """Carry vectors that were written since the last time over to the index.

        Raises:
            StorageUnavailable: The database or the index did not answer.
        """
        if self._index.kind == "exact":
            return
        async with self._carrying:
            if world_id not in self._carried:
                await self._mend(world_id)
            while await self._carry(world_id):
                pass

    async def reconcile(self, world_id: str) -> tuple[int, int]:
        """Compare SQL and index both ways and mend the index.

        Returns:
            How many vectors were missing or old, and how many were too many.
        """
        if self._index.kind == "exact":
            return 0, 0
        async with self._carrying:
            return await self._mend(world_id)

    async def reindex(self, world_id: str, progress: Progress, embed: bool = False) -> int:
        """Make a world's index anew from the vectors in SQL; may be stopped and run again.

        Memories that this embedder has not embedded yet are embedded first.

        Args:
            world_id: Which world.
            progress: Called with how many memories are done, and of how many.
            embed: Also compute every vector anew.

        Returns:
            How many memories are in the index.
        """
        embedded = exists().where(*self._of(world_id), V.memory_id == M.id, V.version >= M.version)
        query = select(M.id).where(M.world_id == world_id).order_by(M.seq)
        async with self._database.read() as connection:
            # Work that is written from here on is the worker's.
            newest = await connection.scalar(select(func.max(O.seq))) or 0
            todo = list(await connection.scalars(query if embed else query.where(~embedded)))
        for start in range(0, len(todo), self._limits.batch):
            progress(start, len(todo))
            batch = todo[start : start + self._limits.batch]
            its = (O.world_id == world_id, O.memory_id.in_(batch), O.seq <= newest)

            async def worked_off(
                connection: AsyncConnection, its: tuple[ColumnElement[bool], ...] = its
            ) -> None:
                await connection.execute(delete(O).where(*its))

            await self._embed([(world_id, memory_id) for memory_id in batch], worked_off)
        progress(len(todo), len(todo))
        await self._index.drop(world_id)
        await self.reconcile(world_id)
        async with self._database.read() as connection:
            count = select(func.count()).where(*self._of(world_id))
            return await connection.scalar(count) or 0

    def _of(self, world_id: str) -> tuple[ColumnElement[bool], ...]:
        return V.world_id == world_id, V.model_id == self._embedder.model_id

    async def _claim(self) -> list[Row[Any]]:
        """Take what nobody works on: new rows in a batch, then one that failed before, alone."""
        now = self._now()
        async with self._database.read() as connection:
            owners = [row[0] for row in await CLAIMS.all(connection, now=now) if row[0]]
            gone = [o for o in owners if await asyncio.to_thread(self._is_gone, o)]
            free = {"now": now, "gone": gone, "tries": self._limits.attempts}
            if await FREE.first(connection, **free, most=1) is None:
                return []
        async with self._database.write() as connection:
            found = await FREE.all(connection, **free, most=self._limits.batch)
            new = [row.seq for row in found if row.attempts == 0]
            seqs = new or [row.seq for row in found[:1]]
            until = now + self._limits.claim_s
            await CLAIM.run(connection, {"seqs": seqs, "process": self._process, "until": until})
            return list(await CLAIMED.all(connection, seqs=seqs))

    async def _put_back(self, seqs: list[int], error: Exception) -> None:
        """Let others have the rows; a try without an embedder, or cut off, does not count."""
        tries, reason = O.attempts + 0, type(error).__name__
        if isinstance(error, PersonaError):
            reason = error.message
            passing = error.retryable and error.data.get("status") not in REFUSED
            if passing or isinstance(error, Cancelled):
                tries = O.attempts - 1
        async with self._database.write() as connection:
            await connection.execute(
                update(O)
                .where(O.seq.in_(seqs))
                .values(claimed_by=None, claimed_until=0.0, attempts=tries, last_error=reason)
            )

    async def _embed(
        self,
        keys: list[tuple[str, str]],
        worked_off: Callable[[AsyncConnection], Awaitable[None]],
    ) -> None:
        """Embed memories; in the write of their vectors, `worked_off` ends the work for them."""
        wanted = set(keys)
        worlds, ids = list({world for world, _ in keys}), [memory_id for _, memory_id in keys]
        async with self._database.read() as connection:
            found = await TO_EMBED.all(connection, worlds=worlds, ids=ids)
            rows = [r for r in found if (r.world_id, r.id) in wanted]
        vectors = await self._embedder.embed_documents([row.indexed_text for row in rows])
        async with self._database.write() as connection:
            for row, vector in zip(rows, vectors, strict=True):
                await self._store(
                    connection, row.world_id, row.id, row.persona_id, row.version, pack(vector)
                )
            await worked_off(connection)

    async def _store(
        self,
        connection: AsyncConnection,
        world_id: str,
        memory_id: str,
        persona_id: str,
        version: int,
        vector: bytes,
    ) -> None:
        """Replace a vector: the new row gets a new seq, by which readers see that it changed."""
        its = {"world": world_id, "memory": memory_id}
        if await IS_CURRENT.first(connection, **its, number=version) is None:
            return
        await FORGET.run(connection, {**its, "model": self._embedder.model_id})
        await ADD.run(
            connection,
            {
                "world_id": world_id,
                "memory_id": memory_id,
                "persona_id": persona_id,
                "model_id": self._embedder.model_id,
                "version": version,
                "vector": vector,
            },
        )

    async def _mend(self, world_id: str) -> tuple[int, int]:
        query = select(V.memory_id, V.version).where(*self._of(world_id))
        async with self._database.read() as connection:
            newest = await connection.scalar(select(func.max(V.seq)).where(*self._of(world_id)))
            wanted = {row.memory_id: row.version for row in await connection.execute(query)}
        there = await self._index.versions(world_id)
        extra = [memory_id for memory_id in there if memory_id not in wanted]
        missing = [m for m, version in wanted.items() if there.get(m, 0) < version]
        await self._index.delete(world_id, extra)
        for start in range(0, len(missing), self._limits.batch):
            await self._upsert(world_id, missing[start : start + self._limits.batch])
        self._carried[world_id] = newest or 0
        if missing or extra:
            log.info("index mended", world=world_id, missing=len(missing), extra=len(extra))
        return len(missing), len(extra)

    async def _carry(self, world_id: str) -> bool:
        carried = self._carried.get(world_id, 0)
        query = (
            select(V.seq, V.memory_id)
            .where(*self._of(world_id), V.seq > carried)
            .order_by(V.seq)
            .limit(self._limits.batch)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        if not rows:
            return False
        await self._upsert(world_id, [row.memory_id for row in rows])
        self._carried[world_id] = rows[-1].seq
        return len(rows) == self._limits.batch

    async def _upsert(self, world_id: str, memory_ids: list[str]) -> None:
        query = (
            select(V.memory_id, V.persona_id, V.version, V.vector, M.visibility)
            .join(M, (M.world_id == V.world_id) & (M.id == V.memory_id))
            .where(*self._of(world_id), V.memory_id.in_(memory_ids))
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        await self._index.upsert(
            world_id,
            [
                VectorEntry(r.memory_id, r.persona_id, r.visibility, r.version, unpack(r.vector))
                for r in rows
            ],
        )
