"""The end of a talk between personas: what each of them keeps of it."""

from typing import Any

import pytest

from persona_mcp.nodes.casting import standing_after
from persona_mcp.nodes.judging import close_talk
from persona_mcp.server.service import Service
from persona_mcp.state import conversations, tables
from persona_mcp.state.dialogue import Whisper
from persona_mcp.state.summarising import SUMMARY
from tests.calls import WHAT_IS_REMEMBERED, dump, rows
from tests.companies import begin, hold, looped, plan
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio

KEPT = (*WHAT_IS_REMEMBERED, "conversations", "exchanges")
THREE = ("anna", "boris", "cecil")
LINES = (
    "The harbour froze early this winter.",
    "My grandmother repaired violins for sailors.",
    "Somebody painted every lighthouse green.",
    "Seventeen geese crossed our orchard yesterday.",
)


async def closed_again(service: Service, talk: str, **more: Any) -> None:
    found = await service.database.read(conversations.get, "main", talk)
    where = ("main", talk, found.head_exchange_id)
    standing = await service.database.read(standing_after, service.parts, *where)
    left: Any = {
        "world_id": "main",
        "conversation_id": talk,
        "head": found.head_exchange_id,
        "standing": standing,
        "ends": "time_limit",
        **more,
    }
    await close_talk(service.parts, left)


async def test_each_keeps_what_it_heard_summed_up_and_closing_again_changes_nothing(
    service: Service, model: ScriptedModel
) -> None:
    whispered = Whisper(turn=2, to=["anna"])
    model.add(*LINES)
    talk = await begin(service, THREE, plan("anna", max_turns=4, whispers=(whispered,)))
    await hold(looped(service), talk, 4)

    made = [m for m in await rows(service.database, tables.Memory) if m["memory_type"] == SUMMARY]

    assert sorted(m["persona_id"] for m in made) == sorted(THREE)
    assert {m["persona_id"]: "violins" in m["content"] for m in made} == {
        "anna": True,
        "boris": True,
        "cecil": False,
    }
    before = await dump(service.database)
    await closed_again(service, talk)
    after = await dump(service.database)
    assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}


async def test_a_talk_that_no_turn_ended_is_ended_with_its_reason(
    service: Service, model: ScriptedModel
) -> None:
    model.add(*LINES[:2])
    talk = await begin(service, THREE, plan("anna"))
    await hold(looped(service), talk, 2)

    await closed_again(service, talk, ends="condition")

    found = (await rows(service.database, tables.Conversation))[0]
    assert (found["status"], found["exit_reason"]) == ("ended", "condition")
