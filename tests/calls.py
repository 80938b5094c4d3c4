"""Calls of operations as a door makes them, and looks into the tables behind them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, select

from persona_mcp.server.operations.registry import call_operation
from persona_mcp.server.runs import ChatRequest
from persona_mcp.server.service import Service
from persona_mcp.state.database import Database
from persona_mcp.state.prepared import Prepared
from persona_mcp.state.table_base import Base

Row = dict[str, Any]


async def call(service: Service, name: str, /, **arguments: Any) -> dict[str, Any]:
    """Call an operation by its name."""
    return await call_operation(service, name, arguments)


async def say(service: Service, message: str, **more: Any) -> dict[str, Any]:
    """Say something to Aria and return the result."""
    return await call(service, "persona_chat", **{"persona_id": "aria", "message": message, **more})


def request(message: str, **more: Any) -> ChatRequest:
    """Ask the service itself, to hold the run."""
    values = {"world_id": "main", "persona": "aria", "user_id": "user", "message": message}
    return ChatRequest(**{**values, **more})


async def rows(database: Database, table: type[Base]) -> list[Row]:
    """Read a table, in order of its primary key."""
    query = select(table).order_by(*table.__table__.primary_key)
    return [dict(row._mapping) for row in await database.read(Prepared(query).all)]


async def dump(database: Database) -> dict[str, list[Row]]:
    """Read every table."""

    def read(connection: Connection) -> dict[str, list[Row]]:
        found = {}
        for table in Base.metadata.sorted_tables:
            result = connection.execute(select(table).order_by(*table.primary_key))
            found[table.name] = [dict(row._mapping) for row in result]
        return found

    return await database.read(read)


WHAT_IS_REMEMBERED = (
    "turns",
    "turn_witnesses",
    "relationship_events",
    "relationship_states",
    "mood_impulses",
    "energy_spent",
    "persona_states",
    "memories",
    "memory_witnesses",
    "memory_uses",
)


async def remembered(database: Database) -> dict[str, list[Row]]:
    """Read what an exchange leaves behind; nothing of it may come from one that was not done."""
    found = await dump(database)
    return {name: found[name] for name in WHAT_IS_REMEMBERED}


@contextmanager
def watched(database: Database) -> Iterator[list[str]]:
    """Collect the statements that are run meanwhile; what begins and ends them is left out."""
    found: list[str] = []

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            found.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
