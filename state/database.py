"""Transactions on the SQL database: reads that see one moment, writes that are all or nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from persona_mcp.state.errors import StorageUnavailable

IMMEDIATE = "persona_immediate"
"""Execution option of a connection whose transaction is going to write."""


class Database:
    """Hands out transactions; the only way to SQL.

    Attributes:
        engine: The pool behind it; its dialect tells SQLite and PostgreSQL apart.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """Wrap an engine made by `persona_mcp.config.database`."""
        self.engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer at a time and no queue: waiting here is fair, waiting there is not.
        self._writing: asyncio.Lock | nullcontext[None] = (
            asyncio.Lock() if self._sqlite else nullcontext()
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether statements of SQLite's own (FTS5) apply."""
        return self._sqlite

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        with translated():
            async with self.engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that writes; commits at the end, rolls back on any exception.

        Raises:
            StorageUnavailable: The database did not answer, or another process kept it locked.
        """
        with translated():
            async with self._writing, self.engine.connect() as connection:
                await connection.execution_options(**{IMMEDIATE: True})
                async with connection.begin():
                    yield connection

    async def aclose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


class translated:
    """Turn the driver's errors into ours; a broken constraint is the caller's to explain."""

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise StorageUnavailable in place of an error of the driver or the pool."""
        if isinstance(error, (DBAPIError, PoolTimeout)) and not isinstance(error, IntegrityError):
            raise StorageUnavailable(
                "the database did not answer (locked, full, read-only or damaged); "
                "`persona doctor` tells more",
            ) from error
