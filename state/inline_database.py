"""A database in memory whose transactions run at once in the caller's thread.

It is for worlds that one task alone works on, as a batch's are: nothing waits for a thread, a lock
or a disk. What is in it goes when it is closed, unless it is frozen.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, Self

from sqlalchemy import Connection, NullPool, create_engine

from persona_mcp.state.database import Database, P, T, translated
from persona_mcp.state.json_text import read_json, write_json

STATEMENTS_KEPT = 400
"""Prepared by SQLite for each connection; a dialogue runs about a hundred."""
COMPILED_KEPT = 1000
"""By SQLAlchemy, for all of them together."""
COPIES_KEPT = 64
COPIES_BYTES = 32 * 2**20
"""How many copies of worlds that nobody uses are kept, and how large these worlds are together. A
copy takes its world's size, and some .8 MB for what it has read and prepared."""
_handed = threading.local()


def _taken() -> sqlite3.Connection:
    """Give the engine the connection that `InlineDatabase` has just made in this thread."""
    connection: sqlite3.Connection = _handed.connection
    return connection


# One engine for all: what it has compiled for one world serves the next one.
ENGINE = create_engine(
    "sqlite://",
    creator=_taken,
    poolclass=NullPool,
    hide_parameters=True,
    query_cache_size=COMPILED_KEPT,
    json_serializer=write_json,
    json_deserializer=read_json,
)


class InlineDatabase(Database):
    """One connection to a copy of a frozen database, for one task at a time."""

    def __init__(self, frozen: bytes) -> None:
        """Open a copy.

        Args:
            frozen: An SQLite database as `freeze` returns it, not in WAL mode.
        """
        self.engine = ENGINE
        self._driver = sqlite3.connect(
            ":memory:",
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_KEPT,
        )
        self._driver.deserialize(frozen)
        self._driver.execute("PRAGMA foreign_keys=ON")
        _handed.connection = self._driver
        self._connection = ENGINE.connect()
        del _handed.connection
        # To SQLAlchemy it is all one transaction; the driver's own begin and end in it.
        self._connection.begin()

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `work(connection, ...)`; nobody else writes meanwhile, so it sees one moment.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        with translated():
            return work(self._connection, *args, **kwargs)

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `work(connection, ...)` in a transaction, all of it or nothing.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        with self.writing() as connection:
            return work(connection, *args, **kwargs)

    async def write_unsynced(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do as `write` does: there is no disk.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        return await self.write(work, *args, **kwargs)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give the connection.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        with translated():
            yield self._connection

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[Connection]:
        """Open a transaction; any exception rolls it back. There is no disk to be synced with.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        with translated():
            self._driver.execute("SAVEPOINT work")
            try:
                yield self._connection
            except BaseException:
                if self._driver.in_transaction:  # SQLite ends it itself when it has no memory left
                    self._driver.execute("ROLLBACK TO work")
                    self._driver.execute("RELEASE work")
                raise
            self._driver.execute("RELEASE work")

    def freeze(self) -> bytes:
        """Return everything in it as bytes; the same writes give the same bytes."""
        return self._driver.serialize()

    def begin(self) -> None:
        """Begin what `undo` forgets; to `freeze` would leave it out."""
        self._driver.execute("BEGIN")

    def undo(self) -> bool:
        """Forget what was written since `begin`; tell whether that was possible."""
        if not self._driver.in_transaction:
            return False
        self._driver.execute("ROLLBACK")
        return True

    def close(self) -> None:
        """Forget it."""
        self._connection.close()
        self._driver.close()

    async def aclose(self) -> None:
        """Forget it."""
        self.close()

    def __enter__(self) -> Self:
        """Give it, to be closed at the end of the block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Forget it."""
        self.close()


class Copies:
    """Copies of frozen databases for one task each, which are used again once it is done.

    What a task wrote is undone, and the next one finds the schema read and its statements prepared.
    """

    def __init__(self, kept: int = COPIES_KEPT, most_bytes: int = COPIES_BYTES) -> None:
        """Keep so many that nobody uses, of worlds of so many bytes together: those used last."""
        self._kept = kept
        self._most_bytes = most_bytes
        self._free: list[tuple[bytes, InlineDatabase]] = []

    @contextmanager
    def copy(self, frozen: bytes) -> Iterator[InlineDatabase]:
        """Give a copy of a frozen database, as it was frozen."""
        database = self._taken(frozen)
        try:
            database.begin()
            yield database
            undone = database.undo()
        except BaseException:
            database.close()
            raise
        if not undone:
            database.close()
            return
        self._free.append((frozen, database))
        while self._free and (len(self._free) > self._kept or self._bytes() > self._most_bytes):
            self._free.pop(0)[1].close()

    def _bytes(self) -> int:
        return sum(len(frozen) for frozen, _ in self._free)

    def _taken(self, frozen: bytes) -> InlineDatabase:
        for at in reversed(range(len(self._free))):
            if self._free[at][0] == frozen:
                return self._free.pop(at)[1]
        return InlineDatabase(frozen)

    def close(self) -> None:
        """Forget those that nobody uses."""
        while self._free:
            self._free.pop()[1].close()
