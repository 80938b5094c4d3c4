"""Every argument of every operation, wrong in every way that its schema tells of.

An operation is taken in by its entry in `server/reference_examples.py`.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from sqlalchemy import Connection, insert

from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.registry import Operation
from persona_mcp.server.reference_examples import EXAMPLES, NO_IDS, NOBODY
from persona_mcp.server.reference_world import Answer, Played, asked, play, small_world
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from tests.calls import Row, dump
from tests.wrong_arguments import wrong_values

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("every argument")]

OPERATIONS = operations("all")
NOT_STATE = ("sessions", "answers", "spending", "processes")
"""Tables that say who called and who serves, not what there is."""
ELSEWHERE = "elsewhere"
NAMES_WHAT_IS_NOT_THERE = ("memory_delete",)
"""Answers which of the ids it did not find, since it takes many."""


@dataclass(frozen=True)
class Full:
    """A service after all examples, what each of them was, and ids of what another world has."""

    service: Service
    played: dict[str, Played]
    elsewhere: dict[str, str]

    async def ask(self, name: str, /, **arguments: Any) -> Answer:
        """Call an operation with its example's arguments, some of them others."""
        return await asked(self.service, name, {**self.played[name].arguments, **arguments})

    async def state(self) -> dict[str, list[Row]]:
        """Read all tables but those of calls and of work that goes on by itself."""
        found = await dump(self.service.database)
        return {name: rows for name, rows in found.items() if name not in NOT_STATE}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def full() -> AsyncIterator[Full]:
    async with small_world() as service:

        async def ask(name: str, arguments: dict[str, Any]) -> Answer:
            return await asked(service, name, arguments)

        played = await play(ask)
        elsewhere = await things_elsewhere(service)
        while await service.indexer.pending():
            await service.indexer.work_off()
        yield Full(service, played, elsewhere)


def test_every_operation_has_an_example() -> None:
    assert set(EXAMPLES) >= {operation.name for operation in OPERATIONS}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
async def test_every_example_is_answered_as_its_schema_says(
    full: Full, operation: Operation
) -> None:
    answer = full.played[operation.name].answer

    assert "error" not in answer, answer
    jsonschema.validate(answer["result"], operation.output_schema)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
async def test_what_an_example_says_is_wrong_is_refused(full: Full, operation: Operation) -> None:
    for arguments, answer in full.played[operation.name].refused:
        if operation.name in NAMES_WHAT_IS_NOT_THERE and "result" in answer:
            assert NOBODY in answer["result"]["not_found"]
            continue
        error = answer["error"]
        assert error["data"]["code"] != "internal_error"
        if NOBODY in arguments.values():
            assert error["data"]["code"] == "not_found"
            assert NOBODY in error["message"]


def faulty(operation: Operation) -> Iterator[tuple[str, str, Any]]:
    """Make every wrong value of every argument: the field, what is wrong, the value."""
    root = operation.input_schema
    for field, schema in root["properties"].items():
        for what, value in wrong_values(schema, root):
            yield field, what, value


def complaint(answer: Answer, field: str, value: Any) -> str | None:
    """Say what is wrong about a refusal; None if it names the field, the rule and the value."""
    if "error" not in answer:
        return "was taken"
    data, message = answer["error"]["data"], answer["error"]["message"]
    if data["code"] != "invalid_params":
        return f"was refused as {data['code']}: {message}"
    if data["field"].split(".")[0] != field:
        return f"names {data['field']}"
    named = f"{data['field']}: allowed is {data['allowed']}, given was "
    if not message.startswith((named, f"{data['field']} is required")):
        return f"says {message}"
    if isinstance(value, int | float) and data["given"] != json.dumps(value):
        return f"says that it was given {data['given']}"
    return None if data["allowed"] else "names no rule"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
async def test_a_wrong_argument_is_named_with_its_rule_and_value_and_changes_nothing(
    full: Full, operation: Operation
) -> None:
    before = await full.state()
    bad = []
    for field, what, value in faulty(operation):
        answer = await full.ask(operation.name, **{field: value})
        if wrong := complaint(answer, field, value):
            bad.append(f"{field}, {what}: {wrong}")

    assert bad == []
    assert await full.state() == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
async def test_what_is_missing_null_or_unknown_is_named_and_changes_nothing(
    full: Full, operation: Operation
) -> None:
    before = await full.state()
    arguments = full.played[operation.name].arguments
    for field in operation.input_schema.get("required", []):
        rest = {key: value for key, value in arguments.items() if key != field}
        missing = await asked(full.service, operation.name, rest)
        data = missing["error"]["data"]
        assert (data["field"], data["allowed"]) == (field, "required")
        assert complaint(await full.ask(operation.name, **{field: None}), field, "") is None

    unknown = (await full.ask(operation.name, wurld_id="main"))["error"]["data"]
    assert unknown["field"] == "wurld_id"
    assert unknown["allowed"].startswith("another name (did you mean world_id? known are ")
    assert await full.state() == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
async def test_another_world_and_what_is_in_it_are_not_found(
    full: Full, operation: Operation
) -> None:
    before = await full.state()

    nowhere = await full.ask(operation.name, world_id="nowhere")
    assert nowhere["error"]["data"]["code"] == "not_found"
    assert "world 'nowhere' not found" in nowhere["error"]["message"]
    for field in operation.input_schema["properties"]:
        if not field.endswith("_id") or field in NO_IDS:
            continue
        kind = next((kind for kind in full.elsewhere if field.endswith(f"{kind}_id")), "persona")
        there, beside = full.elsewhere[kind], EXAMPLES[operation.name].beside
        here = await full.ask(operation.name, **beside, **{field: there})
        if operation.name in NAMES_WHAT_IS_NOT_THERE:
            assert here["result"]["not_found"] == [there]
            continue
        never = await full.ask(operation.name, **beside, **{field: NOBODY})
        assert said(here, there) == said(never, NOBODY), field
    assert await full.state() == before


def said(answer: Answer, id: str) -> tuple[str, str]:
    """Return the kind and the words of an error, without the id that was given."""
    error = answer["error"]
    words = re.split("; did you mean|; others are", error["message"].replace(id, "ID"))[0]
    return error["data"]["code"], words


async def things_elsewhere(service: Service) -> dict[str, str]:
    """Make another world with a persona, a talk and a memory, and return their ids by kind."""
    world = {"id": ELSEWHERE, "name": ELSEWHERE, "created_at": 0.0, "bundled_at": 0.0}

    def write(connection: Connection) -> None:
        connection.execute(insert(tables.World).values(**world))

    async def made(name: str, /, **arguments: Any) -> dict[str, Any]:
        answer = await asked(service, name, {**arguments, "world_id": ELSEWHERE})
        result: dict[str, Any] = answer["result"]
        return result

    await service.database.write(write)
    persona_id = (await made("persona_create", name="Lotte"))["persona_id"]
    said = await made("persona_chat", persona_id=persona_id, message="The dam has a crack.")
    told = await made("memory_store", persona_id=persona_id, content="The dam has a crack.")
    return {
        "persona": persona_id,
        "conversation": said["conversation_id"],
        "memory": told["memory_id"],
    }
