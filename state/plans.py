"""How a statement that has run once is run again: straight through SQLite's driver.

SQLAlchemy takes 20 to 40 microseconds for each run of a statement that it knows, which is most of
what a small one costs. What it worked out at the first run (text, order of parameters, types) is
kept here; the connection and its transaction stay SQLAlchemy's. Any other driver, a connection
outside of a transaction, and one whose statements somebody listens to are left to SQLAlchemy.
"""

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult
from sqlalchemy.exc import DBAPIError

Values = Mapping[str, Any]
Convert = Callable[[Any], Any]
DRIVER = "pysqlite"
GIVEN = object()
"""Stands for a parameter that each run gives."""


@dataclass(frozen=True)
class Parameter:
    """One place of a statement's text.

    Attributes:
        key: Under which name a run gives the value.
        fixed: The value that the statement itself gives, converted; `GIVEN` for none.
        convert: From Python to the driver; None for as it is.
    """

    key: str
    fixed: Any
    convert: Convert | None


@dataclass(frozen=True, eq=False)
class Plan:
    """A statement as the driver takes it.

    Attributes:
        sql: Its text.
        parameters: In the order of the text.
        row: Makes a row, with a name for each column, of the driver's tuple.
        converts: Column and how it is read, for those that are not read as they are.
    """

    sql: str
    parameters: tuple[Parameter, ...]
    row: Callable[[Sequence[Any]], Any]
    converts: tuple[tuple[int, Convert], ...]

    def execute(self, connection: Connection, values: Values) -> sqlite3.Cursor:
        """Run it once.

        Raises:
            DBAPIError: As SQLAlchemy would: what the driver refused.
        """
        given = self._given(values)
        try:
            return driver_of(connection).execute(self.sql, given)
        except sqlite3.Error as error:
            raise self._refused(given, error) from error

    def execute_each(self, connection: Connection, values: Sequence[Values]) -> None:
        """Run it with each of several values.

        Raises:
            DBAPIError: As SQLAlchemy would: what the driver refused.
        """
        given = [self._given(one) for one in values]
        try:
            driver_of(connection).executemany(self.sql, given)
        except sqlite3.Error as error:
            raise self._refused(given, error) from error

    def read(self, row: Sequence[Any]) -> Any:
        """Make a row of the driver's."""
        if self.converts:
            row = list(row)
            for at, convert in self.converts:
                row[at] = convert(row[at])
        return self.row(row)

    def _given(self, values: Values) -> list[Any]:
        return [
            p.fixed
            if p.fixed is not GIVEN
            else (values[p.key] if p.convert is None else p.convert(values[p.key]))
            for p in self.parameters
        ]

    def _refused(self, given: Any, error: sqlite3.Error) -> BaseException:
        return DBAPIError.instance(self.sql, given, error, sqlite3.Error, hide_parameters=True)


def driver_of(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection."""
    found: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]
    return found


def is_direct(connection: Connection) -> bool:
    """Tell whether a statement may go straight to the driver."""
    return (
        connection.dialect.driver == DRIVER
        and connection.in_transaction()
        and not connection.engine.dispatch.before_cursor_execute
    )


def plan_of(result: CursorResult[Any], given: Values) -> Plan | None:
    """Read a plan off a statement that SQLAlchemy has just run; None if it takes more than that.

    Args:
        result: What it returned.
        given: The values that it was run with, of one run.
    """
    compiled: Any = result.context.compiled
    if compiled.post_compile_params or compiled.positiontup is None or compiled.returning:
        return None
    prefetched = {column.key: column.default for column in compiled.insert_prefetch or ()}
    if compiled.update_prefetch or not all(d.is_scalar for d in prefetched.values()):
        return None
    keys = {name: bind.key for bind, name in compiled.bind_names.items()}
    constant = compiled.construct_params(given) | {n: d.arg for n, d in prefetched.items()}
    converts = compiled._bind_processors

    def parameter(name: str) -> Parameter:
        key, convert = keys[name], converts.get(name)
        if key in given:
            return Parameter(key, GIVEN, convert)
        return Parameter(key, convert(constant[name]) if convert else constant[name], None)

    columns = compiled._result_columns or ()
    return Plan(
        sql=compiled.string,
        parameters=tuple(map(parameter, compiled.positiontup)),
        row=row_of(tuple(column.keyname for column in columns)),
        converts=tuple(
            (at, convert)
            for at, column in enumerate(columns)
            if (convert := reader_of(column.type, compiled.dialect)) is not None
        ),
    )


def reader_of(kind: Any, dialect: Any) -> Convert | None:
    """Return how values of a type are read; None for as they are."""
    found: Convert | None = kind.dialect_impl(dialect).result_processor(dialect, None)
    return found


def row_of(names: tuple[str, ...]) -> Callable[[Sequence[Any]], Any]:
    """Make the type of a query's rows: a tuple whose columns have names, as SQLAlchemy's have."""
    # A column without a name of its own cannot be asked for by name: any other name will do.
    base = namedtuple("Row", names, rename=True)  # type: ignore[misc]

    class Row(base):
        """A row."""

        __slots__ = ()

        @property
        def _mapping(self) -> dict[str, Any]:
            return dict(zip(names, self, strict=True))

    return Row._make
