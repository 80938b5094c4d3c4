"""What a saved state must be before anything of it is written: types, sizes, what refers to what.

The model of a row is made from its table: the types of its columns and their lengths. Columns that
the laws read as values (arrows, moods, events) are checked as those values.
"""

import base64
import json
from collections.abc import Mapping, Set
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_type_hints

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
)
from sqlalchemy import JSON, Column, Integer, String, Text

from persona_mcp.state.appraisal import Appraisal, Deltas
from persona_mcp.state.arrow import Arrow, Bond, Kind, Priors
from persona_mcp.state.cards.card import Spec, persona_of, read_card
from persona_mcp.state.cards.files import Carrier
from persona_mcp.state.dialogue import Plan
from persona_mcp.state.emotion import EmotionalState, Impulses
from persona_mcp.state.errors import BadSnapshot
from persona_mcp.state.exchange import ConversationKind
from persona_mcp.state.fields import ID_PATTERN, deeper_than
from persona_mcp.state.ids import name_key
from persona_mcp.state.interaction import InteractionState
from persona_mcp.state.moments import LAST_MOMENT
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.snapshots.rows import RESTING, Row, Rows, key_of
from persona_mcp.state.snapshots.tables import BY_NAME, KEPT, PLACE, Kept
from persona_mcp.state.table_base import ID
from persona_mcp.state.validation import shorten

LONGEST_TEXT = 1_000_000
LONGEST_FILE = 48 * 1024 * 1024
"""Of a card, or of the file that carried it, in base64."""
DEEPEST = 32
INT64 = 2**63
LARGEST = 1e12
"""Of a number that the laws compute with, either way; what they make of larger ones overflows."""
GROWING = frozenset({"contact", "disclosure", "interactions", "minutes"})
"""Values of arrows, and what events add to them, that are never below zero."""
BUDGETS = {"token_budget": (51, 32768), "max_duration": (30, 86400), "max_turns": (1, 500)}
"""Of the plan of a talk, from and to."""
PAIR = 2
TIMES = frozenset({"at", "as_of", "first_meeting", "last_interaction", "cooldown_until"})
"""Names of times, beside those that end in `_at`."""


def is_time(name: str) -> bool:
    """Tell whether a column, or a field of a value, is a time in seconds since the epoch, UTC."""
    return name in TIMES or name.endswith("_at")


def from_base64(value: object) -> object:
    """Read base64; what is no text passes, for the type check to refuse."""
    if not isinstance(value, str):
        return value
    if len(value) > LONGEST_FILE:
        raise ValueError(f"base64 of at most {LONGEST_FILE} characters")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:  # binascii.Error is one
        raise ValueError("base64") from None


def from_pairs(value: object) -> object:
    """Read an object that is a list of pairs, so that it has the order of its keys."""
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(pair) == PAIR and isinstance(pair[0], str) for pair in value
    ):
        raise ValueError("a list of pairs of a name and a value")
    return dict(value)


def finite_vector(value: bytes) -> bytes:
    """Refuse a vector that is no little-endian float16, or has a number that is none."""
    if not value or len(value) % 2 or not np.isfinite(np.frombuffer(value, "<f2")).all():
        raise ValueError("a vector of finite float16")
    return value


def shallow(value: Any) -> Any:
    """Refuse JSON that is nested too deep."""
    if deeper_than(value, DEEPEST):
        raise ValueError(f"JSON of at most {DEEPEST} levels")
    return value


def shaped(kind: type[Any]) -> Any:
    """Return the type of an object with the fields of a dataclass, and no other ones."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    known = {field.name for field in fields(kind)}

    def check(value: dict[str, Any]) -> dict[str, Any]:
        if not known.issuperset(value):
            raise ValueError(f"an object with the fields {', '.join(sorted(known))}")
        adapter.validate_json(json.dumps(value), strict=True)
        for name in filter(is_time, value):
            if value[name] is not None and not 0 <= value[name] <= LAST_MOMENT:
                raise ValueError(f"{name} from 0 to {LAST_MOMENT}")
        for name, number in value.items():
            low = 0 if name in GROWING else -LARGEST
            if isinstance(number, int | float) and not low <= number <= LARGEST:
                raise ValueError(f"{name} from {low:g} to {LARGEST:g}")
        return value

    return Annotated[dict[str, Any], AfterValidator(check)]


def storable(text: str) -> str:
    """Refuse a text that PostgreSQL does not take."""
    if "\0" in text:
        raise ValueError("text without NUL characters")
    return text


def numbers(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse an object that holds anything but numbers."""
    for name, number in value.items():
        if type(number) not in (int, float) or not -LARGEST <= number <= LARGEST:
            raise ValueError(f"a number for {name:.80}")
    return value


def readable_card(text: str) -> str:
    """Refuse the text of a card that could not have been imported."""
    try:
        persona_of(read_card(text))
    except BadSnapshot as error:
        raise ValueError(error.message) from None
    return text


