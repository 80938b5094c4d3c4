"""The processes that share a PostgreSQL database, perhaps from several machines.

Each shows life in a table, by the database's clock, which is the one clock that all of them have.
A process that stands still, or whose machine is cut off, cannot be told from one that has ended: it
counts as ended only long after every lease of it has run out, or when it has said so itself.
"""

import time
from typing import Any

from sqlalchemy import Connection, Double, cast, delete, extract, func, insert, select, update

from persona_mcp.state.access_tables import Process as P
from persona_mcp.state.database import Database
from persona_mcp.state.worker import Worker

BEATS = 6
"""Signs of life within the time after which a silent process counts as ended."""
FORGOTTEN_S = 86_400.0
"""By then nothing names a process any more that somebody could wait for."""


class Presence(Worker):
    """Shows that this process lives, and sees which others do not."""

    def __init__(self, database: Database, owner: str, gone_s: float) -> None:
        """Show life under a name; nothing is written before the first `turn`.

        Args:
            database: On PostgreSQL.
            owner: The name, as `Liveness` gives it.
            gone_s: Another process that was silent for longer has ended, in seconds.
        """
        super().__init__("signs of life", gone_s / BEATS)
        self._database = database
        self._owner = owner
        self._gone_s = gone_s
        self._gone: frozenset[str] = frozenset()
        self._ahead = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the time by the database's clock, in seconds since the epoch.

        The clock of this machine may be wrong, or be set while we run: it is not asked.
        """
        return time.monotonic() + self._ahead

    def is_gone(self, owner: str) -> bool:
        """Tell whether a process is known to have ended; of one never heard of nothing is known."""
        return owner in self._gone

    async def turn(self) -> None:
        """Show life, and look at the others.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        self._ahead, self._gone = await self._database.write_unsynced(self._beat)

    async def end(self) -> None:
        """Say that this process ends: its last sign of life is turned to below zero.

        Raises:
            StorageUnavailable: The database did not answer.
        """

        def write(connection: Connection) -> None:
            ended = update(P).where(P.id == self._owner).values(seen_at=-clock())
            connection.execute(ended)

        await self._database.write(write)

    def _beat(self, connection: Connection) -> tuple[float, frozenset[str]]:
        asked = time.monotonic()
        now: float = connection.scalar(select(clock())) or 0.0
        ahead = now - (asked + time.monotonic()) / 2
        mine: Any = connection.execute(update(P).where(P.id == self._owner).values(seen_at=now))
        if mine.rowcount == 0:
            connection.execute(insert(P).values(id=self._owner, seen_at=now))
            connection.execute(delete(P).where(func.abs(P.seen_at) < now - FORGOTTEN_S))
        silent = select(P.id).where(P.seen_at < now - self._gone_s, P.id != self._owner)
        return ahead, frozenset(connection.scalars(silent))


def clock() -> Any:
    """Return the database's clock as it is now, and not as the transaction began."""
    return cast(extract("epoch", func.clock_timestamp()), Double)
