"""What stands before an exchange."""

from typing import Any

import pytest

from persona_mcp.nodes.loading import load_scene
from persona_mcp.nodes.parts import ChatContext, ChatIds
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from tests.calls import rows, say
from tests.doubles import ScriptedModel
from tests.nodes.steps import Writer, state

pytestmark = pytest.mark.anyio


async def test_the_window_ends_with_the_exchange_that_is_followed(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.", "Two.")
    first = await say(service, "First?")
    where = first["conversation_id"]
    await say(service, "Second?", conversation_id=where)
    before = state(conversation_id=where, follows=first["exchange_id"])

    loaded = await load_scene(service.parts, before, Writer().runtime)

    assert [turn.content for turn in loaded["scene"].window] == ["First?", "One."]
    assert loaded["head"] == first["exchange_id"]


async def test_without_a_word_of_it_the_checkpoints_exchange_is_followed(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.")
    first = await say(service, "First?")
    before = state(conversation_id=first["conversation_id"], head=first["exchange_id"])

    loaded = await load_scene(service.parts, before, Writer().runtime)

    assert len(loaded["scene"].window) == 2


async def test_a_run_without_an_exchange_is_given_one(
    service: Service, model: ScriptedModel
) -> None:
    model.add("One.")
    first = await say(service, "First?")

    async def accept(_: Any, context: ChatContext) -> ChatIds:
        where = first["conversation_id"]
        return ChatIds(world_id="main", conversation_id=where, exchange_id=context.persona_id)

    parts = type(service.parts)(**{**vars(service.parts), "accept": accept})

    loaded = await load_scene(parts, state(), Writer(persona_id="kira").runtime)

    assert (loaded["conversation_id"], loaded["exchange_id"]) == (first["conversation_id"], "kira")
    assert await rows(service.database, tables.Exchange) != []
