"""Where SQLite and PostgreSQL differ: types of columns, and functions that each calls otherwise.

Stores are written once, with what is here; no other module of `state/` asks which database it is,
but the full-text search, the transactions, and those that must keep their place in one of them.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Double,
    Float,
    Integer,
    SQLColumnExpression,
    String,
    Text,
    literal,
    literal_column,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import KeyedColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

POSTGRES = "postgresql"
INTEGER: TypeEngine[int] = Integer().with_variant(BigInteger(), POSTGRES)
"""A whole number of 64 bits on both."""


def text_type(length: int | None = None) -> TypeEngine[str]:
    """Return the type of a column of text, compared by its bytes as SQLite does.

    Args:
        length: Characters that it is meant for; neither database holds anybody to it.
    """
    kind: TypeEngine[str] = Text() if length is None else String(length)
    return kind.with_variant(Text(collation="C"), POSTGRES)


def is_postgres(connection: Connection) -> bool:
    """Tell whether a connection leads to PostgreSQL."""
    return connection.dialect.name == POSTGRES


def savepoint(connection: Connection) -> AbstractContextManager[object]:
    """Let a statement be refused (IntegrityError) without its whole transaction.

    SQLite takes back the one statement by itself.
    """
    return connection.begin_nested() if is_postgres(connection) else nullcontext()


class _Called(FunctionElement[Any]):
    """A function that each database has under its own name or form."""


class _Members(_Called):
    """The rows of a JSON list; the column is `value`."""

    inherit_cache = True


class _Whole(_Called):
    """A member of a JSON list, as a whole number."""

    inherit_cache = True
    type = INTEGER


class _Field(_Called):
    """A number in a JSON object."""

    inherit_cache = True
    type = Double()


class _Larger(_Called):
    """The larger of two numbers."""

    inherit_cache = True
    type = Double()


class _Written(_Called):
    """The numbers of a group, one after another with commas between."""

    inherit_cache = True
    type = Text()


class _Named(_Called):
    """The texts of a group as a JSON list."""

    inherit_cache = True
    type = Text()


def members(listed: SQLColumnExpression[Any], key: str | None = None) -> KeyedColumnElement[str]:
    """Return the column of the members of a JSON list of texts; to be selected from.

    Args:
        listed: The list, or an object that has it.
        key: Of the list in the object; where there is none it has no members.
    """
    given = [listed] if key is None else [listed, *_place(key)]
    column: KeyedColumnElement[str] = _Members(*given).table_valued("value").c.value
    return column


def _place(key: str) -> tuple[ColumnElement[str], ColumnElement[str]]:
    """Write where a key stands in an object: for SQLite, and for PostgreSQL."""
    return literal(f"$.{key}", String), literal_column(f"'{key}'", String)


def whole(member: ColumnElement[Any]) -> ColumnElement[int]:
    """Read one of `members` as a whole number."""
    return _Whole(member)


def number_in(obj: SQLColumnExpression[Any], key: str) -> ColumnElement[float]:
    """Return the number that a JSON object has under a key; NULL if it has none."""
    return _Field(obj, *_place(key))


def larger(one: ColumnElement[Any] | float, other: ColumnElement[Any]) -> ColumnElement[float]:
    """Return the larger of two numbers; of one that is NULL nothing is promised."""
    return _Larger(literal(one, Double) if isinstance(one, float) else one, other)


def written(column: SQLColumnExpression[Any]) -> ColumnElement[str]:
    """Write the numbers of a group, in any order, as text from which the same bits are read."""
    return _Written(column)


def named(column: SQLColumnExpression[str]) -> ColumnElement[str]:
    """Write the texts of a group, in the order of `written`, as a JSON list."""
    return _Named(column)


def _parts(element: _Called, compiler: SQLCompiler, *which: int, **how: Any) -> list[str]:
    given = list(element.clauses)
    return [compiler.process(given[place], **how) for place in which or range(len(given))]


@compiles(_Members)
def _members_on_sqlite(element: _Members, compiler: SQLCompiler, **how: Any) -> str:
    places = range(min(len(element.clauses), 2))
    return f"json_each({', '.join(_parts(element, compiler, *places, **how))})"


@compiles(_Members, POSTGRES)
def _members_on_postgres(element: _Members, compiler: SQLCompiler, **how: Any) -> str:
    if len(element.clauses) == 1:
        return f"json_array_elements_text({_parts(element, compiler, 0, **how)[0]})"
    listed, key = _parts(element, compiler, 0, 2, **how)
    return f"json_array_elements_text({listed} -> {key})"


@compiles(_Whole)
def _whole_on_sqlite(element: _Whole, compiler: SQLCompiler, **how: Any) -> str:
    return _parts(element, compiler, 0, **how)[0]


@compiles(_Whole, POSTGRES)
def _whole_on_postgres(element: _Whole, compiler: SQLCompiler, **how: Any) -> str:
    return f"CAST({_parts(element, compiler, 0, **how)[0]} AS BIGINT)"


@compiles(_Field)
def _field_on_sqlite(element: _Field, compiler: SQLCompiler, **how: Any) -> str:
    return f"json_extract({', '.join(_parts(element, compiler, 0, 1, **how))})"


@compiles(_Field, POSTGRES)
def _field_on_postgres(element: _Field, compiler: SQLCompiler, **how: Any) -> str:
    return f"CAST({' ->> '.join(_parts(element, compiler, 0, 2, **how))} AS DOUBLE PRECISION)"


@compiles(_Larger)
def _larger_on_sqlite(element: _Larger, compiler: SQLCompiler, **how: Any) -> str:
    return f"max({', '.join(_parts(element, compiler, **how))})"


@compiles(_Larger, POSTGRES)
def _larger_on_postgres(element: _Larger, compiler: SQLCompiler, **how: Any) -> str:
    return f"greatest({', '.join(_parts(element, compiler, **how))})"


@compiles(_Written)
def _written_on_sqlite(element: _Written, compiler: SQLCompiler, **how: Any) -> str:
    column = _parts(element, compiler, **how)[0]
    exact = isinstance(next(iter(element.clauses)).type, Float)
    # Its JSON would round to 15 digits.
    return f"group_concat(printf('%!.17g', {column}))" if exact else f"group_concat({column})"


@compiles(_Written, POSTGRES)
def _written_on_postgres(element: _Written, compiler: SQLCompiler, **how: Any) -> str:
    kind = next(iter(element.clauses)).type
    column = _parts(element, compiler, **how)[0]
    number = f"CAST({column} AS INTEGER)" if isinstance(kind, Boolean) else column
    return f"string_agg(CAST({number} AS TEXT), ',')"


@compiles(_Named)
def _named_on_sqlite(element: _Named, compiler: SQLCompiler, **how: Any) -> str:
    return f"json_group_array({_parts(element, compiler, **how)[0]})"


@compiles(_Named, POSTGRES)
def _named_on_postgres(element: _Named, compiler: SQLCompiler, **how: Any) -> str:
    return f"CAST(json_agg({_parts(element, compiler, **how)[0]}) AS TEXT)"
