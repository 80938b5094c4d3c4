"""One strict validation for everything that comes from outside, with errors a person can act on."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from persona_mcp.state.errors import REQUIRED, Fault, InvalidParams

GIVEN_LENGTH = 80
NEAREST = 1
ERRORS_READ = 100
"""Of a call that is wrong in more places than this, the rest is not told."""
TOO_LONG = ("string_too_long", "too_long")
MOST_LEVELS = 64
MOST_DIGITS = 4200
"""Python writes no whole number of more than 4300."""
LARGEST = 10**MOST_DIGITS
HALF = re.compile("[\ud800-\udfff]")
"""A surrogate: half a character, which UTF-8 does not have."""
WHOLE_TEXT = "text without halves of characters (surrogates)"
JSON = json.JSONEncoder(ensure_ascii=False, default=repr)
Schema = Mapping[str, Any]
Path = tuple[Any, ...]
M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], raw: Mapping[str, Any], where: str = "") -> M:
    """Check arguments against a model, strictly.

    Args:
        model: The fields, their types and ranges.
        raw: The arguments as they came; null for an optional one counts as absent.
        where: Path that is put before the names of fields.

    Raises:
        InvalidParams: One fault or more; names each field, what is allowed and what was given.
    """
    cannot = [told(*found, where) for found in islice(unwritable(raw), ERRORS_READ)]
    if cannot:
        raise InvalidParams.of(distinct(cannot))
    try:
        return model.model_validate(given(model, raw), strict=True)
    except ValidationError as error:
        raise refusal(model, error, where) from None


def given(model: type[BaseModel], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out each optional field that is null: it counts as absent."""
    fields = model.model_fields
    return {
        key: value
        for key, value in raw.items()
        if not (value is None and key in fields and not fields[key].is_required())
    }


def refusal(model: type[BaseModel], error: ValidationError, where: str = "") -> InvalidParams:
    """Say in our words what a model refused."""
    found = error.errors(include_url=False)[:ERRORS_READ]
    return InvalidParams.of(distinct([fault(model, dict(e), where) for e in found]))


def unwritable(raw: Mapping[str, Any]) -> Iterator[tuple[Path, str, object]]:
    """Find what no store and no answer can carry: its path, what is allowed, what was given.

    A container that is met again (a YAML alias) is not walked again.
    """
    seen: set[int] = set()
    waiting: list[tuple[Path, Any]] = [((), raw)]
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if len(path) >= MOST_LEVELS:
            yield path[:1], f"at most {MOST_LEVELS} levels of objects and lists", value
            continue
        if isinstance(value, Mapping):
            pairs: Iterable[tuple[Any, Any]] = value.items()
            yield from (((*path, key), WHOLE_TEXT, key) for key in value if lacks(key))
        else:
            pairs = enumerate(value)
        for part, inner in pairs:
            if isinstance(inner, dict | list):
                waiting.append(((*path, part), inner))
            elif allowed := lacks(inner):
                yield (*path, part), allowed, inner


def lacks(value: object) -> str | None:
    """Say what is allowed in place of a text or number that cannot be written; None if it can."""
    if isinstance(value, str):
        return WHOLE_TEXT if not value.isascii() and HALF.search(value) else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "a finite number"
    if isinstance(value, int) and not -LARGEST < value < LARGEST:
        return f"a number of at most {MOST_DIGITS} digits"
    return None


def told(path: Path, allowed: str, value: object, where: str) -> Fault:
    """Write a fault."""
    field = ".".join([*([where] if where else []), *(cut(str(part)) for part in path)])
    return {"field": field, "allowed": allowed, "given": shorten(value)}


def distinct(faults: list[Fault]) -> list[Fault]:
    """Keep one fault a field: the branches of a union each complain about the same value."""
    return list({f["field"]: f for f in reversed(faults)}.values())[::-1]


def fault(model: type[BaseModel], error: Mapping[str, Any], where: str = "") -> Fault:
    """Turn pydantic's account of a fault into ours."""
    schema = schema_of(model)
    found, path = follow(schema, error["loc"])
    kind = error["type"]
    given: str | None = shorten(error.get("input"))
    if kind == "missing":
        allowed, given = REQUIRED, None
    elif kind == "extra_forbidden":
        path = [str(p) for p in error["loc"]]
        parent, _ = follow(schema, error["loc"][:-1])
        allowed = known_names(parent or schema, path[-1])
    elif kind in TOO_LONG:
        allowed = in_words(found, schema) if found else error["msg"]
        given = f"{given}, {len(error['input']):,} in all"
    elif kind == "value_error":
        allowed = str(error["ctx"]["error"])
    else:
        allowed = in_words(found, schema) if found else error["msg"]
    field = ".".join([*([where] if where else []), *(cut(part) for part in path)])
    return {"field": field or "arguments", "allowed": allowed, "given": given or "nothing"}


