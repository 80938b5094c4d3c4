"""Transactions on the SQL database: reads that see one moment, writes that are all or nothing.

A transaction is a function of a connection that runs in a thread, from its first statement to its
last: one change of threads a transaction, and none for its statements.

One transaction writes at a time, on both databases and in all processes: numbers that grow are in
the order of the commits, and what a transaction has read nobody changes before it has written.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, QueuePool
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from persona_mcp.state.database_faults import fault_of
from persona_mcp.state.dialect import POSTGRES
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.transactions import (
    PostgresTransactions,
    SqliteTransactions,
    Transactions,
)
from persona_mcp.state.watching import Unwatched, Watch

P = ParamSpec("P")
T = TypeVar("T")

QUEUE_S = 30.0
"""Limit of the wait for a turn where nobody says otherwise, in seconds."""
READERS = 4
"""Reads at once; they share the processor, so more of them would only wait for it."""


class Database:
    """Hands out transactions; the only way to SQL.

    Attributes:
        engine: The pool behind it; its dialect tells SQLite and PostgreSQL apart.
        watch: Is told of each transaction.
    """

    watch: Watch = Unwatched()

    def __init__(self, engine: Engine, readers: int = READERS, queue_s: float = QUEUE_S) -> None:
        """Wrap an engine made by `persona_mcp.config.database`.

        Args:
            engine: With a connection for each reader and one more.
            readers: Transactions that read at once.
            queue_s: Limit of the wait for a turn, in seconds.
        """
        self.engine = engine
        self._queue_s = queue_s
        is_postgres = engine.dialect.name == POSTGRES
        self._transactions: Transactions = (
            PostgresTransactions(engine) if is_postgres else SqliteTransactions(engine)
        )
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
        asked = time.perf_counter()

        def run() -> T:
            with (
                self.watch.transaction("read", asked),
                translated(),
                self._transactions.reading() as connection,
            ):
                return work(connection, *args, **kwargs)

        return await in_thread(self._reads, run, self._queue_s)

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `work(connection, ...)` in a transaction that writes, and return its result.

        It commits at the end, and rolls back on any exception, or when nobody waits any more.

        Raises:
            StorageUnavailable: The database did not answer, or another process kept it locked.
        """
        return await self._write(True, lambda connection: work(connection, *args, **kwargs))

    async def write_unsynced(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do as `write` does, but do not wait for the disk at the commit.

        Everybody sees it at once, and the end of a process takes nothing back. A power cut may,
        together with all that was written later: it is for what is of no use after one, or is made
        again. To wait for the disk takes milliseconds.

        Raises:
            StorageUnavailable: The database did not answer, or another process kept it locked.
        """
        return await self._write(False, lambda connection: work(connection, *args, **kwargs))

    async def _write(self, synced: bool, work: Callable[[Connection], T]) -> T:
        given_up, asked = threading.Event(), time.perf_counter()

        def run() -> T:
            with (
                self.watch.transaction("write", asked),
                translated(),
                self._transactions.writing(synced=synced) as connection,
            ):
                result = work(connection)
                if given_up.is_set():
                    raise GivenUp
                return result

        try:
            return await in_thread(self._writes, run, self._queue_s)
        except asyncio.CancelledError:
            given_up.set()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that only reads, in this thread.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        with translated(), self._transactions.reading() as connection:
            yield connection

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[Connection]:
        """Open a transaction that writes, in this thread; any exception rolls it back.

        Args:
            synced: Whether its commit waits for the disk; see `write_unsynced`.

        Raises:
            StorageUnavailable: The database did not answer, or another process kept it locked; or
                the connection was lost in the end, and nobody knows whether it is stored.
        """
        with translated(), self._transactions.writing(synced=synced) as connection:
            yield connection

    def connections(self) -> dict[str, int]:
        """Count the pool's connections: the most that are kept, those open, those in use.

        Returns:
            `size`, `open` and `used`; nothing where each transaction opens its own.
        """
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return {}
        taken = pool.checkedout()
        used = taken - self._transactions.resting
        return {"size": pool.size(), "open": pool.checkedin() + taken, "used": used}

    async def aclose(self) -> None:
        """Wait for what still runs, and close every connection."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Do what `aclose` does; it blocks."""
        self._writes.shutdown()
        self._reads.shutdown()
        self._transactions.close()


class GivenUp(Exception):
    """Rolls back a write that its caller no longer waits for."""


async def in_thread(threads: Executor, work: Callable[[], T], queue_s: float) -> T:
    """Run in one of these threads, with the caller's correlation id.

    Raises:
        StorageUnavailable: Those before it took all of `queue_s` seconds; it was not begun.
    """
    loop, context = asyncio.get_running_loop(), copy_context()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        # Straight to the loop: what `asyncio.wrap_future` puts between takes longer than a change
        # of threads itself.
        try:
            told = partial(settle, done, context.run(work))
        except BaseException as error:  # the caller's, whatever it is
            told = partial(fail, done, error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(told)

    def give_up() -> None:
        if job.cancel():  # not where it runs already
            fail(done, too_much_to_do(queue_s))

    job = threads.submit(run)
    timer = loop.call_later(queue_s, give_up)
    try:
        return await done
    except asyncio.CancelledError:
        job.cancel()
        raise
    finally:
        timer.cancel()


def settle(done: "asyncio.Future[T]", result: T) -> None:
    """Give whoever still waits the result."""
    if not done.done():
        done.set_result(result)


def fail(done: "asyncio.Future[Any]", error: BaseException) -> None:
    """Give whoever still waits the error."""
    if not done.done():
        done.set_exception(error)


def too_much_to_do(queue_s: float) -> StorageUnavailable:
    """Say that no turn came in time."""
    return StorageUnavailable(
        f"the database has too much to do: other reads or writes of this process took all of "
        f"{queue_s:g} s, the limit of the wait for a turn; ask for less at once, or raise "
        "PERSONA_DATABASE__QUEUE_S",
        limit="queue_s",
        seconds=queue_s,
    )


class translated:
    """Turn the driver's errors into ours; a broken constraint is the caller's to explain."""

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise StorageUnavailable in place of an error of the driver or the pool."""
        if isinstance(error, (DBAPIError, PoolTimeout)) and not isinstance(error, IntegrityError):
            raise fault_of(error) from error
