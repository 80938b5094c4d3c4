"""The registry, and the one strict validation of every operation's every argument."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.modules import MODULES
from persona_mcp.server.operations.registry import operation_named, rounded
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.errors import InvalidParams, MethodNotFound
from tests.calls import call, say
from tests.doubles import ScriptedModel, WordEmbedder

pytestmark = pytest.mark.anyio

NAMES = [
    "persona_list",
    "persona_get",
    "persona_create",
    "persona_switch",
    "persona_update",
    "persona_delete",
    "persona_status",
    "persona_relationship",
    "persona_import",
    "persona_export",
    "persona_chat",
    "conversation_get",
    "persona_prompt",
    "persona_record_turn",
    "conversation_start",
    "conversation_status",
    "conversation_end",
    "conversation_advance",
    "conversation_list",
    "conversation_history",
    "dialogue_start",
    "dialogue_status",
    "dialogue_cancel",
    "dialogue_list",
    "dialogue_result",
    "memory_search",
    "memory_store",
    "memory_get",
    "memory_list",
    "memory_stats",
    "memory_search_cross_persona",
    "memory_shared_stats",
    "persona_memory",
    "memory_update",
    "memory_delete",
    "memory_import",
    "memory_export",
    "memory_prune",
    "memory_prune_all",
    "memory_prune_recommendations",
    "memory_prune_stats",
    "memory_decay_start",
    "memory_decay_stop",
    "memory_decay_stats",
    "memory_decay_force",
    "relationship_get",
    "relationship_list",
    "relationship_compatibility",
    "relationship_stats",
    "relationship_history",
    "relationship_graph",
    "relationship_update",
    "emotional_get_state",
    "emotional_update_state",
    "visual_update",
    "state_save",
    "state_load",
    "state_list",
    "state_export",
    "system_status",
    "system_models",
    "system_health",
    "system_metrics",
]
BESIDE = [
    *("persona_prompt", "persona_record_turn"),
    *("persona_import", "persona_export"),
    *("conversation_status", "conversation_list", "conversation_history"),
    *("dialogue_cancel", "dialogue_list"),
    *("memory_get", "memory_list", "memory_stats"),
    *("memory_search_cross_persona", "memory_shared_stats", "persona_memory"),
    *("memory_update", "memory_delete", "memory_import", "memory_export"),
    *("memory_prune", "memory_prune_all", "memory_prune_recommendations", "memory_prune_stats"),
    *("memory_decay_start", "memory_decay_stop", "memory_decay_stats", "memory_decay_force"),
    *("relationship_compatibility", "relationship_stats"),
    *("relationship_history", "relationship_graph"),
    *("relationship_update", "emotional_get_state", "emotional_update_state"),
    *("persona_update", "persona_delete", "persona_relationship", "visual_update"),
    *("system_models", "system_health", "system_metrics"),
    *("state_save", "state_load", "state_list", "state_export"),
]
"""Those that the core toolset leaves out."""
REPEATABLE = [
    *("persona_update", "persona_record_turn"),
    *("memory_update", "memory_delete", "memory_import"),
]
"""Those that change something, and the same call again nothing more."""
READING = ["persona_export", "memory_export", "state_export", "system_metrics"]
"""Those that change nothing, though not everybody may call them."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def talked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A service for many refused calls: one conversation has been had, and all of it is indexed."""
    folder: Path = tmp_path_factory.mktemp("operations")
    settings = Settings(_env_file=None, data_dir=folder, index=IndexSettings(kind="exact"))
    model = ScriptedModel("A red boat! Tom must love being seen.")
    async with open_service(settings, model, WordEmbedder()) as service:
        await say(service, "My brother Tom has a red boat.", conversation_id=None)
        while await service.indexer.pending():
            await service.indexer.work_off()
        yield service


def test_the_registry_has_the_operations_in_their_order() -> None:
    assert [o.name for o in operations("all")] == NAMES
    assert [o.name for o in operations()] == [name for name in NAMES if name not in BESIDE]


