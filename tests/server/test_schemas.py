"""Schemas as MCP clients are shown them: shorter, and true to what is allowed."""

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from pydantic import BaseModel, Field

from persona_mcp.server.catalogue import operations
from persona_mcp.server.operations import REGISTRY
from persona_mcp.server.schemas import input_schema, output_schema, references

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
        "description": "A docstring.",
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
        ({}, False),
    ],
)
def test_the_short_schema_of_a_result_allows_what_the_full_one_does(
    value: dict[str, Any], good: bool
) -> None:
    for schema in (FULL, output_schema(FULL)):
        assert jsonschema.Draft202012Validator(schema).is_valid(value) is good


@pytest.mark.parametrize("name", NAMES)
def test_the_short_schemas_of_every_operation_are_schemas(name: str) -> None:
    arguments = input_schema(REGISTRY[name].input_schema)
    result = output_schema(REGISTRY[name].output_schema)

    for schema in (arguments, result):
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
    assert references(arguments) == []
    assert list(arguments["properties"]) == list(REGISTRY[name].input_schema["properties"])
    assert set(references(result)) <= set(result.get("$defs", {}))
