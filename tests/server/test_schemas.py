"""Schemas as MCP clients are shown them: shorter, and true to what is allowed."""

import json
import sys
from typing import Annotated, Any, Literal

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp_types import ListToolsResult
from pydantic import BaseModel, Field

from persona_mcp.server.mcp import failure, tool_of
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.registry import operation_named
from persona_mcp.server.schemas import input_schema, outline, output_schema, plain, references
from persona_mcp.state.errors import NotFound

NAMES = [operation.name for operation in operations("all")]


class Leaf(BaseModel):
    """A docstring."""

    title: str = Field(description="What it is called")
    size: int | None = None


class Tree(BaseModel):
    """Another docstring."""

    first: Leaf
    second: Leaf | None = Field(None, description="If there are two")
    kind: str | None = Field(None, max_length=9)
    default: int = 3
    any: int | str | None = None


FULL = Tree.model_json_schema(mode="serialization")


def test_an_optional_argument_is_told_without_null_and_without_references() -> None:
    leaf = {
        "properties": {
            "title": {"description": "What it is called", "type": "string"},
            "size": {"type": "integer"},
        },
        "required": ["title"],
        "type": "object",
    }

    assert input_schema(Tree.model_json_schema()) == {
        "properties": {
            "first": leaf,
            "second": {**leaf, "description": "If there are two"},
            "kind": {"type": "string", "maxLength": 9},
            "default": {"type": "integer", "default": 3},
            "any": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        },
        "required": ["first"],
        "type": "object",
    }


def test_a_result_may_hold_null_and_tells_a_part_once() -> None:
    short = output_schema(FULL)

    assert short["properties"]["first"] == {"$ref": "#/$defs/Leaf"}
    assert short["$defs"]["Leaf"]["properties"]["size"] == {"type": ["integer", "null"]}
    assert short["properties"]["kind"] == {"type": ["string", "null"], "maxLength": 9}
    assert "description" not in short["$defs"]["Leaf"]


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ({"first": {"title": "a"}}, True),
        ({"first": {"title": "a", "size": None}, "second": None, "kind": None}, True),
        ({"first": {"title": "a"}, "second": {"title": "b", "size": 2}, "any": "x"}, True),
        ({"first": {"title": 1}}, False),
        ({"first": {"title": "a"}, "kind": "far too long"}, False),
        ({"first": {"title": "a"}, "second": {"size": 2}}, False),
    ],
)
def test_the_short_schema_of_a_result_allows_what_the_full_one_does(
    value: dict[str, Any], good: bool
) -> None:
    for schema in (FULL, output_schema(FULL)):
        assert jsonschema.Draft202012Validator(schema).is_valid(value) is good


@pytest.mark.parametrize("name", NAMES)
def test_the_short_schemas_of_every_operation_are_schemas(name: str) -> None:
    arguments = input_schema(operation_named(name).input_schema)
    result = output_schema(operation_named(name).output_schema)

    for schema in (arguments, result):
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
    assert references(arguments) == []
    assert list(arguments["properties"]) == list(operation_named(name).input_schema["properties"])
    assert set(references(result)) <= set(result.get("$defs", {}))


@pytest.mark.parametrize("toolset", ["core", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_no_breach_of_the_schema_that_a_tool_is_listed_with(
    name: str, toolset: str
) -> None:
    error = failure(NotFound.of("persona", "nobody")).structured_content

    jsonschema.validate(error, tool_of(operation_named(name), toolset).output_schema)


def test_an_outline_names_every_field_of_a_result() -> None:
    assert outline(output_schema(FULL)) == {
        "type": "object",
        "properties": {"first": {}, "second": {}, "kind": {}, "default": {}, "any": {}},
    }


def test_plain_arguments_keep_their_choices_and_the_ranges_of_numbers() -> None:
    class Planted(BaseModel):
        height: float = Field(1.0, ge=0, le=90, description="In metres")
        maxLength: str = Field("oak", min_length=1, max_length=9, pattern="^[a-z]+$")
        rings: dict[Literal["thin", "thick"], int] = Field({}, max_length=4)
        notes: dict[Annotated[str, Field(max_length=5)], str] = Field({})

    assert plain(input_schema(Planted.model_json_schema()))["properties"] == {
        "height": {
            "default": 1.0,
            "description": "In metres",
            "minimum": 0,
            "maximum": 90,
            "type": "number",
        },
        "maxLength": {"default": "oak", "type": "string"},
        "rings": {
            "additionalProperties": {"type": "integer"},
            "default": {},
            "propertyNames": {"enum": ["thin", "thick"]},
            "type": "object",
        },
        "notes": {"additionalProperties": {"type": "string"}, "default": {}, "type": "object"},
    }


def test_plain_arguments_leave_out_what_is_the_same_everywhere_and_what_says_nothing() -> None:
    class Planted(BaseModel):
        world_id: str | None = Field(None, description="World; left out: the default")
        tree_id: str = Field(description="From tree_plant")
        note: str = Field("", description="Kept beside it")
        spec: dict[str, Any] | None = None

    assert plain(input_schema(Planted.model_json_schema()))["properties"] == {
        "world_id": {"type": "string"},
        "tree_id": {"description": "From tree_plant", "type": "string"},
        "note": {"description": "Kept beside it", "type": "string"},
        "spec": {"type": "object"},
    }


def test_the_core_tools_are_listed_in_24_kb() -> None:
    listed = ListToolsResult(tools=[tool_of(o, "core") for o in operations("core")])
    shown = listed.model_dump(mode="json", by_alias=True, exclude_none=True)
    written = len(json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode())

    sys.stdout.write(f"tools/list of {len(listed.tools)} core tools: {written} bytes\n")
    assert written <= 24_000