def test_every_operation_is_found_in_the_module_that_has_it() -> None:
    found = {o.name: o.run.__module__ for o in operations("all")}

    assert found == MODULES


OWN_WORDS = ("Your name", "From persona_switch", "World; left out")
"""Ids that no operation gives."""


@pytest.mark.parametrize("name", NAMES)
def test_every_id_that_an_operation_takes_says_where_it_comes_from(name: str) -> None:
    for field, schema in operation_named(name).input_schema["properties"].items():
        if field in ("id", "ids", "viewer") or field.endswith(("_id", "_ids")):
            told = schema["description"]
            assert any(o in told for o in NAMES) or told.startswith(OWN_WORDS), field


@pytest.mark.parametrize("name", NAMES)
def test_the_first_sentence_of_an_operation_says_what_it_does(name: str) -> None:
    first = operation_named(name).description.split(". ")[0]

    assert re.match(r"[A-Z][a-z]+ ", first), "it begins with what is done"
    assert 20 <= len(first) <= 120
    assert operation_named(name).description.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_the_hints_of_an_operation_agree_with_what_it_may_do(name: str) -> None:
    operation = operation_named(name)
    words = operation.name.split("_")

    if operation.read_only:
        assert not operation.destructive
        assert operation.idempotent
    if {"delete", "purge"} & set(words):
        assert operation.destructive
    if {"get", "list", "stats", "status", "search", "history"} & set(words):
        assert operation.read_only
    assert operation.scope in ("read", "chat", "manage", "admin")


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_is_described_for_who_chooses_it(name: str) -> None:
    operation = operation_named(name)

    assert re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name)
    assert operation.title and "\n" not in operation.description
    assert 40 <= len(operation.description) <= 1024
    for field, schema in operation.input_schema.get("properties", {}).items():
        assert schema.get("description"), field
    assert operation.input_schema["additionalProperties"] is False
    assert operation.read_only == (operation.scope == "read" or name in READING)
    assert operation.idempotent == (operation.read_only or name in REPEATABLE)


def test_only_what_has_a_persona_speak_reaches_out_to_a_model() -> None:
    assert [o.name for o in operations("all") if o.open_world] == [
        "persona_chat",
        "conversation_advance",
        "dialogue_start",
    ]


async def test_every_fault_of_a_call_is_listed(talked: Service) -> None:
    with pytest.raises(InvalidParams) as refused:
        await call(talked, "persona_list", limit=0, tag=5, available="yes")

    assert {fault["field"] for fault in refused.value.data["errors"]} == {
        "limit",
        "tag",
        "available",
    }


async def test_a_whole_number_may_be_written_with_a_point(talked: Service) -> None:
    found = await call(talked, "persona_list", limit=1.0)

    assert len(found["personas"]) == 1


async def test_null_counts_as_absent_and_what_old_clients_send_is_ignored(talked: Service) -> None:
    found = await call(talked, "persona_list", limit=None, tag=None, _meta={}, websocket_id="w1")

    assert found["total_count"] == 3


async def test_an_unknown_operation_suggests_a_known_one(talked: Service) -> None:
    with pytest.raises(MethodNotFound) as near:
        await call(talked, "persona_chatt")
    with pytest.raises(MethodNotFound) as far:
        await call(talked, "xyzzy")

    assert near.value.data["suggestions"][0] == "persona_chat"
    assert near.value.message.startswith(
        "operation 'persona_chatt' not found; did you mean persona_chat"
    )
    assert far.value.message == "operation 'xyzzy' not found"


def test_numbers_are_rounded_for_show_only() -> None:
    value = {"a": [0.123456789, 1], "b": {"c": 1e-9}, "d": "0.123456789", "e": True}

    assert rounded(value) == {
        "a": [0.123457, 1],
        "b": {"c": 0.0},
        "d": "0.123456789",
        "e": True,
    }
