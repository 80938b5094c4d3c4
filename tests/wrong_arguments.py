"""Arguments that a schema does not allow, made from it."""

from collections.abc import Callable, Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]

from persona_mcp.state.validation import resolve

Schema = dict[str, Any]
Wrong = tuple[str, Any]
"""What is wrong about a value, and the value."""
DEEPEST = 3

WRONG_KIND: dict[str, list[Wrong]] = {
    "string": [("number", 5), ("list", ["x", 5]), ("control character", "a\x00b")],
    "integer": [("text", "4"), ("boolean", True), ("list", [4]), ("no whole number", 4.5)],
    "number": [("text", "4"), ("boolean", True), ("infinite", float("inf")), ("nan", float("nan"))],
    "boolean": [("text", "true"), ("number", 1)],
    "array": [("text", "4"), ("object", {}), ("list of others", ["x", 5])],
    "object": [("text", "4"), ("list", ["x", 5])],
}
ANY_KIND: list[Wrong] = [
    ("number", 5.5),
    ("text", "nobody knows it!"),
    ("boolean", True),
    ("list", ["x", 5]),
    ("object", {"nobody": "knows it"}),
]
"""For what may be of several kinds: those that its schema does not allow."""
BOUNDS: dict[str, Callable[[Any], Any]] = {
    "minimum": lambda low: low - 1,
    "maximum": lambda high: high + 1,
    "exclusiveMinimum": lambda low: low,
    "exclusiveMaximum": lambda high: high,
    "minLength": lambda _: "  ",
    "maxLength": lambda longest: "x" * (longest + 1),
    "pattern": lambda _: "né pas!",
    "enum": lambda _: "nobody knows it",
    "maxItems": lambda most: ["x"] * (most + 1),
    "maxProperties": lambda most: {f"k{n}": 1 for n in range(most + 1)},
}


def wrong_values(schema: Schema, root: Schema, depth: int = 0) -> Iterator[Wrong]:
    """Make values that a schema does not allow, each with what is wrong about it."""
    found = dict(resolve(schema, root))
    kind = found.get("type")
    if kind is None:
        whole = {**found, "$defs": root.get("$defs", {})}
        refused = jsonschema.Draft202012Validator(whole)
        yield from ((what, value) for what, value in ANY_KIND if not refused.is_valid(value))
        return
    yield from WRONG_KIND[kind]
    for bound, beyond in BOUNDS.items():
        if bound in found:
            yield f"beyond {bound}", beyond(found[bound])
    if found.get("minItems"):
        yield "beyond minItems", []
    if depth < DEEPEST:
        for what, value in inside(found, root, depth + 1):
            yield f"in it: {what}", value


def inside(schema: Schema, root: Schema, depth: int) -> Iterator[Wrong]:
    """Make lists and objects in which one thing is wrong."""
    if "items" in schema:
        for what, value in wrong_values(schema["items"], root, depth):
            yield what, [value]
    if isinstance(extra := schema.get("additionalProperties"), dict):
        names = dict(resolve(schema.get("propertyNames", {}), root))
        name = names.get("enum", ["k"])[0]
        for what, value in wrong_values(extra, root, depth):
            yield what, {name: value}
        if "maxLength" in names:
            yield "long name", {"x" * (names["maxLength"] + 1): 1}
    for name, member in schema.get("properties", {}).items():
        for what, value in wrong_values(member, root, depth):
            yield what, {name: value}
    if schema.get("additionalProperties") is False:
        yield "unknown name", {"nobody-knows-it": 1}
