"""Memories across personas: found where they are open, told with whose they are, counted."""

from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state.errors import NotFound
from tests.calls import call

pytestmark = pytest.mark.anyio


async def told(service: Service, content: str, **more: Any) -> str:
    given = {"persona_id": "aria", "content": content, "importance": 0.7, **more}
    return str((await call(service, "memory_store", **given))["memory_id"])


async def indexed(service: Service) -> None:
    while await service.indexer.work_off() or await service.indexer.pending():
        pass


@pytest.fixture
async def gates(service: Service) -> dict[str, str]:
    """Memories of gates: Kira's own, and Aria's, open in each way; their ids by name."""
    ids = {
        "own": await told(service, "The north gate is shut.", persona_id="kira"),
        "public": await told(service, "The south gate is open.", visibility="public"),
        "named": await told(
            service, "The east gate is hidden.", visibility="shared", related_personas=["kira"]
        ),
        "there": await told(
            service, "The west gate is burnt.", visibility="shared", witnesses=["kira"]
        ),
        "shared with others": await told(
            service, "The gate of the garden is new.", visibility="shared", witnesses=["noor"]
        ),
        "private": await told(service, "The last gate is a secret.", witnesses=["kira"]),
    }
    await indexed(service)
    return ids


async def across(service: Service, **more: Any) -> dict[str, Any]:
    given = {"persona_id": "Kira", "query": "Which gate is there?", **more}
    return await call(service, "memory_search_cross_persona", **given)


@pytest.mark.parametrize(
    ("narrowed", "names"),
    [
        ({}, {"own", "public", "named", "there"}),
        ({"include_shared": False}, {"own", "public"}),
        ({"include_public": False}, {"own", "named", "there"}),
        ({"include_shared": False, "include_public": False}, {"own"}),
        ({"min_importance": 0.8}, set()),
    ],
)
async def test_a_persona_finds_its_own_and_what_is_open_to_it(
    service: Service, gates: dict[str, str], narrowed: dict[str, Any], names: set[str]
) -> None:
    found = await across(service, **narrowed)

    assert {memory["memory_id"] for memory in found["memories"]} == {gates[n] for n in names}
    assert found["total_results"] == len(names)
    defaults = {
        "n_results": 10,
        "min_importance": 0.6,
        "include_shared": True,
        "include_public": True,
    }
    assert found["search_params"] == {**defaults, **narrowed}


async def test_it_is_told_whose_a_memory_is_and_how_near_it_truly_is(
    service: Service, gates: dict[str, str]
) -> None:
    found = await across(service, query="north gate")

    memories = {memory["memory_id"]: memory for memory in found["memories"]}
    own, public = memories[gates["own"]], memories[gates["public"]]
    assert found["requesting_persona"] == "kira"
    assert (own["source"], own["source_persona"]) == ("own", "kira")
    assert (public["source"], public["source_persona"]) == ("cross_persona", "aria")
    assert 0 < public["similarity"] < own["similarity"] < 1
    assert found["memories"][0] == own


async def test_what_is_open_is_counted_by_persona(service: Service, gates: dict[str, str]) -> None:
    found = await call(service, "memory_shared_stats")

    assert found.pop("timestamp").endswith("Z")
    assert found["shared_memory_statistics"] == {
        "total_personas": await service.personas.count("main"),
        "shared_memories": 3,
        "public_memories": 1,
        "cross_references": 1,
        "by_persona": {"aria": {"shared": 3, "public": 1, "cross_references": 1}},
    }


async def test_by_the_old_name_a_blank_query_gives_the_newest(
    service: Service, gates: dict[str, str]
) -> None:
    newest = await call(service, "persona_memory", persona_id="aria", query="  ", limit=2)
    found = await call(service, "persona_memory", persona_id="aria", query="south gate", limit=1)

    assert [memory["id"] for memory in newest["memories"]] == [
        gates["private"],
        gates["shared with others"],
    ]
    assert (newest["query"], newest["total_found"]) == ("", 2)
    assert [memory["id"] for memory in found["memories"]] == [gates["public"]]
    assert set(found["memories"][0]) == {
        *("id", "content", "importance", "memory_type", "created_at"),
    }
    with pytest.raises(NotFound):
        await call(service, "persona_memory", persona_id="nobody")
