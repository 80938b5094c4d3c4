from dataclasses import astuple

import pytest

from persona_mcp.state.database import Database
from persona_mcp.state.memory.sharing import count_open
from persona_mcp.state.personas import PersonaStore
from tests.state.rows import NOW, remember

pytestmark = pytest.mark.anyio


async def test_what_is_open_is_counted_by_owner_in_one_world(
    database: Database, world: str
) -> None:
    await PersonaStore(database).ensure_world("other", "other", [], NOW)
    await remember(database, "m1", "private")
    await remember(database, "m2", "private, naming somebody", related=["tobin"])
    await remember(database, "m3", "shared", visibility="shared", related=["tobin"])
    await remember(database, "m4", "public", visibility="public")
    await remember(database, "m5", "public", visibility="public", persona_id="tobin")
    for id, values in (("m6", {"archived_at": NOW}), ("m7", {"active": False})):
        await remember(database, id, "gone", visibility="public", values=values)
    await remember(database, "m8", "elsewhere", visibility="public", world_id="other")
    await remember(database, "m9", "of nobody", visibility="public", persona_id="deleted")

    with database.reading() as connection:
        found = count_open(connection, world)

    assert {id: astuple(counts) for id, counts in found.items()} == {
        "mara": (1, 1, 2),
        "tobin": (0, 1, 0),
    }
