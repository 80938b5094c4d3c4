"""The tables of docs/dialogues.md: every field of a specification, from the models of it."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from persona_mcp.server.reference_pages import TAKES, line
from persona_mcp.state.dialogue import Condition, Intervention, Presence, Whisper
from persona_mcp.state.dialogue_spec import (
    CastEntry,
    DialogueSpec,
    Endpoint,
    ModelSpec,
    TalkSpec,
    Tie,
    WaveSpec,
)
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.validation import in_words, resolve

MODELS: dict[str, type[BaseModel]] = {
    kind.__name__: kind
    for kind in (
        *(DialogueSpec, CastEntry, PersonaSpec, Tie, TalkSpec, Presence, Whisper, Intervention),
        *(Condition, WaveSpec, ModelSpec, Endpoint),
    )
}
BLOCK = re.compile(
    r"(<!-- specification: (\w+) -->\n).*?(<!-- /specification -->\n)",
    re.DOTALL,
)
"""Where a page has a table of the fields of a model."""


def with_specification(text: str) -> str:
    """Put the tables as they are now into a page that has them."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{fields_table(MODELS[m[2]])}\n\n{m[3]}", text)


def fields_table(kind: type[BaseModel]) -> str:
    """Write a table of the fields of a model."""
    root = kind.model_json_schema()
    head = (TAKES[0].replace("parameter", "field"), TAKES[1])
    rows = (row(name, schema, root, kind) for name, schema in root["properties"].items())
    return "\n".join([*head, *rows])


def row(name: str, schema: dict[str, Any], root: dict[str, Any], kind: type[BaseModel]) -> str:
    """Write the line of a field."""
    found = resolve(schema, root)
    allowed = "a time, as 2026-01-01T08:00:00Z" if is_time(found) else in_words(found, root)
    meaning = str(schema.get("description", ""))
    return line(f"`{name}`", allowed, left_out(name, kind, found), meaning)


def left_out(name: str, kind: type[BaseModel], schema: Any) -> str:
    """Write what a field is that is left out; nothing where that is nothing."""
    field = kind.model_fields[name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", [], {}):
        return ""
    if is_time(schema):
        return f"`{datetime.fromtimestamp(value, UTC):%Y-%m-%dT%H:%M:%SZ}`"
    if isinstance(value, BaseModel) or (isinstance(value, list) and is_model(value[0])):
        return "as its fields"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def is_model(value: Any) -> bool:
    """Tell whether a value has fields of its own."""
    return isinstance(value, BaseModel)


def is_time(schema: Any) -> bool:
    """Tell whether a field is a moment."""
    return bool(schema.get("format") == "date-time")
