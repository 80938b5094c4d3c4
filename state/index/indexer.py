"""The outbox worker: embeds what was written and keeps the vectors in SQL; any process may."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    String,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.dialect import INTEGER
from persona_mcp.state.embedding import Embedder, pack
from persona_mcp.state.errors import Cancelled, PersonaError
from persona_mcp.state.index.exact import found, its_memory
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.prepared import Prepared, listed, listed_numbers
from persona_mcp.state.worker import Worker

M = tables.Memory
O = tables.OutboxEntry  # noqa: E741 - the table's letter, as in the other stores
V = tables.MemoryVector
SEQS = listed_numbers("seqs")
CLAIMS = Prepared(select(O.claimed_by).where(O.claimed_until >= bindparam("now")).distinct())
FREE = Prepared(
    select(O.seq, O.attempts)
    .where(
        or_(
            O.claimed_until < bindparam("now"),
            O.claimed_by.in_(listed("gone")),
        ),
        O.attempts < bindparam("tries"),
        O.operation == "upsert",
    )
    .order_by(O.attempts, O.seq)
    .limit(bindparam("most", type_=INTEGER))
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
TEXT = (M.world_id, M.id, M.persona_id, M.version, M.indexed_text)
CLAIMED = Prepared(
    select(O.seq, *TEXT)
    .outerjoin(M, and_(M.world_id == O.world_id, M.id == O.memory_id))
    .where(O.seq.in_(SEQS))
    .order_by(O.seq)
)
WORKED_OFF = Prepared(delete(O).where(O.seq.in_(SEQS)))
TO_EMBED = Prepared(select(*TEXT).where(M.world_id == bindparam("world"), M.id.in_(listed("ids"))))
VERSIONS = Prepared(
    select(M.id, M.version).where(M.world_id == bindparam("world"), M.id.in_(listed("ids")))
)
FORGET = Prepared(
    delete(V).where(
        V.world_id == bindparam("world"),
        V.memory_id.in_(listed("ids")),
        V.model_id == bindparam("model"),
    )
)
ADD = Prepared(insert(V))
NEWEST = Prepared(select(func.max(V.seq)))
WRITTEN = Prepared(
    select(V.world_id, func.max(V.seq).label("newest"))
    # By the key of the table: the condition on it that an index knows is kept from it.
    .where(
        V.seq > bindparam("after", type_=INTEGER),
        V.model_id + "" == bindparam("model", type_=String),
    )
    .group_by(V.world_id)
)
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


class Indexer(Worker):
    """Works off the outbox."""

    def __init__(
        self,
        database: Database,
        index: SyncedIndex,
        embedder: Embedder,
        limits: IndexerLimits,
        process: str,
        is_gone: Callable[[str], bool],
        now: Callable[[], float],
    ) -> None:
        """Work in the name of this process; what a process that `is_gone` claimed is free."""
        super().__init__("outbox", limits.poll_s)
        self._database = database
        self._index = index
        self._embedder = embedder
        self._limits = limits
        self._process = process
        self._is_gone = is_gone
        self._now = now
        self._looks_at = 0.0
        self._embedded: set[str] = set()
        """Worlds of what was embedded since the index was last looked at, by any process."""
        self._seen: int | None = None
        """Newest `seq` of a vector at the last look; None before the first one."""
        self._more = True
        """Whether the last batch left something behind; what is written later wakes the worker."""

    async def turn(self) -> None:
        """Have the index follow what is gone and new, now and then, and embed what is new."""
        try:
            await self._look()
        finally:  # neither waits for the other
            self._more = True
            while self._more and not self._stopping and await self.work_off():
                pass

    async def _look(self) -> None:
        # Not at each wake: until then SQL keeps what is gone out of results, and a search looks at
        # what is new by itself, or is held in memory.
        if (now := time.monotonic()) >= self._looks_at:
            self._looks_at = now + self._limits.poll_s
            await self._index.forget()
            await self._look_at_others()
            for world_id in sorted(self._embedded):
                await self._index.keep_up(world_id)
                self._embedded.discard(world_id)

    async def _look_at_others(self) -> None:
        """Note the worlds in which others wrote vectors, or what was hidden is found again."""
        if self._index.kind == "exact":
            return
        if self._seen is None:
            self._seen = await self._database.read(NEWEST.scalar) or 0
            return
        its = {"after": self._seen, "model": self._embedder.model_id}
        for row in await self._database.read(WRITTEN.all, **its):
            self._embedded.add(row.world_id)
            self._seen = max(self._seen, row.newest)

    async def work_off(self) -> int:
        """Embed one batch of the outbox; return how many rows were done or given up."""
        claimed = await self._claim()
        if not claimed:
            return 0
        seqs = [c.seq for c in claimed]
        try:
            there = {(c.world_id, c.id): c for c in claimed if c.id is not None}
            rows = [there[key] for key in sorted(there)]
            await self._embed(rows, partial(WORKED_OFF.run, values={"seqs": seqs}))
        except asyncio.CancelledError:
            await asyncio.shield(self._put_back(seqs, Cancelled("stopped")))
            raise
        except Exception as error:
            await self._put_back(seqs, error)
            raise
        return len(claimed)

    async def pending(self, worlds: Collection[str] | None = None) -> int:
        """Count the outbox rows of these worlds, else of all, that are still to be embedded."""
        return await self._count(O.attempts < self._limits.attempts, worlds)

    async def given_up(self, worlds: Collection[str] | None = None) -> int:
        """Count the outbox rows that were tried too often and wait for a reindex."""
        return await self._count(O.attempts >= self._limits.attempts, worlds)

    async def _count(self, which: ColumnElement[bool], worlds: Collection[str] | None) -> int:
        its = true() if worlds is None else O.world_id.in_(sorted(worlds))
        query = select(func.count()).select_from(O).where(O.operation == "upsert", which, its)
        count: int = await self._database.read(Prepared(query).scalar)
        return count

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

        def todo_of(connection: Connection) -> tuple[int, list[str]]:
            # Work that is written from here on is the worker's.
            newest = connection.scalar(select(func.max(O.seq))) or 0
            return newest, list(connection.scalars(query if embed else query.where(~embedded)))

        newest, todo = await self._database.read(todo_of)
        for start in range(0, len(todo), self._limits.batch):
            progress(start, len(todo))
            batch = todo[start : start + self._limits.batch]
            done = delete(O).where(O.world_id == world_id, O.memory_id.in_(batch), O.seq <= newest)
            done = done.where(O.operation == "upsert")
            rows = await self._database.read(TO_EMBED.all, world=world_id, ids=batch)
            await self._embed(rows, Prepared(done).run)
        progress(len(todo), len(todo))
        await self._index.rebuild(world_id)
        indexed = select(func.count()).select_from(V).join(M, its_memory())
        indexed = indexed.where(*self._of(world_id), *found())
        count: int = await self._database.read(Prepared(indexed).scalar)
        return count

    def _of(self, world_id: str) -> tuple[ColumnElement[bool], ...]:
        return V.world_id == world_id, V.model_id == self._embedder.model_id

    async def _claim(self) -> list[Row[Any]]:
        """Take what nobody works on: new rows, then one that failed, alone.

        Each row comes with its memory, which may be gone.
        """
        now, most = self._now(), self._limits.batch
        free = {"now": now, "tries": self._limits.attempts}

        def look(connection: Connection) -> list[str] | None:
            owners = [row[0] for row in CLAIMS.all(connection, now=now) if row[0]]
            gone = [owner for owner in owners if self._is_gone(owner)]
            is_free = FREE.first(connection, **free, gone=gone, most=1) is not None
            return gone if is_free else None

        def claim(connection: Connection, gone: list[str]) -> list[Row[Any]]:
            found = FREE.all(connection, **free, gone=gone, most=most)
            new = [row.seq for row in found if row.attempts == 0]
            seqs = new or [row.seq for row in found[:1]]
            self._more = len(found) == most or len(found) > len(seqs)
            until = now + self._limits.claim_s
            CLAIM.run(connection, {"seqs": seqs, "process": self._process, "until": until})
            return list(CLAIMED.all(connection, seqs=seqs))

        gone = await self._database.read(look)  # most often there is nothing to write
        return [] if gone is None else await self._database.write_unsynced(claim, gone)

    async def _put_back(self, seqs: list[int], error: Exception) -> None:
        """Let others have the rows; a try without an embedder, or cut off, does not count."""
        reason, passing = type(error).__name__, False
        if isinstance(error, PersonaError):
            reason = error.message
            passing = error.retryable and error.data.get("status") not in REFUSED
            passing |= isinstance(error, Cancelled)
        tries = O.attempts - int(passing)

        def write(connection: Connection) -> None:
            connection.execute(
                update(O)
                .where(O.seq.in_(seqs))
                .values(claimed_by=None, claimed_until=0.0, attempts=tries, last_error=reason)
            )

        await self._database.write(write)

    async def _embed(
        self,
        rows: Sequence[Row[Any]],
        worked_off: Callable[[Connection], None],
    ) -> None:
        """Embed memories; in the write of their vectors, `worked_off` ends the work for them."""
        vectors = await self._embedder.embed_documents([row.indexed_text for row in rows])

        def write(connection: Connection) -> None:
            for world in {row.world_id for row in rows}:
                its = [
                    self._values(row, pack(vector))
                    for row, vector in zip(rows, vectors, strict=True)
                    if row.world_id == world
                ]
                self._store(connection, world, its)
            worked_off(connection)

        # A power cut leaves the work in the outbox: it is done again.
        await self._database.write_unsynced(write)
        self._embedded |= {row.world_id for row in rows}

    def _values(self, row: Row[Any], vector: bytes) -> dict[str, Any]:
        return {
            "world_id": row.world_id,
            "memory_id": row.id,
            "persona_id": row.persona_id,
            "model_id": self._embedder.model_id,
            "version": row.version,
            "vector": vector,
        }

    def _store(self, connection: Connection, world_id: str, new: list[dict[str, Any]]) -> None:
        """Replace vectors: a new row gets a new seq, by which readers see that it changed.

        Those of memories that were written anew or deleted meanwhile are left out.
        """
        ids = [values["memory_id"] for values in new]
        current = {r.id: r.version for r in VERSIONS.all(connection, world=world_id, ids=ids)}
        kept = [values for values in new if current.get(values["memory_id"]) == values["version"]]
        if kept:
            its = {"world": world_id, "ids": [values["memory_id"] for values in kept]}
            FORGET.run(connection, {**its, "model": self._embedder.model_id})
            ADD.run(connection, kept)
