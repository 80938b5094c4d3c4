"""LangGraph's checkpoints: a SQLite file of their own beside the database, or PostgreSQL."""

import asyncio
import json
import sqlite3
import zlib
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiosqlite
from filelock import FileLock
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from persona_mcp.config.postgres import check_extra, is_postgres
from persona_mcp.config.saver import PersonaSaver
from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import StorageUnavailable

MILLISECONDS = 1000
WRITE_COLUMNS = "checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value"
CHECKPOINT_COLUMNS = (
    "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata"
)
LATEST = (
    "SELECT checkpoint_ns, max(checkpoint_id) FROM checkpoints WHERE thread_id = ? "
    "GROUP BY checkpoint_ns"
)
OF_RUNS = (
    "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints "
    "WHERE json_extract(CAST(metadata AS TEXT), '$.run_id') IN (SELECT value FROM json_each(?))"
)
OLD = (
    "SELECT checkpoint_id FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = '' "
    "ORDER BY checkpoint_id DESC LIMIT 1 OFFSET ?"
)
PACKED = "+zlib"
WORTH_PACKING = 512
"""Shorter values are kept as they are, in bytes."""
Statement = tuple[str, tuple[Any, ...]]


class PackedSerializer(JsonPlusSerializer):
    """The stock serializer; what is long is compressed: a checkpoint repeats its versions."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Write a value as (type, bytes)."""
        kind, data = super().dumps_typed(obj)
        if len(data) < WORTH_PACKING:
            return kind, data
        return kind + PACKED, zlib.compress(data)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Read a value, packed or as the stock serializer writes it."""
        kind, packed = data
        if kind.endswith(PACKED):
            return super().loads_typed((kind.removesuffix(PACKED), zlib.decompress(packed)))
        return super().loads_typed(data)


class PersonaSqliteSaver(AsyncSqliteSaver, PersonaSaver):
    """The stock saver, with what it leaves out: copying, deleting runs, pruning."""

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy every checkpoint of a thread to another one."""
        ids = (target_thread_id, source_thread_id)
        await self._transact(
            (
                f"INSERT OR REPLACE INTO checkpoints(thread_id, {CHECKPOINT_COLUMNS}) "
                f"SELECT ?, {CHECKPOINT_COLUMNS} FROM checkpoints WHERE thread_id = ?",
                ids,
            ),
            (
                f"INSERT OR REPLACE INTO writes(thread_id, {WRITE_COLUMNS}) "
                f"SELECT ?, {WRITE_COLUMNS} FROM writes WHERE thread_id = ?",
                ids,
            ),
        )

    async def adelete_for_runs(self, run_ids: Collection[str]) -> None:
        """Delete the checkpoints of some runs; their writes first."""
        runs = (json.dumps(list(run_ids)),)
        key = "(thread_id, checkpoint_ns, checkpoint_id)"
        await self._transact(
            *((f"DELETE FROM {t} WHERE {key} IN ({OF_RUNS})", runs) for t in TABLES)
        )

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete the checkpoints of threads, or all but the latest of each.

        Raises:
            ValueError: The strategy is neither keep_latest nor delete.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy: allowed is keep_latest or delete, given was {strategy}")
        keep = strategy == "keep_latest"
        but = f" AND (checkpoint_ns, checkpoint_id) NOT IN ({LATEST})" if keep else ""
        await self._transact(
            *(
                (
                    f"DELETE FROM {table} WHERE thread_id = ?{but}",
                    (thread, thread) if keep else (thread,),
                )
                for thread in thread_ids
                for table in TABLES
            )
        )

    async def akeep(self, thread_id: str, count: int) -> None:
        """Delete all but the `count` newest checkpoints of a thread; ids grow with time."""
        old = f"thread_id = ? AND checkpoint_id <= ({OLD})"
        await self._transact(
            *((f"DELETE FROM {t} WHERE {old}", (thread_id, thread_id, count)) for t in TABLES)
        )

    async def acheck(self) -> None:
        """Read through the file.

        Raises:
            StorageUnavailable: It is damaged.
        """
        await self.setup()
        async with self.lock, self.conn.execute("PRAGMA integrity_check(1)") as cursor:
            row = await cursor.fetchone()
        if row is None or row[0] != "ok":
            raise StorageUnavailable(
                f"damaged: checkpoints.db ({row and row[0]}); take it away and a new one is made: "
                "conversations and memories are not in it"
            )

    async def _transact(self, *statements: Statement) -> None:
        await self.setup()
        async with self.lock:
            try:
                for sql, arguments in statements:
                    await self.conn.execute(sql, arguments)
                await self.conn.commit()
            finally:
                await self.conn.rollback()  # does nothing after the commit


TABLES = ("writes", "checkpoints")


@asynccontextmanager
async def open_checkpointer(settings: Settings) -> AsyncIterator[PersonaSaver]:
    """Open the saver on the PostgreSQL server of the settings, else on a file of its own.

    Raises:
        DeadlineExceeded: Another process makes its tables, and does not end.
        NotConfigured: A server is named, and the extra for it is not installed.
        StorageUnavailable: The server or the file cannot be opened, or is no database.
    """
    if not is_postgres(settings):
        async with open_sqlite_saver(settings) as saver:
            yield saver
        return
    check_extra()
    from persona_mcp.config.postgres_checkpoints import open_postgres_saver  # noqa: PLC0415 - extra

    async with open_postgres_saver(settings, PackedSerializer()) as pooled:
        yield pooled


@asynccontextmanager
async def open_sqlite_saver(settings: Settings) -> AsyncIterator[PersonaSqliteSaver]:
    """Open the saver on `checkpoints.db` in the data folder.

    Raises:
        StorageUnavailable: The file cannot be opened, or is no database.
    """
    async with AsyncExitStack() as stack:
        try:
            saver = await prepare(stack, settings)
        except (OSError, sqlite3.Error) as error:
            raise StorageUnavailable(
                "the checkpoints cannot be opened (locked, full, read-only or damaged); without "
                "checkpoints.db a new one is made: conversations and memories are not in it"
            ) from error
        yield saver


async def prepare(stack: AsyncExitStack, settings: Settings) -> PersonaSqliteSaver:
    """Open the file alone: SQLite does not wait for others when it changes the journal's mode."""
    await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
    alone = FileLock(
        settings.data_dir / "checkpoints.lock",
        timeout=settings.database.upgrade_s,
        thread_local=False,
    )
    await asyncio.to_thread(alone.acquire)
    file = settings.data_dir / "checkpoints.db"
    try:
        # aiosqlite's thread outlives a file that cannot be opened, and the loop that it answers to.
        await asyncio.to_thread(lambda: sqlite3.connect(file).close())
        connection = await stack.enter_async_context(aiosqlite.connect(file))
        for pragma in (
            f"busy_timeout={int(settings.database.busy_s * MILLISECONDS)}",
            "auto_vacuum=INCREMENTAL",  # before the first table: it takes effect on a new file only
            "journal_mode=WAL",
            "synchronous=NORMAL",
        ):
            await connection.execute(f"PRAGMA {pragma}")
        saver = PersonaSqliteSaver(connection, serde=PackedSerializer())
        await saver.setup()
    finally:
        alone.release()
    return saver
