"""LangGraph's checkpoints in PostgreSQL, beside the other tables: the stock saver on a pool."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from persona_mcp.config.database_settings import DatabaseSettings
from persona_mcp.config.postgres import connect_arguments
from persona_mcp.config.postgres_connections import LimitedAsyncConnection, limited_async, why
from persona_mcp.config.saver import PersonaSaver
from persona_mcp.config.settings import Settings
from persona_mcp.state.errors import DeadlineExceeded, StorageUnavailable

Pool = AsyncConnectionPool[AsyncConnection[DictRow]]
Statement = tuple[str, tuple[Any, ...]]

SETUP_LOCK = 7461_2026
"""Of PostgreSQL's advisory locks: who holds it makes the tables."""
LOOK_S = 0.1
NEWEST = "SELECT max(v) AS newest FROM checkpoint_migrations"
COPIED = (
    (
        "checkpoints",
        "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata",
        "checkpoint_ns, checkpoint_id",
    ),
    (
        "checkpoint_blobs",
        "checkpoint_ns, channel, version, type, blob",
        "checkpoint_ns, channel, version",
    ),
    (
        "checkpoint_writes",
        "checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob",
        "checkpoint_ns, checkpoint_id, task_id, idx",
    ),
)
"""Of each table what a copy takes over, and what tells its rows apart."""
OLD = (
    "SELECT checkpoint_id FROM checkpoints WHERE thread_id = %s AND checkpoint_ns = '' "
    "ORDER BY checkpoint_id DESC LIMIT 1 OFFSET %s"
)
OF_RUNS = "metadata ->> 'run_id' = ANY(%s)"
UP_TO = "thread_id = %s AND checkpoint_id <= %s"
FORGET = """
WITH gone AS (
    DELETE FROM checkpoints WHERE {which}
    RETURNING thread_id, checkpoint_ns, checkpoint_id, checkpoint -> 'channel_versions' AS versions
), written AS (
    DELETE FROM checkpoint_writes w USING gone g
    WHERE (w.thread_id, w.checkpoint_ns, w.checkpoint_id)
        = (g.thread_id, g.checkpoint_ns, g.checkpoint_id)
), freed AS (
    SELECT g.thread_id, g.checkpoint_ns, v.key AS channel, v.value AS version
    FROM gone g CROSS JOIN LATERAL jsonb_each_text(g.versions) v
    EXCEPT
    SELECT c.thread_id, c.checkpoint_ns, v.key, v.value
    FROM checkpoints c CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions') v
    WHERE c.thread_id IN (SELECT thread_id FROM gone)
        AND NOT EXISTS (
            SELECT 1 FROM gone g
            WHERE (g.thread_id, g.checkpoint_ns, g.checkpoint_id)
                = (c.thread_id, c.checkpoint_ns, c.checkpoint_id)
        )
)
DELETE FROM checkpoint_blobs b USING freed f
WHERE (b.thread_id, b.checkpoint_ns, b.channel, b.version)
    = (f.thread_id, f.checkpoint_ns, f.channel, f.version)
"""
"""Delete checkpoints, their writes, and the values that none of those left uses.

In one statement, which sees one moment: a value that a run stores meanwhile, before its checkpoint,
is never taken for unused.
"""


class NoLock:
    """Stands where the stock saver has one lock for all: here each call has its own connection."""

    async def __aenter__(self) -> None:
        """Wait for nobody."""

    async def __aexit__(self, *error: object) -> None:
        """Let everything through."""


