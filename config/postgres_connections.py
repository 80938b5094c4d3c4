"""Connections to PostgreSQL that end every wait, for the engine and for the checkpoints alike.

The server ends what takes too long; where the server itself stands still (stopped, cut off), the
connection is given up on this side, since nobody else would.
"""

from typing import Any

from psycopg import AsyncConnection, Connection, Error, OperationalError
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn

from persona_mcp.config.settings import Settings

CLASS = 2
"""Length of the first part of an SQLSTATE, which names the kind of the fault."""
CODES = {
    "55P03": "another process kept PostgreSQL locked for longer than PERSONA_DATABASE__BUSY_S",
    "57014": "PostgreSQL took longer than PERSONA_DATABASE__STATEMENT_S",
    "25P03": "a transaction was silent for longer than PERSONA_DATABASE__IDLE_S, so it was ended",
    "25006": "PostgreSQL takes no writes (read-only)",
    "42501": "the user of PERSONA_DATABASE__URL may not do this; grant it",
    "40": "another process wrote the same at the same moment; try again",
    "53": "PostgreSQL has no room left: disk, memory or connections",
    "57": "PostgreSQL is being stopped or started",
    "08": "the connection to PostgreSQL was lost",
}
SIGNS = {
    "did not answer within": "PostgreSQL did not answer in time",
    "password authentication failed": "PostgreSQL refuses the user or password of "
    "PERSONA_DATABASE__URL",
    "no password supplied": "PostgreSQL wants a password in PERSONA_DATABASE__URL",
    "does not exist": "there is no such database or user on the server of PERSONA_DATABASE__URL",
    "too many clients": "PostgreSQL has no room left: disk, memory or connections",
    "connection": "the connection to PostgreSQL was lost, or could not be made",
}
"""Of faults without a code, which is what connecting gives."""
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


def why(error: Error) -> str:
    """Say in our words what PostgreSQL could not do; its own may name tables, hosts or values."""
    code = error.sqlstate or ""
    if code:
        found = CODES.get(code) or CODES.get(code[:CLASS])
    else:
        text = str(error)
        found = next((words for sign, words in SIGNS.items() if sign in text), None)
    return found or "PostgreSQL did not do what was asked; the log has the cause"
