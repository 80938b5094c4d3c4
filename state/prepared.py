"""Statements that are built once: building one anew costs as much as running it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Connection, Select, UpdateBase, bindparam, func, select

Values = Mapping[str, Any]


class Prepared:
    """A statement with named parameters (`bindparam`), kept at the level of a module.

    SQLAlchemy then neither builds it nor works out the key of its cache at each run. One that is
    built for a call may be wrapped, too: `Database.read` and `write` take what is here.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]] | UpdateBase) -> None:
        """Keep a statement."""
        self._statement = statement

    def all(self, connection: Connection, /, **values: Any) -> Sequence[Any]:
        """Run a query and return its rows."""
        return connection.execute(self._statement, values).all()

    def each(self, connection: Connection, /, **values: Any) -> Iterator[Any]:
        """Run a query and return its rows as they come."""
        return iter(connection.execute(self._statement, values))

    def first(self, connection: Connection, /, **values: Any) -> Any:
        """Run a query and return its first row, None if there is none."""
        return connection.execute(self._statement, values).first()

    def scalar(self, connection: Connection, /, **values: Any) -> Any:
        """Run a query and return the first value of its first row, None if there is none."""
        return connection.scalar(self._statement, values)

    def run(
        self, connection: Connection, /, values: Values | Sequence[Values] | None = None
    ) -> None:
        """Run a change, once or with each of several values."""
        connection.execute(self._statement, values)


def listed(name: str) -> Select[Any]:
    """Return the query for the values of a list that is one parameter.

    `column.in_(listed("ids"))` is the same statement for a list of any length; a parameter for each
    value would have it written anew at each run.
    """
    values = func.json_each(bindparam(name, type_=JSON)).table_valued("value")
    return select(values.c.value)
