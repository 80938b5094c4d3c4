"""Batches of dialogues in SQL: who asked for what, which process holds it, how far it is.

A batch that waits is claimed by one process, which shows a sign of life with each note of how far
it is. One whose process is gone, or silent for longer than a lease, is claimed by another and gone
on with. What is said in it lies in the data folder; here is only what it is.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from persona_mcp.state import tables
from persona_mcp.state.batch.kept_batch import (
    OPEN,
    AskedBatch,
    BatchStatus,
    KeptBatch,
    Key,
    Progress,
    to_batch,
)
from persona_mcp.state.cursors import bad_cursor
from persona_mcp.state.database import Database
from persona_mcp.state.errors import Conflict, LimitExceeded, NotFound

B = tables.Batch
KIND = "dialogue"
"""What callers know a batch as."""


class BatchLost(Exception):
    """Another process holds the batch now, or its world is gone."""


class BatchRows:
    """The table, in the name of one process."""

    def __init__(
        self, database: Database, process: str, is_gone: Callable[[str], bool], lease_s: float
    ) -> None:
        """Work on this database.

        Args:
            database: Where the rows are.
            process: The name of this process.
            is_gone: Tells whether a process is known to have ended.
            lease_s: A process that shows no life for this long has lost its batch, in seconds.
        """
        self._database = database
        self._process = process
        self._is_gone = is_gone
        self._lease_s = lease_s

    async def accept(self, asked: AskedBatch, most: int, now: float) -> KeptBatch:
        """Have a batch wait to be held; one of this id that is there already is returned.

        Args:
            asked: What.
            most: How many batches of all worlds may be open at once.
            now: Seconds since the epoch, UTC.

        Raises:
            LimitExceeded: So many are open already.
        """

        def write(connection: Connection) -> KeptBatch:
            known = find(connection, asked.world_id, asked.id)
            if known is not None:
                return known
            if (waiting := count_open(connection)) >= most:
                raise LimitExceeded(
                    f"{waiting} dialogues wait or are held already, and {most} are allowed at "
                    "once; wait for one (dialogue_list shows them), or cancel one",
                    open=waiting,
                    allowed=most,
                )
            progress = Progress(asked.dialogues, asked.turns_max)
            connection.execute(
                insert(B).values(
                    world_id=asked.world_id,
                    id=asked.id,
                    name=asked.name,
                    spec=dict(asked.spec),
                    status="queued",
                    keep=asked.keep,
                    caller_id=asked.caller_id,
                    progress=asdict(progress),
                    created_at=now,
                )
            )
            return get(connection, asked.world_id, asked.id)

        return await self._database.write(write)

    async def get(self, world_id: str, id: str) -> KeptBatch:
        """Return a batch.

        Raises:
            NotFound: It is not there.
        """
        return await self._database.read(get, world_id, id)

    async def page(
        self, world_id: str, status: BatchStatus | None, limit: int, after: str | None = None
    ) -> tuple[list[KeptBatch], int]:
        """Return a page of a world's batches, the last asked for first, and how many there are.

        Args:
            world_id: Where.
            status: Only these; None for all.
            limit: Of the page.
            after: Id of the last one of the page before.

        Raises:
            InvalidParams: None of this world has that id.
        """
        return await self._database.read(list_batches, world_id, status, limit, after)

    async def claim(self, now: float, besides: Collection[Key] = ()) -> KeptBatch | None:
        """Take a batch that waits, or that its process has left: of those the oldest.

        Args:
            now: Seconds since the epoch, UTC.
            besides: World and id of those that are not taken.

        Returns:
            The batch; None if there is none.
        """

        def write(connection: Connection) -> KeptBatch | None:
            open_ones = select(B).where(B.status.in_(OPEN)).order_by(B.created_at, B.id)
            rows = connection.execute(open_ones)
            free = (one for one in map(to_batch, rows) if self._is_free(one, now))
            found = next((one for one in free if one.key not in besides), None)
            if found is None:
                return None
            values = {
                "status": "running",
                "owner": self._process,
                "error": None,
                "started_at": found.started_at or now,
                "progress": asdict(replace(found.progress, seen_at=now)),
            }
            connection.execute(update(B).where(*its(found.world_id, found.id)).values(values))
            return get(connection, found.world_id, found.id)

        return await self._database.write(write)

    async def note(self, batch: KeptBatch, progress: Progress, now: float) -> str | None:
        """Write how far a batch of ours is; this keeps it ours.

        Returns:
            Why it is asked to stop; None if it is not.

        Raises:
            BatchLost: It is ours no more.
        """

        def write(connection: Connection) -> str | None:
            held = self._held(connection, batch)
            self._change(connection, batch, progress=asdict(replace(progress, seen_at=now)))
            return held.reason

        return await self._database.write(write)

    async def let_go(self, batch: KeptBatch, why: Mapping[str, Any] | None = None) -> None:
        """Let another process go on with a batch of ours; does nothing if it is ours no more.

        Args:
            batch: Which.
            why: A problem (code, message, data) that it waits for the end of; None for none.
        """
        error = None if why is None else dict(why)

        def write(connection: Connection) -> None:
            self._change(connection, batch, status="queued", owner=None, error=error)

        await self._database.write(write)

    async def end(
        self,
        batch: KeptBatch,
        status: BatchStatus,
        progress: Progress,
        error: Mapping[str, Any] | None,
        now: float,
    ) -> None:
        """Write that a batch of ours is over, and how.

        Raises:
            BatchLost: It is ours no more.
        """
        over = replace(progress, current_speaker=None, left_s=None, seen_at=now)

        def write(connection: Connection) -> None:
            self._held(connection, batch)
            self._change(
                connection,
                batch,
                status=status,
                owner=None,
                progress=asdict(over),
                error=None if error is None else dict(error),
                finished_at=now,
            )

        await self._database.write(write)

    async def hold(self, batch: KeptBatch, work: Callable[[Connection], None]) -> None:
        """Do something in a transaction that is rolled back if the batch is ours no more.

        Raises:
            BatchLost: It is.
        """

        def write(connection: Connection) -> None:
            self._held(connection, batch)
            work(connection)

        await self._database.write(write)

    async def mark_kept(self, batch: KeptBatch, now: float) -> None:
        """Write that all that happened in a batch of ours is part of its world.

        Raises:
            BatchLost: It is ours no more.
        """
        await self.hold(batch, lambda connection: self._change(connection, batch, kept_at=now))

    async def cancel(self, world_id: str, id: str, reason: str, now: float) -> KeptBatch:
        """Ask for a batch to be stopped; one that nobody holds is over at once.

        Returns:
            The batch as it is then; running while its process is still at a turn.

        Raises:
            NotFound: It is not there.
            Conflict: It is over.
        """

        def write(connection: Connection) -> KeptBatch:
            found = get(connection, world_id, id)
            if found.is_over:
                raise Conflict(
                    f"dialogue '{id}' is {found.status} already; dialogue_result has what came of "
                    "it",
                    status=found.status,
                )
            values: dict[str, Any] = {"reason": reason if found.reason is None else found.reason}
            if found.owner is None or self._is_gone(found.owner):
                values |= {"status": "cancelled", "finished_at": now, "owner": None}
            connection.execute(update(B).where(*its(world_id, id)).values(values))
            return get(connection, world_id, id)

        return await self._database.write(write)

    async def old(self, before: float) -> list[tuple[str, str]]:
        """Return world and id of batches that were over before a time, the oldest first."""

        def read(connection: Connection) -> list[tuple[str, str]]:
            query = select(B.world_id, B.id).where(B.finished_at < before).order_by(B.finished_at)
            return [(row.world_id, row.id) for row in connection.execute(query)]

        return await self._database.read(read)

    async def forget(self, world_id: str, id: str) -> None:
        """Delete the row of a batch that is over."""

        def write(connection: Connection) -> None:
            over = B.finished_at.is_not(None)
            connection.execute(delete(B).where(*its(world_id, id), over))

        await self._database.write(write)

    def _is_free(self, batch: KeptBatch, now: float) -> bool:
        """Tell whether nobody holds an open batch; this process holds none while it claims."""
        owner = batch.owner
        if batch.status == "queued" or owner is None or owner == self._process:
            return True
        return self._is_gone(owner) or batch.progress.seen_at < now - self._lease_s

    def _held(self, connection: Connection, batch: KeptBatch) -> KeptBatch:
        found = find(connection, batch.world_id, batch.id)
        if found is None or found.owner != self._process or found.status != "running":
            raise BatchLost
        return found

    def _change(self, connection: Connection, batch: KeptBatch, **values: Any) -> None:
        ours = (*its(batch.world_id, batch.id), B.owner == self._process, B.status == "running")
        connection.execute(update(B).where(*ours).values(values))


def its(world_id: str, id: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of one batch."""
    return B.world_id == world_id, B.id == id


