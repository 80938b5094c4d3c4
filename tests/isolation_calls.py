"""Calls that name things of a world, made from what operations say that they take."""

from collections.abc import Iterator, Mapping
from typing import Any

from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.operations.registry import Operation
from persona_mcp.state.validation import resolve
from tests.isolation import NOWHERE, Things, like

OPERATIONS = {operation.name: operation for operation in operations("all")}
SCHEMAS = {name: operation.input_schema for name, operation in OPERATIONS.items()}
KINDS = {
    "world_id": "world",
    "into": "world",
    "session_id": "session",
    "request_id": "request",
    "persona_id": "persona",
    "persona1_id": "party",
    "persona2_id": "party",
    "persona_ids": "party",
    "participants": "persona",
    "witnesses": "persona",
    "related_personas": "party",
    "viewer": "persona",
    "speaker_id": "persona",
    "target_persona": "party",
    "told_by": "party",
    "user_id": "user",
    "conversation_id": "conversation",
    "dialogue_id": "dialogue",
    "prompt_id": "prompt",
    "memory_id": "memory",
    "ids": "memory",
    "source_memory_id": "memory",
    "undo_prune_id": "prune",
    "undo_decay_id": "decay",
    "without": "event",
    "snapshot_id": "snapshot",
    "scene": "scene",
    "tag": "tag",
    "cursor": "cursor",
    "spec": "persona",
}
"""What an argument names."""
NAMES = {"state_load": "saved name", "state_list": "saved name", "state_export": "saved name"}
"""Operations whose argument `name` names something that is there."""
CURSORS = {
    "persona_list": "persona",
    "conversation_list": "conversation",
    "conversation_history": "checkpoint",
    "dialogue_list": "dialogue",
    "memory_export": "memory",
    "state_list": "snapshot",
}
"""What the cursor of a list is the id of; the others are numbers, and refuse every id."""
WORDS = {
    *("name", "description", "personality_traits", "topic_preferences", "social_rank", "tags"),
    *("system_prompt", "exit_lines", "examples", "card", "data", "message", "response", "model"),
    *("appraisal", "topic", "reason", "input", "since", "until", "query", "memory_type"),
    *("content", "metadata", "text", "title", "at", "context", "why", "type", "note"),
}
"""Arguments of any text, which name nothing that is there."""
GIVEN: dict[str, Any] = {
    "name": "Newcomer",
    "message": "What of the mill?",
    "response": "The mill is shut today, and it opens in spring.",
    "query": "mill",
    "content": "The mill stands still.",
    "card": {"name": "Imported"},
    "text": "The mill is old.",
    "mood": 0.2,
    "description": "A red coat.",
}
"""What an argument is given where the operation needs it, beside ids."""
ALSO: dict[str, dict[str, Any]] = {
    "persona_delete": {"confirm": True},
    "state_load": {"confirm": True},
    "memory_import": {"text": "The mill is old."},
    "persona_import": {"card": {"name": "Imported"}},
    "emotional_update_state": {"mood": 0.2},
    "memory_update": {"importance": 0.9},
    "visual_update": {"description": "A red coat."},
    "memory_prune": {"force": True},
    "conversation_start": {"seed": 5},
}
"""What it is given though it may be left out."""
INSTEAD = {
    ("memory_delete", "ids"): ("memory_id",),
    ("dialogue_start", "spec"): ("participants",),
    ("visual_update", "scene"): ("persona_id",),
    ("state_load", "into"): ("name",),
    ("state_load", "name"): ("snapshot_id",),
    ("state_export", "name"): ("snapshot_id",),
}
"""What an argument stands in place of."""
TALKS = ("conversation_status", "conversation_advance")
"""Operations that take a talk between personas, too; the others a chat."""
MISSED = {"persona", "conversation", "memory", "prompt", "dialogue", "prune", "decay", "event"}
MISSED |= {"snapshot", "saved name", "session", "world", "party"}
"""Kinds of which one that is not there is refused, or told of as not found."""

FILTERS = {("state_list", "name")}
"""Arguments that only choose among what is there."""


def is_text(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Tell whether an argument can hold a text of the caller's."""
    schema = resolve(schema, whole)
    if "enum" in schema or "const" in schema:
        return False
    if "anyOf" in schema:
        return any(is_text(one, whole) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return is_text(schema["items"], whole)
    return schema.get("type") in ("string", "object")


def kind_of(operation: str, argument: str) -> str | None:
    """Say what an argument names; None where it is but words."""
    if argument == "name":
        return NAMES.get(operation)
    if argument == "cursor":
        return CURSORS.get(operation, "conversation")
    if argument == "conversation_id" and operation in TALKS:
        return "talk"
    return KINDS.get(argument)


def swept() -> Iterator[tuple[str, str, str]]:
    """Give each operation, argument and kind of what it names."""
    for operation in OPERATIONS.values():
        for argument in operation.arguments.model_fields:
            if kind := kind_of(operation.name, argument):
                yield operation.name, argument, kind


def good(operation: Operation, mine: Things) -> dict[str, Any]:
    """Make arguments that are right in a world, its ids among them."""
    found: dict[str, Any] = dict(ALSO.get(operation.name, {}))
    for argument, field in operation.arguments.model_fields.items():
        kind = kind_of(operation.name, argument)
        needed = field.is_required() or argument in ("persona_id", "conversation_id", "memory_id")
        needed = needed or (operation.name, argument) in USUAL
        if argument in found or not needed:
            continue
        if argument in GIVEN and kind is None:
            found[argument] = GIVEN[argument]
        elif kind is not None:
            value = values_of(kind, mine)[2 if argument == "persona2_id" else 0]
            found[argument] = given_as(operation, argument, value, mine)
    if operation.name == "visual_update":
        found.pop("scene", None)
    return found


USUAL = {("dialogue_start", "participants"), ("state_load", "snapshot_id")}
USUAL |= {("state_export", "snapshot_id")}


def values_of(kind: str, there: Things) -> list[str]:
    """Return what a world has of a kind."""
    return there.of["persona"] + there.of["user"] if kind == "party" else there.of[kind]


def given_as(operation: Operation, argument: str, value: str, mine: Things) -> Any:
    """Put a value into the shape that an argument has."""
    one, other = mine.of["persona"][0], mine.of["persona"][2]
    if argument == "spec":
        talk = {"max_turns": 2, "ignore_availability": True}
        return {"personas": {value: None, other: None}, "dialogue": talk}
    if argument == "participants":
        return [one, other] if value == one else [value, other]
    schema = SCHEMAS[operation.name]
    field = resolve(schema["properties"][argument], schema)
    shapes = [resolve(shape, schema) for shape in field.get("anyOf", [field])]
    return [value] if any(shape.get("type") == "array" for shape in shapes) else value


def asking(name: str, argument: str, value: str, mine: Things) -> dict[str, Any]:
    """Make the arguments of a call that names a value, the rest as in a good call."""
    operation = OPERATIONS[name]
    found = good(operation, mine)
    for other in INSTEAD.get((name, argument), ()):
        found.pop(other, None)
    if argument == "source_memory_id":
        found["told_by"] = mine.of["persona"][2]
    if argument == "speaker_id":
        found["conversation_id"] = mine.of["talk"][0]
    if argument == "persona1_id" and "persona2_id" in found:
        found["persona2_id"] = mine.of["persona"][2]
    return {**found, argument: given_as(operation, argument, value, mine)}


def nobodys_of(argument: str, kind: str, value: str) -> str:
    """Return what to ask for in place of what the other world has."""
    return NOWHERE if kind == "world" else like(value, sorted_by=argument == "cursor")
