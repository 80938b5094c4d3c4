"""What a turn between personas does to those who are there, and whose turn comes after it."""

import time
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.nodes.chat_state import Consequences
from persona_mcp.nodes.dialogue_effects import last_turn, present_at
from persona_mcp.nodes.judging import judge_talk
from persona_mcp.server.dialogues import standing_of
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.dialogue import Standing
from tests.nodes.steps import state
from tests.talks import start

pytestmark = pytest.mark.anyio


async def begun(service: Service, **more: Any) -> Standing:
    talk = await start(service, **more)
    found = await service.conversations.get("main", talk["conversation_id"])
    return await standing_of(service, "main", found)


async def test_a_witness_that_was_deleted_meanwhile_hears_nothing(service: Service) -> None:
    standing = await begun(service, witnesses=["noor"])
    before = await present_at(service.parts, "main", standing)
    gone = update(tables.Persona).where(tables.Persona.id == "noor")
    with service.database.writing() as connection:
        connection.execute(gone.values(deleted_at=time.time(), name_key=None))

    after = await present_at(service.parts, "main", standing)

    assert [one.id for one in before] == ["aria", "kira", "noor"]
    assert [one.id for one in after] == ["aria", "kira"]


@pytest.mark.parametrize(("most", "ends"), [(1, "time_limit"), (2, None)])
async def test_the_last_turn_that_a_talk_may_have_ends_it(
    service: Service, most: int, ends: str | None
) -> None:
    assert last_turn(await begun(service, max_turns=most)) == ends


@pytest.mark.parametrize(("ends", "after"), [(None, "kira"), ("tired", None)])
async def test_the_other_one_is_next_unless_the_talk_is_over(
    service: Service, ends: str | None, after: str | None
) -> None:
    left: Any = {
        "standing": await begun(service),
        "speaker": "aria",
        "consequences": Consequences((), (), (), (), ends),
    }

    assert (await judge_talk(service.parts, state(**left)))["next_speaker"] == after  # type: ignore[arg-type]
