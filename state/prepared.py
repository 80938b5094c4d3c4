"""Statements that are built once: building one anew costs as much as running it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, UpdateBase
from sqlalchemy.ext.asyncio import AsyncConnection

Values = Mapping[str, Any]


class Prepared:
    """A statement with named parameters (`bindparam`), kept at the level of a module.

    SQLAlchemy then neither builds it nor works out the key of its cache at each run.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]] | UpdateBase) -> None:
        """Keep a statement."""
        self._statement = statement

    async def all(self, connection: AsyncConnection, **values: Any) -> Sequence[Any]:
        """Run a query and return its rows."""
        return (await connection.execute(self._statement, values)).all()

    async def first(self, connection: AsyncConnection, **values: Any) -> Any:
        """Run a query and return its first row, None if there is none."""
        return (await connection.execute(self._statement, values)).first()

    async def scalar(self, connection: AsyncConnection, **values: Any) -> Any:
        """Run a query and return the first value of its first row, None if there is none."""
        return await connection.scalar(self._statement, values)

    async def run(self, connection: AsyncConnection, values: Values | Sequence[Values]) -> None:
        """Run a change, once or with each of several values."""
        await connection.execute(self._statement, values)
