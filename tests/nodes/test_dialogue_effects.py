"""What a turn between personas does to those who are there, and whose turn comes after it."""

import time
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.nodes.dialogue_effects import heard_by, last_turn
from persona_mcp.server.dialogues import standing_of
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.dialogue import Standing
from tests.talks import start

pytestmark = pytest.mark.anyio


async def begun(service: Service, **more: Any) -> Standing:
    talk = await start(service, **more)
    found = await service.conversations.get("main", talk["conversation_id"])
    return await standing_of(service, "main", found)


async def test_a_witness_that_was_deleted_meanwhile_hears_nothing(service: Service) -> None:
    talk = await start(service, witnesses=["noor"])
    found = await service.conversations.get("main", talk["conversation_id"])
    before = await standing_of(service, "main", found)
    gone = update(tables.Persona).where(tables.Persona.id == "noor")
    with service.database.writing() as connection:
        connection.execute(gone.values(deleted_at=time.time(), name_key=None))

    after = await standing_of(service, "main", found)

    aria = before.member("aria").persona
    assert [one.id for one in heard_by(before, aria)] == ["aria", "kira", "noor"]
    assert [one.id for one in heard_by(after, aria)] == ["aria", "kira"]


@pytest.mark.parametrize(("most", "ends"), [(1, "time_limit"), (2, None)])
async def test_the_last_turn_that_a_talk_may_have_ends_it(
    service: Service, most: int, ends: str | None
) -> None:
    assert last_turn(await begun(service, max_turns=most)) == ends
