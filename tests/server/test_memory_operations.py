"""Searching memories from outside."""

import asyncio

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import NoCurrentPersona, NotFound
from tests.calls import call, rows, say
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio


@pytest.fixture
async def talked(service: Service, model: ScriptedModel) -> Service:
    model.add("A red boat! Tom must love being seen.", "Rain, always rain.")
    first = await say(service, "My brother Tom has a red boat.")
    await say(service, "How is the weather?", conversation_id=first["conversation_id"])
    async with asyncio.timeout(20):
        while await service.indexer.pending():
            await asyncio.sleep(0.01)
    return service


async def test_a_search_finds_what_was_said_the_best_first(talked: Service) -> None:
    found = await call(talked, "memory_search", persona_id="Aria", query="Tom's boat", n_results=2)

    assert (found["query"], found["result_count"], found["degraded"]) == ("Tom's boat", 2, None)
    assert {m["content"] for m in found["memories"]} == {
        "My brother Tom has a red boat.",
        "A red boat! Tom must love being seen.",
    }
    scores = [m["score"] for m in found["memories"]]
    assert scores == sorted(scores, reverse=True)
    assert {m["speaker_id"] for m in found["memories"]} == {"user", "aria"}
    assert set(found["memories"][0]["score_parts"]) == {"dense", "lexical"}


async def test_nobody_finds_what_another_has_heard(talked: Service) -> None:
    found = await call(talked, "memory_search", persona_id="kira", query="Tom's red boat")

    assert (found["memories"], found["result_count"]) == ([], 0)


async def test_a_search_is_narrowed_by_type_and_importance(talked: Service) -> None:
    async def count(**more: object) -> int:
        found = await call(talked, "memory_search", persona_id="aria", query="Tom boat", **more)
        return int(found["result_count"])

    assert await count(memory_type="conversation") == await count() == 4
    assert await count(memory_type="secret") == 0
    assert await count(min_importance=1.0) == 0


async def test_looking_is_no_use_and_being_recalled_is(
    talked: Service, model: ScriptedModel
) -> None:
    async def uses() -> set[int]:
        found = await call(talked, "memory_search", persona_id="aria", query="Tom's boat")
        return {m["accessed_count"] for m in found["memories"]}

    assert await uses() == {0}
    model.add("Red.")
    await say(talked, "Which colour has Tom's boat?")

    assert 1 in await uses()
    assert len(await rows(talked.database, tables.MemoryUse)) == 4


async def test_a_search_names_whose_memories(talked: Service) -> None:
    with pytest.raises(NoCurrentPersona):
        await call(talked, "memory_search", query="boats")
    with pytest.raises(NotFound):
        await call(talked, "memory_search", query="boats", persona_id="nobody")