@cache
def schema_of(model: type[BaseModel]) -> Schema:
    """Return the JSON Schema of a model, made once."""
    return model.model_json_schema()


def follow(schema: Schema, location: tuple[str | int, ...]) -> tuple[Schema | None, list[str]]:
    """Walk a schema along a location; parts that are no member (a union's branches) are passed."""
    here: Schema | None = schema
    parent: Schema = schema
    path: list[str] = []
    for part in location:
        if part == "[key]":
            pattern = next(iter(parent.get("patternProperties", ())), None)
            names = {"pattern": pattern} if pattern else parent.get("propertyNames", {})
            return {"type": "string", **resolve(names, schema)}, path
        current = resolve(here or {}, schema)
        step = child(current, part)
        if step is None and path and not isinstance(part, int):
            continue
        here, parent = step, current
        path.append(str(part))
    return (resolve(here, schema) if here else None), path


def child(schema: Schema, part: str | int) -> Schema | None:
    """Return the schema of a member of an object or list; None if there is none."""
    if isinstance(part, int):
        items: Schema | None = schema.get("items")
        return items
    properties = schema.get("properties", {})
    if part in properties:
        found: Schema = properties[part]
        return found
    by_pattern = iter(schema.get("patternProperties", {}).values())
    extra = next(by_pattern, schema.get("additionalProperties"))
    return extra if isinstance(extra, Mapping) and "properties" not in schema else None


def resolve(schema: Schema, root: Schema) -> Schema:
    """Follow a reference, and the one branch of an optional that is not null."""
    if "$ref" in schema:
        return resolve(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    branches = [b for b in schema.get("anyOf", ()) if b.get("type") != "null"]
    return resolve(branches[0], root) if len(branches) == 1 else schema


def known_names(schema: Schema, given: str) -> str:
    """Say that a name is none of those there are, the nearest first."""
    names = list(schema.get("properties", {}))
    near = difflib.get_close_matches(given[:GIVEN_LENGTH], names, NEAREST)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"another name ({hint}known are {', '.join(names) or 'no arguments'})"


def in_words(schema: Schema, root: Schema) -> str:
    """Say what a schema allows, in a few words: `whole number 1..20`."""
    if "enum" in schema:
        return "one of " + ", ".join(str(v) for v in schema["enum"])
    if "const" in schema:
        return f"only {json.dumps(schema['const'])}"
    if "anyOf" in schema:
        branches = (b for b in schema["anyOf"] if b.get("type") != "null")
        return " or ".join(in_words(resolve(b, root), root) for b in branches)
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + numeric_range(schema)
    if kind == "string":
        if "pattern" in schema:
            return f"text that matches {schema['pattern']}"
        return f"text{counted(schema, 'Length', 'characters')}"
    if kind == "array":
        return f"list{counted(schema, 'Items', 'entries')}"
    if kind == "object":
        return f"object{counted(schema, 'Properties', 'entries')}"
    return "true or false" if kind == "boolean" else "another value"


def numeric_range(schema: Schema) -> str:
    """Write a range: ` 1..20`, ` above 0 and up to 1`, or nothing."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" {plain(low)}..{plain(high)}"
    ends = (
        ("{} or more", low),
        ("above {}", schema.get("exclusiveMinimum")),
        ("below {}", schema.get("exclusiveMaximum")),
        ("up to {}", high),
    )
    written = " and ".join(words.format(plain(end)) for words, end in ends if end is not None)
    return f" {written}" if written else ""


def plain(number: float) -> str:
    """Write a bound; a whole one with all of its digits."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def counted(schema: Schema, what: str, unit: str) -> str:
    """Write a range of counts: ` of 1..80 characters`."""
    low, high = schema.get(f"min{what}", 0), schema.get(f"max{what}")
    if high is not None:
        return f" of {low}..{high} {unit}"
    return f" of at least {low} {unit}" if low else ""


def shorten(value: object) -> str:
    """Write a value as JSON, at most 80 characters of it, however large or deep it is."""
    written = ""
    try:
        for part in JSON.iterencode(value):
            written += part
            if len(written) > GIVEN_LENGTH:
                break
    except (TypeError, ValueError, RecursionError):
        written = json.dumps(type(value).__name__)
    return cut(written)


def cut(text: str) -> str:
    """Limit a text to 80 characters, all of which can be written as UTF-8."""
    short = text if len(text) <= GIVEN_LENGTH else text[: GIVEN_LENGTH - 1] + "…"
    return short.encode("utf-8", "backslashreplace").decode("utf-8")
