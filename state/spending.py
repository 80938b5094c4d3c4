"""What callers have used of the language model, by caller and day (UTC), in SQL."""

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection, Integer, String, bindparam, insert, select, update

from persona_mcp.state.access_tables import Spending
from persona_mcp.state.database import Database
from persona_mcp.state.moments import DAY_S
from persona_mcp.state.prepared import Prepared

ITS_OWN = (
    Spending.caller_id == bindparam("caller", type_=String),
    Spending.day == bindparam("at", type_=String),
)
READ = Prepared(select(Spending.tokens).where(*ITS_OWN))
ADD = Prepared(
    update(Spending)
    .where(*ITS_OWN)
    .values(tokens=Spending.tokens + bindparam("more", type_=Integer))
)
BEGIN = Prepared(insert(Spending))
OF_DAY = Prepared(
    select(Spending.caller_id, Spending.tokens).where(Spending.day == bindparam("at", type_=String))
)
Used = Mapping[tuple[str, str], int]
"""Tokens by caller and day."""


def day_of(now: float) -> str:
    """Return the day of a moment as YYYY-MM-DD, UTC."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")


def day_ends_in(now: float) -> float:
    """Return the seconds that are left of the day, above 0."""
    return DAY_S - now % DAY_S


class SpendingStore:
    """Adds to and reads what was used."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def add(self, used: Used) -> None:
        """Add tokens, all of them or none.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        await self._database.write(add, used)

    async def used(self, caller_id: str, day: str) -> int:
        """Return a caller's tokens of a day.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        return await self._database.read(read, caller_id, day)

    async def of_day(self, day: str) -> dict[str, int]:
        """Return the tokens of a day by caller.

        Raises:
            StorageUnavailable: The database did not answer.
        """
        return await self._database.read(
            lambda connection: {row.caller_id: row.tokens for row in OF_DAY.all(connection, at=day)}
        )


def add(connection: Connection, used: Used) -> None:
    """Add tokens by caller and day; a caller's first of a day makes the row."""
    for (caller_id, day), tokens in used.items():
        if READ.first(connection, caller=caller_id, at=day) is None:
            BEGIN.run(connection, {"caller_id": caller_id, "day": day, "tokens": tokens})
        else:
            ADD.run(connection, {"caller": caller_id, "at": day, "more": tokens})


def read(connection: Connection, caller_id: str, day: str) -> int:
    """Return a caller's tokens of a day, 0 where there are none."""
    return READ.scalar(connection, caller=caller_id, at=day) or 0