class PersonaPostgresSaver(AsyncPostgresSaver, PersonaSaver):
    """The stock saver without its lock, with what it leaves out, and with our errors."""

    conn: Pool

    def __init__(self, pool: Pool, limits: DatabaseSettings, serde: SerializerProtocol) -> None:
        """Keep checkpoints over an open pool."""
        super().__init__(pool, serde=serde)
        self.lock = NoLock()  # type: ignore[assignment]
        self._limits = limits

    async def setup(self) -> None:
        """Make the tables where they are missing, one process at a time.

        Raises:
            DeadlineExceeded: Another process has been at it for `database.upgrade_s`.
            StorageUnavailable: PostgreSQL did not answer.
        """
        if await self._is_set_up():
            return
        deadline = time.monotonic() + self._limits.upgrade_s
        async with self._cursor() as cursor:
            # Asked again and again: who waits inside a statement would hold up the other's indexes.
            while not await locked(cursor):
                if time.monotonic() >= deadline:
                    raise DeadlineExceeded(
                        "another process has been making the tables of the checkpoints for "
                        f"{self._limits.upgrade_s:g} s; end it, or raise "
                        "PERSONA_DATABASE__UPGRADE_S"
                    )
                await asyncio.sleep(LOOK_S)
            try:
                await AsyncPostgresSaver(cursor.connection).setup()
            finally:
                await cursor.execute("SELECT pg_advisory_unlock(%s)", (SETUP_LOCK,))

    async def _is_set_up(self) -> bool:
        async with self._cursor() as cursor:
            await cursor.execute("SELECT to_regclass('checkpoint_migrations') AS found")
            table = await cursor.fetchone()
            if not table or table["found"] is None:
                return False
            await cursor.execute(NEWEST)
            row = await cursor.fetchone()
        return row is not None and row["newest"] == len(self.MIGRATIONS) - 1

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy every checkpoint of a thread to another one."""
        ids = (target_thread_id, source_thread_id)
        await self._transact(
            *(
                (
                    f"DELETE FROM {table} WHERE thread_id = %s AND ({key}) IN "
                    f"(SELECT {key} FROM {table} WHERE thread_id = %s)",
                    ids,
                )
                for table, _, key in COPIED
            ),
            *(
                (
                    f"INSERT INTO {table}(thread_id, {columns}) "
                    f"SELECT %s, {columns} FROM {table} WHERE thread_id = %s",
                    ids,
                )
                for table, columns, _ in COPIED
            ),
        )

    async def adelete_for_runs(self, run_ids: Collection[str]) -> None:
        """Delete the checkpoints of some runs, and what only they used."""
        await self._transact((FORGET.format(which=OF_RUNS), (list(run_ids),)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete the checkpoints of threads, or all but the latest of each.

        Raises:
            ValueError: The strategy is neither keep_latest nor delete.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy: allowed is keep_latest or delete, given was {strategy}")
        await super().aprune(thread_ids, strategy=strategy)

    async def akeep(self, thread_id: str, count: int) -> None:
        """Delete all but the `count` newest checkpoints of a thread; ids grow with time."""
        async with self._cursor() as cursor:
            await cursor.execute(OLD, (thread_id, count))
            if old := await cursor.fetchone():
                await cursor.execute(FORGET.format(which=UP_TO), (thread_id, old["checkpoint_id"]))

    def connections(self) -> Mapping[str, int]:
        """Count the pool's connections by state, and the calls that wait for one."""
        found = self.conn.get_stats()
        there = found.get("pool_size", 0)
        return {
            "size": found["pool_max"],
            "open": there,
            "used": there - found.get("pool_available", 0),
            "waiting": found.get("requests_waiting", 0),
        }

    async def _transact(self, *statements: Statement) -> None:
        async with self._cursor() as cursor, cursor.connection.transaction():
            for sql, values in statements:
                await cursor.execute(sql, values)

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        """Lend a cursor on a connection of its own; the driver's errors become ours."""
        try:
            async with super()._cursor(pipeline=pipeline) as cursor:
                yield cursor
        except PoolTimeout as error:
            raise StorageUnavailable(
                f"no connection to PostgreSQL within {self._limits.pool_s:g} s: it does not "
                f"answer, or all {self._limits.checkpoint_connections} for checkpoints are in use "
                "(PERSONA_DATABASE__CHECKPOINT_CONNECTIONS)"
            ) from error
        except PoolClosed as error:
            raise StorageUnavailable("the checkpoints are closed: the program ends") from error
        except psycopg.Error as error:
            raise StorageUnavailable(f"checkpoints: {why(error)}") from error


async def locked(cursor: AsyncCursor[DictRow]) -> bool:
    """Take the lock for making tables, if nobody has it."""
    await cursor.execute("SELECT pg_try_advisory_lock(%s) AS mine", (SETUP_LOCK,))
    row = await cursor.fetchone()
    return row is not None and bool(row["mine"])


@asynccontextmanager
async def open_postgres_saver(
    settings: Settings, serde: SerializerProtocol
) -> AsyncIterator[PersonaPostgresSaver]:
    """Open the saver on a pool of its own.

    Raises:
        DeadlineExceeded: Another process makes the tables, and does not end.
        StorageUnavailable: The server cannot be reached, or refuses.
    """
    limits = settings.database
    pool: Pool = AsyncConnectionPool(
        limits.url.get_secret_value(),
        connection_class=limited_async(settings),
        kwargs={
            **connect_arguments(settings),
            "autocommit": True,
            "row_factory": dict_row,
            "prepare_threshold": 0,
        },
        min_size=1,
        max_size=limits.checkpoint_connections,
        check=still_there(limits.connect_s),
        timeout=limits.pool_s,
        max_lifetime=limits.age_s,
        max_idle=limits.unused_s,
        # Its pauses between two tries grow: let it give up, and whoever asks next tries at once.
        reconnect_timeout=limits.connect_s,
        name="checkpoints",
        open=False,
    )
    await pool.open()
    try:
        saver = PersonaPostgresSaver(pool, limits, serde)
        await saver.setup()
        yield saver
    finally:
        await pool.close(timeout=limits.connect_s)


def still_there(limit_s: float) -> Any:
    """Return a look at a connection before it is lent, with a limit of its own."""

    async def check(connection: LimitedAsyncConnection) -> None:
        usual, connection.limit_s = connection.limit_s, limit_s
        try:
            await AsyncConnectionPool.check_connection(connection)
        finally:
            connection.limit_s = usual

    return check
