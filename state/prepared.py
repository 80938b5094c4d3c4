"""Statements that are built once: building one anew costs as much as running it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    CursorResult,
    Select,
    UpdateBase,
    bindparam,
    func,
    select,
)

from persona_mcp.state.plans import Plan, Values, is_direct, plan_of


class Prepared:
    """A statement with named parameters (`bindparam`), kept at the level of a module.

    SQLAlchemy then neither builds it nor works out the key of its cache at each run; on SQLite it
    is not asked at all from the second run on (`plans`). One that is built for a call may be
    wrapped, too: `Database.read` and `write` take what is here.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]] | UpdateBase) -> None:
        """Keep a statement."""
        self._statement = statement
        self._plans: dict[tuple[str, ...], Plan | None] = {}

    def all(self, connection: Connection, /, **values: Any) -> Sequence[Any]:
        """Run a query and return its rows."""
        return list(self.each(connection, **values))

    def each(self, connection: Connection, /, **values: Any) -> Iterator[Any]:
        """Run a query and return its rows as they come."""
        plan = self._plan(connection, values)
        return plan.rows(connection, values) if plan else iter(self._learn(connection, values))

    def first(self, connection: Connection, /, **values: Any) -> Any:
        """Run a query and return its first row, None if there is none."""
        plan = self._plan(connection, values)
        if plan is None:
            return self._learn(connection, values).first()
        cursor = plan.execute(connection, values)
        row = cursor.fetchone()
        cursor.close()
        return None if row is None else plan.read(row)

    def scalar(self, connection: Connection, /, **values: Any) -> Any:
        """Run a query and return the first value of its first row, None if there is none."""
        row = self.first(connection, **values)
        return None if row is None else row[0]

    def run(
        self, connection: Connection, /, values: Values | Sequence[Values] | None = None
    ) -> None:
        """Run a change, once or with each of several values."""
        if values is None or isinstance(values, Mapping):
            values = [values or {}]
        each = values or [{}]
        plan = self._plan(connection, each[0])
        if plan is not None and all(len(one) == len(each[0]) for one in each):
            plan.execute_each(connection, each)
        else:
            self._learn(connection, each[0] if len(each) == 1 else each)

    def _plan(self, connection: Connection, values: Values) -> Plan | None:
        plan = self._plans.get(tuple(values))
        return plan if plan is not None and is_direct(connection) else None

    def _learn(self, connection: Connection, values: Any) -> CursorResult[Any]:
        """Have SQLAlchemy run it, and keep how it did."""
        result = connection.execute(self._statement, values)
        one = values if isinstance(values, Mapping) else values[0]
        if tuple(one) not in self._plans and is_direct(connection):
            self._plans[tuple(one)] = plan_of(result, one)
        return result


def listed(name: str) -> Select[Any]:
    """Return the query for the values of a list that is one parameter.

    `column.in_(listed("ids"))` is the same statement for a list of any length; a parameter for each
    value would have it written anew at each run.
    """
    values = func.json_each(bindparam(name, type_=JSON)).table_valued("value")
    return select(values.c.value)
