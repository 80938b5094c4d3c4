"""LangGraph's checkpoints: a SQLite file of their own beside the database, or PostgreSQL."""

import asyncio
import json
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from filelock import FileLock
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from persona_mcp.config.postgres import check_extra, is_postgres
from persona_mcp.config.saver import PersonaSaver
from persona_mcp.config.settings import Settings
from persona_mcp.state.database import in_thread
from persona_mcp.state.errors import StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")

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
MAY_GO = "without checkpoints.db a new one is made: conversations and memories are not in it"
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


class PersonaSqliteSaver(SqliteSaver, PersonaSaver):
    """The stock saver in a thread of its own, with what it leaves out: copying, pruning, runs.

    A call changes threads once. The stock saver for `async` does for each statement, for its
    cursor and for the commit: 17 times an exchange.
    """

    def __init__(self, connection: sqlite3.Connection, queue_s: float) -> None:
        """Take over a connection that any thread may use.

        Args:
            connection: It; closed with the saver.
            queue_s: Limit of the wait for the thread, in seconds.
        """
        super().__init__(connection, serde=PackedSerializer())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._queue_s = queue_s

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something in the thread.

        Raises:
            StorageUnavailable: Those before it took all of `queue_s` seconds, or the file cannot be
                read or written.
        """
        try:
            return await in_thread(self._thread, partial(work, *args, **kwargs), self._queue_s)
        except sqlite3.Error as error:
            raise StorageUnavailable(f"checkpoints: {error} ({MAY_GO})") from error

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read a checkpoint, the newest one of its thread where none is named."""
        return await self._run(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, the newest first; they are read at once."""
        found = partial(self.list, config, filter=filter, before=before, limit=limit)
        for one in await self._run(lambda: [*found()]):
            yield one

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, and return where it is."""
        return await self._run(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote after a checkpoint."""
        await self._run(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete every checkpoint of a thread."""
        await self._run(self.delete_thread, thread_id)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Read what was written to some channels before a checkpoint."""
        return await self._run(self.get_delta_channel_history, config=config, channels=channels)

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
        row = await self._run(self._integrity)
        if row is None or row[0] != "ok":
            raise StorageUnavailable(
                f"damaged: checkpoints.db ({row and row[0]}); take it away and a new one is made: "
                "conversations and memories are not in it"
            )

    def _integrity(self) -> tuple[str] | None:
        with self.cursor(transaction=False) as cursor:
            row: tuple[str] | None = cursor.execute("PRAGMA integrity_check(1)").fetchone()
            return row

    async def _transact(self, *statements: Statement) -> None:
        """Run statements in the thread, all of them or none."""

        def run() -> None:
            with self.lock, self.conn:
                for sql, arguments in statements:
                    self.conn.execute(sql, arguments)

        await self._run(run)

    async def aclose(self) -> None:
        """Wait for what still runs, and close the connection."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._thread.shutdown()
        self.conn.close()


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
    try:
        saver = await asyncio.to_thread(prepared, settings)
    except (OSError, sqlite3.Error) as error:
        raise StorageUnavailable(
            f"the checkpoints cannot be opened (locked, full, read-only or damaged); {MAY_GO}"
        ) from error
    try:
        yield saver
    finally:
        await saver.aclose()


def prepared(settings: Settings) -> PersonaSqliteSaver:
    """Open the file alone: SQLite does not wait for others when it changes the journal's mode.

    Blocks.

    Raises:
        OSError: The file, or the lock, cannot be had.
        sqlite3.Error: It is no database, or cannot be written.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    limits = settings.database
    with FileLock(settings.data_dir / "checkpoints.lock", timeout=limits.upgrade_s):
        connection = sqlite3.connect(
            settings.data_dir / "checkpoints.db", timeout=limits.busy_s, check_same_thread=False
        )
        try:
            for pragma in (
                "auto_vacuum=INCREMENTAL",  # before the first table: else it does nothing
                "journal_mode=WAL",
                "synchronous=NORMAL",
            ):
                connection.execute(f"PRAGMA {pragma}")
            saver = PersonaSqliteSaver(connection, limits.queue_s)
            saver.setup()
        except BaseException:
            connection.close()
            raise
    return saver