def persona_spec(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what no persona can have been."""
    PersonaSpec.model_validate(value)
    return value


File = Annotated[bytes, BeforeValidator(from_base64)]
Share = Annotated[float, Field(ge=0, le=1)]
Time = Annotated[float, Field(ge=0, le=LAST_MOMENT)]
Parties = Annotated[list[Annotated[str, Field(pattern=ID_PATTERN)]], Field(max_length=1000)]
Moods = dict[Literal["mood", "energy_level", "stress_level", "curiosity", "social_battery"], float]
SPECIAL: Mapping[str, Any] = {
    "conversations.kind": ConversationKind,
    "conversations.participants": Parties,
    "conversations.status": Literal["active", "ended"],
    "energy_spent.share": Share,
    "exchanges.finish_reason": Literal["stop", "length"] | None,
    "exchanges.score_terms": Annotated[dict[str, Any], AfterValidator(numbers)] | None,
    "exchanges.status": Literal[tuple(sorted(RESTING))],
    "memories.emotional_valence": Annotated[float, Field(ge=-1, le=1)],
    "memories.importance": Share,
    "memories.importance_terms": Annotated[
        dict[str, Any], AfterValidator(numbers), BeforeValidator(from_pairs)
    ],
    "memories.related_personas": Parties,
    "memories.visibility": Literal["private", "shared", "public"],
    "memory_vectors.vector": Annotated[File, AfterValidator(finite_vector)],
    "mood_impulses.absolute": Moods | None,
    "mood_impulses.impulse": shaped(Impulses),
    "persona_cards.card": Annotated[
        str, Field(max_length=LONGEST_FILE), AfterValidator(readable_card)
    ],
    "persona_cards.carrier": Carrier,
    "persona_cards.file": File | None,
    "persona_cards.spec": Spec,
    "persona_states.emotion": shaped(EmotionalState),
    "persona_states.interaction": shaped(InteractionState),
    "persona_versions.spec": Annotated[
        dict[str, Any], AfterValidator(shallow), AfterValidator(persona_spec)
    ],
    "personas.name_key": Annotated[str, Field(max_length=320)] | None,
    "relationship_events.appraisal": shaped(Appraisal) | None,
    "relationship_events.bond": Bond | None,
    "relationship_events.deltas": shaped(Deltas),
    "relationship_events.kind": Kind,
    "relationship_events.priors": shaped(Priors) | None,
    "relationship_states.arrow": shaped(Arrow),
    "visual_contexts.target_kind": Literal["persona", "scene"],
}
"""Columns that say more than their type in SQL."""


def checked(tables: Mapping[str, Any]) -> Rows:
    """Check the rows of a saved state and give them the types that SQL takes.

    Raises:
        BadSnapshot: A table, row or value is not what it should be; names it.
    """
    names = {kept.name for kept in KEPT}
    if set(tables) != names:
        odd = ", ".join(sorted(set(tables) ^ names))
        raise BadSnapshot(f"tables: missing or unknown are {odd:.200}", field="tables")
    rows = {kept.name: checked_table(kept, tables[kept.name]) for kept in KEPT}
    for persona in rows["personas"]:
        check_persona(persona)
    for talk in rows["conversations"]:
        check_talk(talk)
    check_vectors(rows)
    return rows


def checked_table(kept: Kept, given: Any) -> list[Row]:
    """Check the rows of one table, and that no two of them are the same.

    Raises:
        BadSnapshot: They are not what they should be.
    """
    if not isinstance(given, list):
        raise BadSnapshot(f"{kept.name}: a list of rows is expected", field=kept.name)
    model = model_of(kept)
    rows = [checked_row(kept, model, number, row) for number, row in enumerate(given)]
    for names in (kept.key, *kept.uniques, *([(PLACE,)] if kept.ordered else [])):
        seen: set[Any] = set()
        for row in rows:
            value = tuple(row[name] for name in names)
            if None not in value and value in seen:
                raise wrong(kept, row, ", ".join(names), "different from every other row's", value)
            seen.add(value)
    return rows


def checked_row(kept: Kept, model: type[BaseModel], number: int, given: Any) -> Row:
    """Check one row.

    Raises:
        BadSnapshot: It is not what it should be.
    """
    try:
        return dict(model.model_validate(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"]) or "row"
        row = given if isinstance(given, dict) else {}
        found = first.get("input") if path != "row" else given
        raise wrong(kept, row, path, first["msg"].lower(), found, number) from None


@cache
def model_of(kept: Kept) -> type[BaseModel]:
    """Make the model of a table's rows."""
    hints = get_type_hints(kept.kind)
    columns: dict[str, Any] = {c.name: (type_of(kept, c, hints), ...) for c in kept.columns}
    if kept.ordered:
        columns[PLACE] = (Annotated[int, Field(ge=1, lt=INT64)], ...)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return create_model(kept.kind.__name__, __config__=config, **columns)


def type_of(kept: Kept, column: Column[Any], hints: Mapping[str, Any]) -> Any:
    """Make the type of a column's values."""
    special = SPECIAL.get(f"{kept.name}.{column.name}")
    if special is not None:
        return special
    mapped = get_args(hints[column.name])[0]
    plain = get_args(mapped)[0] if column.nullable else mapped
    if isinstance(column.type, JSON):
        read = [BeforeValidator(from_pairs)] if column.name in kept.pairs else []
        limited: Any = Annotated[plain, AfterValidator(shallow), *read]
    elif isinstance(column.type, String):
        limited = text_of(column)
    elif isinstance(column.type, Integer):
        limited = Annotated[int, Field(ge=-INT64, lt=INT64)]
    elif is_time(column.name):
        limited = Time
    else:
        limited = plain
    return Union[limited, None] if column.nullable else limited  # noqa: UP007 - of values


def text_of(column: Column[Any]) -> Any:
    """Make the type of a text: an id, or one of limited length."""
    if column.type is ID:
        return Annotated[str, Field(pattern=ID_PATTERN)]
    length = None if isinstance(column.type, Text) else getattr(column.type, "length", None)
    return Annotated[str, Field(max_length=length or LONGEST_TEXT), AfterValidator(storable)]


def check_persona(row: Row) -> None:
    """Make sure that a persona is one that could have been created, or is deleted.

    Raises:
        BadSnapshot: It is not.
    """
    kept = KEPT[0]
    if row["deleted_at"] is not None:
        if row["name_key"] is not None:
            raise wrong(kept, row, "name_key", "null, since it is deleted", row["name_key"])
        return
    if row["name_key"] != name_key(row["name"]):
        raise wrong(kept, row, "name_key", "the name, casefolded", row["name_key"])
    try:
        PersonaSpec.model_validate({name: row[name] for name in PersonaSpec.model_fields})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise wrong(kept, row, path, first["msg"].lower(), first.get("input")) from None


def check_talk(row: Row) -> None:
    """Make sure that a chat has its two, and that a talk between personas can be looked at.

    Such a talk without a plan has ended: it was imported.

    Raises:
        BadSnapshot: It is not so.
    """
    kept = BY_NAME["conversations"]
    if row["kind"] == "chat":
        for name in ("persona_id", "user_id"):
            if row[name] is None:
                raise wrong(kept, row, name, "an id, since it is a chat", None)
        return
    if not row["participants"]:
        raise wrong(kept, row, "participants", "those who talk", [])
    if not row["plan"] and row["status"] == "ended":
        return
    known = {
        name: value for name, value in (row["plan"] or {}).items() if name in Plan.model_fields
    }
    try:
        Plan.model_validate_json(json.dumps(known), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(["plan", *(str(part) for part in first["loc"])])
        raise wrong(kept, row, path, first["msg"].lower(), first.get("input")) from None
    for name, (low, high) in BUDGETS.items():
        if not low <= known[name] <= high:
            raise wrong(kept, row, f"plan.{name}", f"{low}..{high}", known[name])
    if known["first_speaker"] not in row["participants"]:
        raise wrong(kept, row, "plan.first_speaker", "one of participants", known["first_speaker"])


def check_vectors(rows: Rows) -> None:
    """Make sure that the vectors of one embedder are of one length and of their memory's owner.

    Raises:
        BadSnapshot: They are not.
    """
    owners = {row["id"]: row["persona_id"] for row in rows["memories"]}
    lengths: dict[str, int] = {}
    kept = next(kept for kept in KEPT if kept.name == "memory_vectors")
    for row in rows[kept.name]:
        length = lengths.setdefault(row["model_id"], len(row["vector"]))
        if length != len(row["vector"]):
            raise wrong(kept, row, "vector", f"{length} bytes, as the others", len(row["vector"]))
        if owners.get(row["memory_id"], row["persona_id"]) != row["persona_id"]:
            raise wrong(kept, row, "persona_id", "its memory's owner", row["persona_id"])


def check_references(rows: Rows, there: Mapping[str, Set[str]]) -> None:
    """Make sure that what a row refers to is in the saved state, or in the world already.

    Raises:
        BadSnapshot: It is not; names it.
    """
    names = {target for kept in KEPT for target in kept.refers.values()}
    known = {name: {row["id"] for row in rows[name]} | set(there.get(name, ())) for name in names}
    for kept in KEPT:
        for column, target in kept.refers.items():
            for row in rows[kept.name]:
                if row[column] is not None and row[column] not in known[target]:
                    raise wrong(kept, row, column, f"a row of {target} that is there", row[column])


def wrong(
    kept: Kept, row: Mapping[str, Any], field: str, allowed: str, given: Any, number: int = 0
) -> BadSnapshot:
    """Name the value that is not what it should be."""
    try:
        key = "/".join(str(part) for part in key_of(kept, row))
    except KeyError:
        key = f"number {number + 1}"
    return BadSnapshot(
        f"{kept.name} {key:.200}: {field}: allowed is {allowed}, given was {shorten(given)}; "
        "nothing was changed",
        table=kept.name,
        row=key[:200],
        field=field,
    )
