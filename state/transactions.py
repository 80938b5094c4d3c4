"""How a transaction is opened in a thread, on each of the two databases."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from persona_mcp.state.database_faults import UNKNOWN, is_explained
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.plans import driver_of, is_direct

LEVELS = {True: "PRAGMA synchronous=FULL", False: "PRAGMA synchronous=NORMAL"}
"""Statements of SQLite, by whether a commit is to wait for the disk."""
WRITERS = 0x506572736F6E61
"""The advisory lock of whoever writes on PostgreSQL: "Persona"."""
BEGIN_WRITE = f"SELECT pg_advisory_xact_lock({WRITERS})"
BEGIN_UNSYNCED = f"{BEGIN_WRITE}, set_config('synchronous_commit', 'off', true)"
ONE_MOMENT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""What PostgreSQL needs for a read that sees one moment."""


class Transactions(Protocol):
    """Opens transactions; errors are those of SQLAlchemy."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a transaction that only reads and sees one moment."""
        ...

    def writing(self, *, synced: bool) -> AbstractContextManager[Connection]:
        """Open a transaction that writes, after all others; any exception rolls it back.

        Args:
            synced: Whether its commit waits for the disk.
        """
        ...

    @property
    def resting(self) -> int:
        """Count connections that were taken from the pool and have no transaction now."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class SqliteTransaction:
    """A transaction on a connection that is lent for it."""

    def __init__(self, lent: "SqliteTransactions", synced: bool | None) -> None:
        """Open nothing yet.

        Args:
            lent: Lends the connection.
            synced: Whether the commit is to wait for the disk; None for one that only reads.
        """
        self._lent = lent
        self._synced = synced

    def __enter__(self) -> Connection:
        """Begin."""
        self._kept = self._lent.take()
        try:
            self._kept.begin(self._synced)
        except DBAPIError:
            self._kept.connection.close()
            raise
        return self._kept.connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Commit what was written, or undo it; a connection that failed goes back to the pool."""
        kept = self._kept
        if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
            kept.connection.close()
            return
        try:
            if error is None and self._synced is not None:
                kept.driver.commit()
            else:
                kept.driver.rollback()
        except sqlite3.Error as fault:
            kept.connection.close()
            raise refused(fault) from fault
        self._lent.give_back(kept)


class Kept:
    """A connection that no transaction of the driver's is open on.

    Attributes:
        connection: SQLAlchemy's, to which all that happens on it is one transaction.
        driver: What it wraps.
    """

    def __init__(self, connection: Connection) -> None:
        """Keep one that the pool lends."""
        connection.begin()
        self.connection = connection
        self.driver = driver_of(connection)
        self._synced: bool | None = None  # the pool may lend what was used before

    def begin(self, synced: bool | None) -> None:
        """Begin a transaction of the driver's.

        Args:
            synced: Whether its commit is to wait for the disk; None for one that only reads.

        Raises:
            DBAPIError: It could not.
        """
        if synced is None:
            self._run("BEGIN")
            return
        if synced != self._synced:
            self._run(LEVELS[synced])
            self._synced = synced
        self._run("BEGIN IMMEDIATE")

    def _run(self, sql: str) -> None:
        if not is_direct(self.connection):
            self.connection.exec_driver_sql(sql)
            return
        try:
            self.driver.execute(sql)
        except sqlite3.Error as error:
            raise refused(error) from error


class SqliteTransactions:
    """Transactions on connections that are taken from SQLAlchemy's pool once.

    To lend one, begin, end and take it back costs SQLAlchemy more than most transactions cost
    SQLite. What was used last is used next, since SQLite forgets the pages that a connection has
    read once another one wrote.
    """

    def __init__(self, engine: Engine) -> None:
        """Take none yet.

        Args:
            engine: Its driver begins no transaction by itself.
        """
        self._engine = engine
        self._resting: list[Kept] = []

    @property
    def resting(self) -> int:
        """Count connections that were taken from the pool and have no transaction now."""
        return len(self._resting)

    def reading(self) -> SqliteTransaction:
        """Open a transaction that sees one moment; whatever it writes is undone."""
        return SqliteTransaction(self, None)

    def writing(self, *, synced: bool) -> SqliteTransaction:
        """Open a transaction that writes, after all others; any exception rolls it back."""
        return SqliteTransaction(self, synced)

    def take(self) -> Kept:
        """Take the connection that was used last, or another one from the pool."""
        try:
            return self._resting.pop()
        except IndexError:
            return Kept(self._engine.connect())

    def give_back(self, kept: Kept) -> None:
        """Keep a connection for the next transaction."""
        self._resting.append(kept)

    def close(self) -> None:
        """Close every connection."""
        while self._resting:
            self._resting.pop().connection.close()
        self._engine.dispose()


class PostgresTransactions:
    """Transactions on connections that the pool lends, looks after and replaces."""

    resting = 0

    def __init__(self, engine: Engine) -> None:
        """Take none yet."""
        self._engine = engine
        self._reader = engine.execution_options(**ONE_MOMENT)

    def reading(self) -> Connection:
        """Open a transaction that only reads and sees one moment."""
        return self._reader.connect()

    @contextmanager
    def writing(self, *, synced: bool) -> Iterator[Connection]:
        """Open a transaction that writes, after all others; any exception rolls it back.

        Raises:
            StorageUnavailable: The connection was lost in the end, and nobody knows whether it is
                stored.
        """
        ended = False
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(BEGIN_WRITE if synced else BEGIN_UNSYNCED)
                yield connection
                ended = True
        except DBAPIError as error:
            # It may have been stored, and the database then been unable to say so.
            if ended and error.connection_invalidated and not is_explained(error):
                raise StorageUnavailable(UNKNOWN) from error
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def refused(error: sqlite3.Error) -> BaseException:
    """Return what SQLAlchemy would have raised."""
    return DBAPIError.instance(None, None, error, sqlite3.Error)
