"""Statements that are built once: building one anew costs as much as running it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    CursorResult,
    Select,
    UpdateBase,
    bindparam,
    select,
)

from persona_mcp.state.dialect import members, whole
from persona_mcp.state.plans import Plan, Values, is_direct, plan_of


class Prepared:
    """A statement with named parameters (`bindparam`), kept at the level of a module.

    SQLAlchemy then neither builds it nor works out the key of its cache at each run; on SQLite it
    is not asked at all from the second run on (`plans`). One that is built for a call may be
    wrapped, too: `Database.read` and `write` take what is here.
    """

    def __init__(
        self,
        statement: Select[*tuple[Any, ...]] | UpdateBase,
        made: Callable[[Any], Any] | None = None,
        kept: int = 1024,
    ) -> None:
        """Keep a statement.

        Args:
            statement: With its parameters.
            made: Makes what is returned of a row, where that is not the row itself. What it makes
                may be shared: it is made once of what was read once, and so must never be changed.
            kept: How many of those are kept.
        """
        self._statement = statement
        self._made = made
        self._make = lru_cache(kept)(self._made_of)
        self._plans: dict[tuple[str, ...], Plan | None] = {}

    def all(self, connection: Connection, /, **values: Any) -> Sequence[Any]:
        """Run a query and return its rows."""
        return list(self.each(connection, **values))

    def each(self, connection: Connection, /, **values: Any) -> Iterator[Any]:
        """Run a query and return its rows as they come."""
        plan = self._plan(connection, values)
        if plan is not None:
            return map(
                partial(self._make, plan) if self._made else plan.read,
                plan.execute(connection, values),
            )
        rows = self._learn(connection, values)
        return map(self._made, rows) if self._made else iter(rows)

    def first(self, connection: Connection, /, **values: Any) -> Any:
        """Run a query and return its first row, None if there is none."""
        plan = self._plan(connection, values)
        if plan is None:
            row = self._learn(connection, values).first()
            return row if row is None or self._made is None else self._made(row)
        cursor = plan.execute(connection, values)
        row = cursor.fetchone()
        cursor.close()
        if row is None:
            return None
        return self._make(plan, row) if self._made else plan.read(row)

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

    def _made_of(self, plan: Plan, row: Any) -> Any:
        assert self._made is not None
        return self._made(plan.read(row))

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
    """Return the query for the texts of a list that is one parameter.

    `column.in_(listed("ids"))` is the same statement for a list of any length; a parameter for each
    value would have it written anew at each run.
    """
    return select(members(bindparam(name, type_=JSON)))


def listed_numbers(name: str) -> Select[Any]:
    """Return the query for the whole numbers of a list that is one parameter, as `listed` does."""
    return select(whole(members(bindparam(name, type_=JSON))))