def find(connection: Connection, world_id: str, id: str) -> KeptBatch | None:
    """Return a batch; None if it is not there."""
    row = connection.execute(select(B).where(*its(world_id, id))).first()
    return None if row is None else to_batch(row)


def get(connection: Connection, world_id: str, id: str) -> KeptBatch:
    """Return a batch.

    Raises:
        NotFound: It is not there.
    """
    found = find(connection, world_id, id)
    if found is None:
        raise NotFound.of(KIND, id)
    return found


def count_open(connection: Connection) -> int:
    """Count the batches of all worlds that wait or are held."""
    query = select(func.count()).select_from(B).where(B.status.in_(OPEN))
    return connection.scalar(query) or 0


def list_batches(
    connection: Connection,
    world_id: str,
    status: BatchStatus | None,
    limit: int,
    after: str | None,
) -> tuple[list[KeptBatch], int]:
    """Do what `BatchRows.page` does, inside a transaction.

    Raises:
        InvalidParams: None of this world has the id of `after`.
    """
    which = [B.world_id == world_id]
    if status is not None:
        which.append(B.status == status)
    total = connection.scalar(select(func.count()).select_from(B).where(*which)) or 0
    if after is not None:
        made = connection.scalar(select(B.created_at).where(*its(world_id, after)))
        if made is None:
            raise bad_cursor(after, "dialogue was removed")
        which.append(or_(B.created_at < made, and_(B.created_at == made, B.id > after)))
    query = select(B).where(*which).order_by(B.created_at.desc(), B.id).limit(limit)
    return [to_batch(row) for row in connection.execute(query)], total
