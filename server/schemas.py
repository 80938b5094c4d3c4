"""JSON Schemas as an MCP client is shown them: short, since a model reads all of them.

What says nothing to a model or a validator is left out; what a schema allows stays the same but for
one thing: an optional argument is not told that null may stand for its absence. The core toolset,
which most clients put before their model in every chat, is told in outline.
"""

from typing import Any

Schema = dict[str, Any]

NULL = {"type": "null"}
NAMED = ("properties", "$defs", "patternProperties")
"""Under these keywords stand names that were chosen freely, each with a schema."""
LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
DEFS = "#/$defs/"
EVERYWHERE = ("world_id", "session_id", "request_id")
"""Arguments that mean the same wherever they are taken; the name says it to who has met one."""
BOUNDS = ("pattern", "minLength", "maxLength", "minItems", "maxItems", "maxProperties")


def input_schema(full: Schema) -> Schema:
    """Shorten the schema of arguments; nothing in it is a reference, which some clients lack."""
    definitions = definitions_of(full)
    body = {key: value for key, value in full.items() if key not in ("$defs", "description")}
    short: Schema = shortened(inlined(body, definitions, set(definitions)), null=False)
    return short


def output_schema(full: Schema) -> Schema:
    """Shorten the schema of a result; a part that is used twice stays a reference.

    No field is required at the top: some clients hold an error's answer, which has none of them,
    against it too, and would show their own complaint in place of what went wrong.
    """
    definitions = definitions_of(full)
    body = {
        key: value for key, value in full.items() if key not in ("$defs", "description", "required")
    }
    uses = references([body, definitions])
    once = {name for name in definitions if uses.count(name) == 1}
    short: Schema = shortened(inlined(body, definitions, once), null=True)
    kept = {
        name: shortened(inlined(part, definitions, once), null=True)
        for name, part in definitions.items()
        if name not in once
    }
    return {**short, "$defs": kept} if kept else short


def definitions_of(full: Schema) -> Schema:
    """Return the parts of a schema without what their classes say of themselves."""
    return {
        name: {key: value for key, value in part.items() if key != "description"}
        for name, part in full.get("$defs", {}).items()
    }


def references(value: Any) -> list[str]:
    """Return the names of the definitions that are referred to, as often as they are."""
    if isinstance(value, list):
        return [name for item in value for name in references(item)]
    if not isinstance(value, dict):
        return []
    here = value.get("$ref")
    found = [here.removeprefix(DEFS)] if isinstance(here, str) else []
    return found + [name for item in value.values() for name in references(item)]


def inlined(value: Any, definitions: Schema, names: set[str]) -> Any:
    """Put definitions in the place of references to them."""
    if isinstance(value, list):
        return [inlined(item, definitions, names) for item in value]
    if not isinstance(value, dict):
        return value
    here = value.get("$ref")
    name = here.removeprefix(DEFS) if isinstance(here, str) else ""
    if name in names:
        value = {**definitions[name], **{k: v for k, v in value.items() if k != "$ref"}}
    return {key: inlined(item, definitions, names) for key, item in value.items()}


def shortened(schema: Any, *, null: bool) -> Any:
    """Leave out of a schema what says nothing.

    Args:
        schema: Of one value.
        null: Keep telling that a value may be null.
    """
    if not isinstance(schema, dict):
        return schema
    found: Schema = {}
    for key, value in schema.items():
        if key in NAMED:
            found[key] = {name: shortened(part, null=null) for name, part in value.items()}
        elif key in LISTED:
            found[key] = [shortened(part, null=null) for part in value]
        elif key in ("items", "additionalProperties", "propertyNames"):
            found[key] = shortened(value, null=null)
        elif key != "title" and not (key == "default" and (null or value is None)):
            found[key] = value
    return without_choice(found, null=null)


def without_choice(schema: Schema, *, null: bool) -> Schema:
    """Write "this or null" shorter than as a choice of two schemas."""
    choice = schema.get("anyOf", ())
    if NULL not in choice:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    others = [part for part in choice if part != NULL]
    if not null:
        return {**others[0], **rest} if len(others) == 1 else {**rest, "anyOf": others}
    if len(others) > 1 or not isinstance(others[0].get("type"), str):
        return schema
    (other,) = others
    allowed = {"enum": [*other["enum"], None]} if "enum" in other else {}
    return {**other, **rest, "type": [other["type"], "null"], **allowed}


def plain(arguments: Schema) -> Schema:
    """Leave out how long texts and lists may be, which a call tells that breaks it.

    What an argument is for that many operations take is left out, too.
    """
    found: Schema = {}
    for key, value in arguments.items():
        if key in NAMED:
            found[key] = {name: untold(name, plain(part)) for name, part in value.items()}
        elif key in LISTED:
            found[key] = [plain(part) for part in value]
        elif isinstance(value, dict):
            found[key] = plain(value)
        elif key not in BOUNDS:
            found[key] = value
    nothing = {"propertyNames": {}, "additionalProperties": True, "default": ""}
    return {key: value for key, value in found.items() if value != nothing.get(key, ...)}


def untold(name: str, schema: Schema) -> Schema:
    """Leave out what an argument is for that is the same everywhere."""
    if name not in EVERYWHERE:
        return schema
    return {key: value for key, value in schema.items() if key != "description"}


def outline(result: Schema) -> Schema:
    """Tell only which fields a result has; `/x/all/mcp` describes them."""
    return {"type": "object", "properties": {name: {} for name in result.get("properties", {})}}
