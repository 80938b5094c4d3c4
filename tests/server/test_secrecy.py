"""Who was not there learns nothing: every operation is called as one who may not know a secret."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest

from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.registry import Operation
from persona_mcp.server.service import Service
from persona_mcp.state.errors import InvalidParams, PersonaError
from persona_mcp.state.memory.memory import NewMemory
from persona_mcp.state.memory.store import add_memories
from persona_mcp.state.validation import resolve
from tests.calls import call, say
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio

TOKEN = "zyzzyva"
SECRET = f"The password of the gate is {TOKEN}."
ASKED = "What is the password of the gate?"
READER = "kira"
OTHERS = ("noor", "ann")
"""Who may have been there beside Aria; the reader never was."""

EXEMPT = {
    "memory_get": "reads by id, for whoever manages the owner of the memory",
    "dialogue_result": "tells what was said in dialogues, to whoever had them held",
    "state_export": "carries the whole world out, for whoever manages it",
}
"""Operations that show what the caller manages, and not what a persona knows; each with its why."""

FIELDS: dict[str, Any] = {
    "persona_id": READER,
    "persona1_id": READER,
    "persona2_id": "aria",
    "viewer": READER,
    "user_id": "bob",
    "query": ASKED,
    "card": {"name": "Mira"},
    "message": ASKED,
    "n_results": 100,
    "limit": 100,
    "min_importance": 0.0,
    "include_archived": True,
    "archived": True,
    "dry_run": True,
    "memory_id": "s0",
    "mood": 0.1,
    "content": "Somebody asked me about the gate.",
    "text": "Somebody asked me about the gate.",
    "spec": {"personas": {READER: None, "tom": {"persona": {"name": "Tom"}}}},
}
"""What an argument is given wherever an operation takes one of this name."""
LEFT_OUT = {
    "persona_chat": ("conversation_id",),  # the reader's own talk; the secret one is not its
    "persona_prompt": ("conversation_id",),
    "memory_list": ("archived",),
}
"""Of those, what an operation is called without."""
OPERATIONS = {operation.name: operation for operation in operations("all")}


async def plant(service: Service, model: ScriptedModel) -> str:
    """Let Aria know the secret in every way but the reader's; return the talk where it was said."""
    ways = itertools.product(
        ("private", "shared"), ((), ("noor",), ("noor", "aria")), ((), OTHERS[:1], OTHERS)
    )
    secrets = [
        NewMemory(
            id=f"s{number}",
            persona_id="aria",
            content=SECRET,
            importance=1.0,
            importance_terms={},
            witnesses=witnesses,
            visibility=visibility,
            related_personas=related,
            details={"note": TOKEN},
        )
        for number, (visibility, related, witnesses) in enumerate(ways)
    ]
    with service.database.writing() as connection:
        add_memories(connection, "main", secrets, 1_700_000_000.0)
    model.add(f"I will keep it, {TOKEN}.")
    talk = await say(service, SECRET, user_id="ann")
    told = {"persona_id": "noor", "content": SECRET, "told_by": "aria", "source_memory_id": "s0"}
    await call(service, "memory_store", **told)
    while await service.indexer.work_off() or await service.indexer.pending():
        pass
    model.history.clear()
    return str(talk["conversation_id"])


def arguments_of(operation: Operation, talk: str) -> dict[str, Any]:
    """Make arguments from the operation's own model; the rest is left to its default."""
    schema = operation.input_schema
    left_out = LEFT_OUT.get(operation.name, ())
    known, given = {**FIELDS, "conversation_id": talk}, {}
    for name, field in operation.arguments.model_fields.items():
        if name in known and name not in left_out:
            given[name] = known[name]
        elif field.is_required():
            given[name] = example_of(resolve(schema["properties"][name], schema))
    return given


def example_of(schema: Mapping[str, Any]) -> Any:
    """Make a value that a schema allows."""
    if "enum" in schema or "const" in schema:
        return schema.get("const") or schema["enum"][0]
    match schema.get("type"):
        case "string":
            return "Somebody"[: schema.get("maxLength")]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return [example_of(schema["items"])] * schema.get("minItems", 1)
        case "object":
            return {}
    raise AssertionError(f"say in FIELDS what this argument is to be: {schema}")


async def answer_of(service: Service, name: str, talk: str, **changed: Any) -> str:
    """Call an operation as the reader and return all that it answers, an error too."""
    given = arguments_of(OPERATIONS[name], talk)
    try:
        result = await call(service, name, **{**given, **changed})
    except InvalidParams as error:
        pytest.fail(f"{name}: {error.message}; say in FIELDS what it is to be called with")
    except PersonaError as error:
        return json.dumps({"message": error.message, "data": error.data}, default=str)
    return json.dumps(result)


def test_what_is_exempt_is_an_operation() -> None:
    assert set(EXEMPT) | set(LEFT_OUT) <= set(OPERATIONS)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - set(EXEMPT)))
async def test_no_operation_tells_a_secret_to_one_who_was_not_there(
    service: Service, model: ScriptedModel, name: str
) -> None:
    talk = await plant(service, model)
    model.add(*["Nobody told me."] * 3)

    answer = await answer_of(service, name, talk)

    assert TOKEN not in answer
    assert all(TOKEN not in asked.text for asked in model.history)


@pytest.mark.parametrize(
    "name", ["memory_search", "memory_search_cross_persona", "persona_memory", "memory_list"]
)
async def test_the_owner_is_told_by_the_same_calls(
    service: Service, model: ScriptedModel, name: str
) -> None:
    talk = await plant(service, model)

    assert TOKEN in await answer_of(service, name, talk, persona_id="aria")


async def test_the_secret_is_in_the_prompt_of_one_who_was_there(
    service: Service, model: ScriptedModel
) -> None:
    talk = await plant(service, model)
    model.add("I will not say it.", "I will not say it.")

    for persona in ("aria", "noor"):
        await answer_of(service, "persona_chat", talk, persona_id=persona)

    assert [TOKEN in asked.text for asked in model.history] == [True, True]
