"""Connections to PostgreSQL that end every wait, for the engine and for the checkpoints alike.

The server ends what takes too long; where the server itself stands still (stopped, cut off), the
connection is given up on this side, since nobody else would.
"""

from typing import Any

from psycopg import AsyncConnection, Connection, OperationalError
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn

from persona_mcp.config.settings import Settings

LATER_S = 2.0
"""The server, if it is there, ends a statement and says why, before we give up the connection."""


class LimitedConnection(Connection[Any]):
    """A connection for threads. `limit_s`: the longest wait for one answer, in seconds."""

    limit_s: float

    def wait(self, gen: PQGen[RV], *args: Any, **more: Any) -> RV:
        """Wait for an answer; see `Connection`.

        Raises:
            OperationalError: It did not come in time, and the connection was closed.
        """
        try:
            return super().wait(gen, *args, **{"timeout": self.limit_s, **more})
        except OperationalError as error:
            if not give_up(self.pgconn):
                raise
            raise unanswered(self.limit_s) from error


class LimitedAsyncConnection(AsyncConnection[Any]):
    """A connection for an event loop. `limit_s`: the longest wait for one answer, in seconds."""

    limit_s: float

    async def wait(self, gen: PQGen[RV], *args: Any, **more: Any) -> RV:
        """Wait for an answer; see `AsyncConnection`.

        Raises:
            OperationalError: It did not come in time, and the connection was closed.
        """
        try:
            return await super().wait(gen, *args, **{"timeout": self.limit_s, **more})
        except OperationalError as error:
            if not give_up(self.pgconn):
                raise
            raise unanswered(self.limit_s) from error


def give_up(connection: PGconn) -> bool:
    """Close a connection whose answer is still to come: nobody could tell it from the next one."""
    if connection.transaction_status != TransactionStatus.ACTIVE:
        return False
    connection.finish()
    return True


def unanswered(limit_s: float) -> OperationalError:
    """Say what was waited for."""
    return OperationalError(f"PostgreSQL did not answer within {limit_s:g} s")


def limited(settings: Settings) -> type[LimitedConnection]:
    """Return the class of connections for threads, with the limit of the settings."""
    limit_s = settings.database.statement_s + LATER_S
    return type("Limited", (LimitedConnection,), {"limit_s": limit_s})


def limited_async(settings: Settings) -> type[LimitedAsyncConnection]:
    """Return the class of connections for an event loop, with the limit of the settings."""
    limit_s = settings.database.statement_s + LATER_S
    return type("LimitedAsync", (LimitedAsyncConnection,), {"limit_s": limit_s})
