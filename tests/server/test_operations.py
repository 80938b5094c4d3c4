"""The registry, and the one strict validation of every operation's every argument."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.server.catalogue import operations
from persona_mcp.server.operations import REGISTRY, call_operation, rounded
from persona_mcp.server.service import Service, open_service
from persona_mcp.state.errors import InvalidParams, MethodNotFound, NotFound
from persona_mcp.state.validation import resolve
from tests.calls import call, dump, say
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
    *("conversation_status", "conversation_list", "conversation_history"),
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
READING = ["system_metrics"]
"""Those that change nothing, though not everybody may call them."""
GOOD: dict[str, dict[str, Any]] = {
    "persona_list": {},
    "persona_get": {"persona_id": "aria"},
    "persona_create": {"name": "Somebody"},
    "persona_switch": {"persona_id": "aria"},
    "persona_update": {"persona_id": "aria", "charisma": 12},
    "persona_delete": {"persona_id": "noor", "confirm": True},
    "persona_status": {"persona_id": "aria"},
    "persona_relationship": {"persona_id": "aria"},
    "persona_chat": {"persona_id": "aria", "message": "Hello."},
    "conversation_get": {"conversation_id": "c1"},
    "persona_prompt": {"persona_id": "aria", "message": "Hello."},
    "persona_record_turn": {"prompt_id": "p1", "response": "Hello."},
    "conversation_start": {"persona1_id": "aria", "persona2_id": "kira"},
    "conversation_status": {"conversation_id": "c1"},
    "conversation_end": {"conversation_id": "c1"},
    "conversation_advance": {"conversation_id": "c1"},
    "conversation_list": {},
    "conversation_history": {"conversation_id": "c1"},
    "memory_search": {"persona_id": "aria", "query": "boats"},
    "memory_store": {"persona_id": "aria", "content": "Tom sold the boat."},
    "memory_get": {"memory_id": "m1"},
    "memory_list": {"persona_id": "aria"},
    "memory_stats": {"persona_id": "aria"},
    "memory_search_cross_persona": {"persona_id": "aria", "query": "boats"},
    "memory_shared_stats": {},
    "persona_memory": {"persona_id": "aria", "query": "boats"},
    "memory_update": {"memory_id": "m1", "content": "Tom sold the boat."},
    "memory_delete": {"memory_id": "m1"},
    "memory_import": {"persona_id": "aria", "text": "Tom sold the boat."},
    "memory_export": {"persona_id": "aria"},
    "memory_prune": {"persona_id": "aria"},
    "memory_prune_all": {},
    "memory_prune_recommendations": {"persona_id": "aria"},
    "memory_prune_stats": {},
    "memory_decay_start": {},
    "memory_decay_stop": {},
    "memory_decay_stats": {},
    "memory_decay_force": {},
    "relationship_get": {"persona1_id": "aria", "persona2_id": "kira"},
    "relationship_list": {"persona_id": "aria"},
    "relationship_compatibility": {"persona1_id": "aria", "persona2_id": "kira"},
    "relationship_stats": {},
    "relationship_history": {"persona1_id": "aria", "persona2_id": "kira"},
    "relationship_graph": {},
    "relationship_update": {"persona1_id": "aria", "persona2_id": "kira"},
    "emotional_get_state": {"persona_id": "aria"},
    "emotional_update_state": {"persona_id": "aria", "mood": 0.5},
    "visual_update": {"persona_id": "aria", "description": "She wears a red coat."},
    "state_save": {},
    "state_load": {"confirm": True},
    "state_list": {},
    "state_export": {},
    "system_status": {},
    "system_models": {},
    "system_health": {},
    "system_metrics": {},
}
"""Arguments that are right, into which one wrong one is put."""


def schema_of(name: str, field: str) -> dict[str, Any]:
    root = REGISTRY[name].input_schema
    return {**resolve(root["properties"][field], root), "$defs": root.get("$defs", {})}


WRONG_KIND: dict[str, list[tuple[str, Any]]] = {
    "string": [("number", 5), ("list", ["x", 5]), ("control character", "a\x00b")],
    "integer": [("text", "4"), ("boolean", True), ("list", [4]), ("no whole number", 4.5)],
    "number": [("text", "4"), ("boolean", True), ("infinite", float("inf")), ("nan", float("nan"))],
    "boolean": [("text", "true"), ("number", 1)],
    "array": [("text", "4"), ("object", {}), ("list of others", ["x", 5])],
    "object": [("text", "4"), ("list", ["x", 5])],
}
BOUNDS: dict[str, Callable[[Any], Any]] = {
    "minimum": lambda low: low - 1,
    "maximum": lambda high: high + 1,
    "minLength": lambda _: "  ",
    "maxLength": lambda longest: "x" * (longest + 1),
    "pattern": lambda _: "né pas!",
    "enum": lambda _: "nobody knows it",
    "maxItems": lambda most: ["x"] * (most + 1),
    "maxProperties": lambda most: {f"k{n}": 1 for n in range(most + 1)},
}


def wrong_values(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Make values that a schema does not allow, each with what is wrong about it."""
    if "anyOf" in schema:  # of several kinds, none is a number or a list
        yield from [("number", 5), ("list", ["x", 5]), ("boolean", True)]
        return
    yield from WRONG_KIND[schema["type"]]
    for bound, beyond in BOUNDS.items():
        if bound in schema:
            yield f"beyond {bound}", beyond(schema[bound])


