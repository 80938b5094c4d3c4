"""Transactions on the SQL database: reads that see one moment, writes that are all or nothing.

A transaction is a function of a connection that runs in a thread, from its first statement to its
last: one change of threads a transaction, and none for its statements.

One transaction writes at a time, on both databases and in all processes: numbers that grow are in
the order of the commits, and what a transaction has read nobody changes before it has written.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from persona_mcp.state.database_faults import UNKNOWN, fault_of, is_explained
from persona_mcp.state.dialect import POSTGRES
from persona_mcp.state.errors import StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")

WRITERS = 0x506572736F6E61
"""The advisory lock of whoever writes: "Persona"."""
BEGIN = {
    "sqlite": ("BEGIN", "BEGIN IMMEDIATE"),
    POSTGRES: (None, f"SELECT pg_advisory_xact_lock({WRITERS})"),
}
"""The first statement of a transaction that reads and of one that writes. A read that must see one
moment needs more of PostgreSQL than that: `READING`."""
READING = {POSTGRES: {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}}
READERS = 4
"""Reads at once; they share the processor, so more of them would only wait for it."""


class Database:
    """Hands out transactions; the only way to SQL.

    Attributes:
        engine: The pool behind it; its dialect tells SQLite and PostgreSQL apart.
    """

    def __init__(self, engine: Engine, readers: int = READERS) -> None:
        """Wrap an engine made by `persona_mcp.config.database`.

        Args:
            engine: With a connection for each reader and one more.
            readers: Transactions that read at once.
        """
        self.engine = engine
        name = engine.dialect.name
        self._begin_read, self._begin_write = BEGIN[name]
        self._reader = engine.execution_options(**READING[name]) if name in READING else engine
        self._reads = ThreadPoolExecutor(readers, thread_name_prefix="sql reads")
        # SQLite has one writer at a time and no queue: waiting here is fair, waiting there is not.
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="sql writes")

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `work(connection, ...)` in a transaction that only reads, and return its result.

        Raises:
            StorageUnavailable: The database did not answer.
        """

        def run() -> T:
            with self.reading() as connection:
                return work(connection, *args, **kwargs)

        return await in_thread(self._reads, run)

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `work(connection, ...)` in a transaction that writes, and return its result.

        It commits at the end, and rolls back on any exception, or when nobody waits any more.

        Raises:
            StorageUnavailable: The database did not answer, or another process kept it locked.
        """
        given_up = threading.Event()

        def run() -> T:
            with self.writing() as connection:
                result = work(connection, *args, **kwargs)
                if given_up.is_set():
                    raise GivenUp
                return result

        try:
            return await in_thread(self._writes, run)
        except asyncio.CancelledError:
            given_up.set()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that only reads, in this thread.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        with translated(), self._reader.connect() as connection:
            if self._begin_read:
                connection.exec_driver_sql(self._begin_read)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes, in this thread; any exception rolls it back.

        Raises:
            StorageUnavailable: The database did not answer, or another process kept it locked; or
                the connection was lost in the end, and nobody knows whether it is stored.
        """
        ended = False
        with translated():
            try:
                with self.engine.begin() as connection:
                    connection.exec_driver_sql(self._begin_write)
                    yield connection
                    ended = True
            except DBAPIError as error:
                # PostgreSQL may have stored it and then been unable to say so.
                if ended and error.connection_invalidated and not is_explained(error):
                    raise StorageUnavailable(UNKNOWN) from error
                raise

    async def aclose(self) -> None:
        """Wait for what still runs, and close every connection."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writes.shutdown()
        self._reads.shutdown()
        self.engine.dispose()


class GivenUp(Exception):
    """Rolls back a write that its caller no longer waits for."""


async def in_thread(threads: Executor, work: Callable[[], T]) -> T:
    """Run in one of these threads, with the caller's correlation id."""
    call: partial[T] = partial(copy_context().run, work)
    return await asyncio.get_running_loop().run_in_executor(threads, call)


class translated:
    """Turn the driver's errors into ours; a broken constraint is the caller's to explain."""

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise StorageUnavailable in place of an error of the driver or the pool."""
        if isinstance(error, (DBAPIError, PoolTimeout)) and not isinstance(error, IntegrityError):
            raise fault_of(error) from error
