from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, delete, update

from persona_mcp.state.database import Database
from persona_mcp.state.memory.stamps import EVERYBODY
from persona_mcp.state.tables import Memory, MemoryStamp
from tests.state.rows import NOW, remember, rows_of

pytestmark = [pytest.mark.anyio, pytest.mark.databases]


async def stamps(database: Database) -> dict[str, int]:
    rows = await rows_of(database, MemoryStamp.__table__, MemoryStamp.owner)
    return {row.owner: row.stamp for row in rows}


Change = Callable[[Connection], Any]


def values(**more: Any) -> Change:
    return lambda connection: connection.execute(
        update(Memory).where(Memory.id == "m1").values(**more)
    )


def deleted(connection: Connection) -> None:
    connection.execute(delete(Memory).where(Memory.id == "m1"))


@pytest.mark.parametrize(
    ("visibility", "change", "stamped"),
    [
        ("private", values(content="Else.", indexed_text="Else."), {"mara"}),
        ("private", values(active=False), {"mara"}),
        ("private", values(archived_at=NOW), {"mara"}),
        ("private", values(memory_type="fact"), {"mara"}),
        ("public", values(archived_at=NOW), {"mara", EVERYBODY}),
        ("private", values(visibility="public"), {"mara", EVERYBODY}),
        ("shared", values(visibility="private"), {"mara", EVERYBODY}),
        ("shared", values(related_personas=["tobin"]), {"mara", EVERYBODY}),
        ("private", deleted, {"mara"}),
        ("public", deleted, {"mara", EVERYBODY}),
        ("public", values(importance=0.1, pinned=True, details={"a": 1}), set()),
    ],
)
async def test_a_change_stamps_the_owner_and_everybody_where_it_is_open(
    database: Database, world: str, visibility: str, change: Change, stamped: set[str]
) -> None:
    await remember(database, "m1", "The harbour froze.", visibility=visibility)
    await remember(database, "t1", "A dog barked.", persona_id="tobin")
    before = await stamps(database)

    with database.writing() as connection:
        change(connection)

    after = await stamps(database)
    assert {owner for owner in after if after[owner] != before.get(owner)} == stamped
