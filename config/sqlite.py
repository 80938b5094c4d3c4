"""SQLite's driver for the engine: one visit to the connection's thread a statement.

aiosqlite goes to its thread for a cursor, for the statement, for the rows and for the end of the
cursor, and a visit costs more than most statements. Here all of that is done in one.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite

ROWS_AT_ONCE = 64
"""Of aiosqlite's iteration, which the engine does not use."""


class WholeCursor(aiosqlite.Cursor):
    """A cursor that brings all rows of a statement with its execution."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        """Make nothing yet; a statement makes the cursor that it runs on."""
        super().__init__(connection, None)  # type: ignore[arg-type]
        self._rows: Sequence[Any] = ()

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> "WholeCursor":
        """Run a statement and read its rows."""
        await self._run("execute", sql, parameters or ())
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> "WholeCursor":
        """Run a statement with each of several parameters."""
        await self._run("executemany", sql, parameters)
        return self

    async def fetchall(self) -> Sequence[Any]:
        """Return the rows, which are there already."""
        rows, self._rows = self._rows, ()
        return rows

    async def close(self) -> None:
        """Let go of the rows; a statement that was read to its end holds nothing else."""
        self._rows = ()

    async def _run(self, how: str, sql: str, parameters: Iterable[Any]) -> None:
        def run() -> tuple[sqlite3.Cursor, Sequence[Any]]:
            cursor: sqlite3.Cursor = getattr(self._conn._conn, how)(sql, parameters)
            return cursor, cursor.fetchall() if cursor.description else ()

        self._cursor, self._rows = await self._execute(run)  # type: ignore[no-untyped-call]


class WholeConnection(aiosqlite.Connection):
    """aiosqlite's connection, whose cursors are `WholeCursor`s."""

    def cursor(self) -> WholeCursor:  # type: ignore[override]
        """Return a cursor; nothing is asked of the thread yet."""
        return WholeCursor(self)


async def open_sqlite(path: Path, busy_s: float) -> WholeConnection:
    """Open a file; transactions are begun by statements only.

    Args:
        path: Of the file.
        busy_s: How long a statement waits for another's lock, in seconds.
    """

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, busy_s, isolation_level=None, check_same_thread=False)

    connection = WholeConnection(connect, ROWS_AT_ONCE)
    connection._thread.daemon = True  # as SQLAlchemy does: a hanging disk must not hold the exit
    await connection
    return connection