def faulty_calls() -> Iterator[Any]:
    for name in NAMES:
        for field in REGISTRY[name].arguments.model_fields:
            for what, value in wrong_values(schema_of(name, field)):
                yield pytest.param(name, field, value, id=f"{name}-{field}-{what}")


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


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_is_described_for_who_chooses_it(name: str) -> None:
    operation = REGISTRY[name]

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
    ]


@pytest.mark.parametrize(("name", "field", "value"), list(faulty_calls()))
async def test_a_wrong_argument_is_named_and_changes_nothing(
    talked: Service, name: str, field: str, value: Any
) -> None:
    before = await dump(talked.database)

    with pytest.raises(InvalidParams) as refused:
        await call(talked, name, **{**GOOD[name], field: value})

    error = refused.value
    assert error.data["field"].split(".")[0] == field
    assert error.data["allowed"] and error.data["given"]
    assert error.message.startswith(f"{error.data['field']}: allowed is {error.data['allowed']}")
    assert await dump(talked.database) == before


@pytest.mark.parametrize("name", NAMES)
async def test_an_unknown_argument_is_refused_with_the_nearest_name(
    talked: Service, name: str
) -> None:
    before = await dump(talked.database)

    with pytest.raises(InvalidParams) as refused:
        await call(talked, name, **GOOD[name], wurld_id="main")

    assert refused.value.data["field"] == "wurld_id"
    assert refused.value.data["allowed"].startswith("did you mean world_id?")
    assert await dump(talked.database) == before


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name in NAMES for field in REGISTRY[name].input_schema.get("required", [])],
)
async def test_a_missing_argument_is_named(talked: Service, name: str, field: str) -> None:
    arguments = {key: value for key, value in GOOD[name].items() if key != field}

    with pytest.raises(InvalidParams) as refused:
        await call(talked, name, **arguments)

    assert (refused.value.data["field"], refused.value.data["allowed"]) == (field, "required")


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


@pytest.mark.parametrize("name", NAMES)
async def test_another_world_is_not_found(talked: Service, name: str) -> None:
    with pytest.raises(NotFound, match="world 'elsewhere' not found"):
        await call(talked, name, **GOOD[name], world_id="elsewhere")


@pytest.mark.parametrize("name", NAMES)
async def test_every_result_is_what_its_schema_says(
    service: Service, model: ScriptedModel, name: str
) -> None:
    model.add("A red boat! Tom must love being seen.", "Hello.")
    first = await say(service, "My brother Tom has a red boat.")
    arguments = dict(GOOD[name])
    if name == "conversation_advance":
        talk = await call(service, "conversation_start", **GOOD["conversation_start"])
        arguments["conversation_id"] = talk["conversation_id"]
    elif "conversation_id" in arguments:
        arguments["conversation_id"] = first["conversation_id"]
    if name == "persona_record_turn":
        prompted = await call(service, "persona_prompt", **GOOD["persona_prompt"])
        arguments["prompt_id"] = prompted["prompt_id"]
    if name in ("relationship_get", "relationship_history"):
        arguments["persona2_id"] = "user"
    if name in ("memory_get", "memory_update"):
        arguments["memory_id"] = first["memory_ids"][0]
    if name in ("state_load", "state_export"):
        await call(service, "state_save")

    result = await call_operation(service, name, arguments)

    jsonschema.validate(result, REGISTRY[name].output_schema)


def test_numbers_are_rounded_for_show_only() -> None:
    value = {"a": [0.123456789, 1], "b": {"c": 1e-9}, "d": "0.123456789", "e": True}

    assert rounded(value) == {
        "a": [0.123457, 1],
        "b": {"c": 0.0},
        "d": "0.123456789",
        "e": True,
    }
