"""Memories from outside: searched, stored, read, listed, counted."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import Conflict, InvalidParams, NoCurrentPersona, NotFound
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
    best = found["memories"][0]
    assert set(best["score_parts"]) == {
        *("dense", "lexical", "session", "speaker", "date", "question", "length"),
        *("previous", "next"),
    }
    assert (best["retention"], best["effective_importance"]) == (1.0, best["importance"])


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
    await call(talked, "memory_search", persona_id="aria", query="Tom's boat", reinforce=True)
    assert 2 in await uses()


async def test_a_search_names_whose_memories(talked: Service) -> None:
    with pytest.raises(NoCurrentPersona):
        await call(talked, "memory_search", query="boats")
    with pytest.raises(NotFound):
        await call(talked, "memory_search", query="boats", persona_id="nobody")


async def told(service: Service, content: str, **more: object) -> dict[str, Any]:
    return await call(service, "memory_store", **{"persona_id": "aria", "content": content, **more})


async def test_what_a_persona_is_told_is_found_by_its_words_at_once_and_weighed(
    service: Service,
) -> None:
    stored = await told(service, "The password of the gate is swordfish!", memory_type="secret")

    found = await call(service, "memory_search", persona_id="aria", query="password")

    assert stored["stored"]
    assert stored["importance_terms"]["type_factor"] == 1.5
    (memory,) = found["memories"]
    assert (memory["id"], memory["memory_type"]) == (stored["memory_id"], "secret")
    assert memory["importance"] == stored["importance"]
    assert set(memory["score_parts"]) == {"dense", "lexical", "session"}


async def test_a_memory_is_read_as_it_was_stored(service: Service) -> None:
    given: dict[str, Any] = {
        "importance": 0.4,
        "emotional_valence": -0.5,
        "visibility": "shared",
        "related_personas": ["Kira", "kira"],
        "witnesses": ["Kira"],
        "metadata": {"visibility": "public", "deep": {"a": [1]}},
        "pinned": True,
    }
    stored = await told(service, " Tom  sold the boat. ", **given)

    memory = (await call(service, "memory_get", memory_id=stored["memory_id"]))["memory"]

    assert memory["content"] == memory["indexed_text"] == "Tom  sold the boat."
    assert {key: memory[key] for key in ("importance", "emotional_valence", "visibility")} == {
        "importance": 0.4,
        "emotional_valence": -0.5,
        "visibility": "shared",
    }
    assert (memory["related_personas"], memory["witnesses"]) == (["kira"], ["aria", "kira"])
    assert (memory["metadata"], memory["pinned"]) == (given["metadata"], True)
    assert (memory["importance_terms"], memory["source_turn"]) == ({}, None)
    assert (memory["version"], memory["last_used_at"], memory["archived_at"]) == (1, None, None)
    with pytest.raises(NotFound, match="memory 'nowhere'"):
        await call(service, "memory_get", memory_id="nowhere")


@pytest.mark.parametrize(
    ("visibility", "related", "witnesses", "finds"),
    [
        ("private", [], [], False),
        ("private", ["kira"], ["kira"], False),
        ("shared", [], [], False),
        ("shared", ["kira"], [], True),
        ("shared", [], ["kira"], True),
        ("public", [], [], True),
    ],
)
async def test_another_finds_what_is_open_to_it_alone(
    service: Service, visibility: str, related: list[str], witnesses: list[str], finds: bool
) -> None:
    open_to = {"visibility": visibility, "related_personas": related, "witnesses": witnesses}
    await told(service, "The gate opens at midnight.", **open_to)

    found = await call(service, "memory_search", persona_id="kira", query="gate midnight")

    assert found["result_count"] == int(finds)


async def test_the_same_request_stores_once_and_another_one_under_its_name_is_refused(
    service: Service,
) -> None:
    first, again = [await told(service, "Tom sold the boat.", request_id="r1") for _ in range(2)]

    assert first == again
    with pytest.raises(Conflict, match="request_id"):
        await told(service, "Tom bought a boat.", request_id="r1")
    assert len(await rows(service.database, tables.Memory)) == 1
    assert len(await rows(service.database, tables.OutboxEntry)) <= 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", ""),
        ("content", "x" * 20_001),
        ("memory_type", "User Input"),
        ("importance", 1.1),
        ("importance", True),
        ("emotional_valence", "0.5"),
        ("visibility", "friends"),
        ("related_personas", ["kira"] * 33),
        ("metadata", {"a": {"b": {"c": {"d": {}}}}}),
        ("metadata", {"a": "x" * 5000}),
        ("pinned", 1),
    ],
)
async def test_what_cannot_be_stored_is_refused_and_changes_nothing(
    service: Service, field: str, value: object
) -> None:
    with pytest.raises(InvalidParams, match=field):
        given: dict[str, Any] = {"content": "Tom sold the boat.", field: value}
        await told(service, **given)

    assert await rows(service.database, tables.Memory) == []


async def test_a_memory_is_not_shared_with_nobody(service: Service) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await told(service, "Tom sold the boat.", related_personas=["nobody"])

    assert await rows(service.database, tables.Memory) == []


async def test_memories_are_listed_page_by_page_in_the_order_asked_for(service: Service) -> None:
    for number, importance in enumerate((0.2, 0.9, 0.5)):
        await told(service, f"memory {number}", importance=importance, memory_type="fact")
    await told(service, "a secret", importance=0.1, memory_type="secret", visibility="public")
    await told(service, "of another", persona_id="kira")

    async def listed(**more: object) -> tuple[list[str], int, str | None]:
        found = await call(service, "memory_list", persona_id="aria", **more)
        contents = [memory["content"] for memory in found["memories"]]
        return contents, found["total_count"], found["next_cursor"]

    newest = ["a secret", "memory 2", "memory 1", "memory 0"]
    assert await listed() == (newest, 4, None)
    assert await listed(limit=3) == (newest[:3], 4, "3")
    assert await listed(limit=3, cursor="3") == (newest[3:], 4, None)
    assert (await listed(order="importance"))[0] == ["memory 1", "memory 2", "memory 0", "a secret"]
    assert (await listed(memory_type="secret"))[0] == ["a secret"]
    assert (await listed(visibility="private"))[1] == 3
    assert (await listed(archived=True))[1] == 0
    assert (await listed(since="2020-01-01T00:00:00Z"))[1] == 4
    assert (await listed(until="2020-01-01T00:00:00+02:00"))[1] == 0
    look = {"persona_id": "aria", "query": "memory 0", "n_results": 1}
    await call(service, "memory_search", **look, reinforce=True)
    assert (await listed(order="accessed"))[0][0] == "memory 0"
    for wrong in ({"since": "yesterday"}, {"since": "2020-01-01T00:00:00"}, {"until": 5}):
        with pytest.raises(InvalidParams, match="RFC 3339"):
            await listed(**wrong)
    with pytest.raises(InvalidParams, match="after since"):
        await listed(since="2021-01-01T00:00:00Z", until="2020-01-01T00:00:00Z")


async def test_memories_are_counted(service: Service) -> None:
    assert (await call(service, "memory_stats", persona_id="aria"))["total_memories"] == 0
    await told(service, "a fact", importance=0.2, memory_type="fact")
    await told(service, "another", importance=0.8, memory_type="fact", pinned=True)
    gone = await told(service, "archived", importance=0.9)
    with service.database.writing() as connection:
        table = tables.Memory
        archived = update(table).where(table.id == gone["memory_id"]).values(archived_at=1.0)
        connection.execute(archived)

    found = await call(service, "memory_stats", persona_id="aria")

    assert found.pop("stats_calculation_time_ms") > 0
    assert found == {
        "persona_id": "aria",
        "total_memories": 2,
        "avg_importance": 0.5,
        "memory_types": {"fact": 2},
        "high_importance_count": 1,
        "created_today": 2,
        "pinned_count": 1,
        "archived_count": 1,
        "importance_histogram": [0, 0, 1, 0, 0, 0, 0, 0, 1, 0],
        "retention_histogram": [0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    }
