"""Casts, jobs, outcomes and calls of a batch as canonical JSON, and back.

Canonical: UTF-8, keys sorted, no spaces, so that equal values are equal bytes. Bytes are base64,
and objects whose keys stand in an order that somebody chose are lists of pairs. What was measured
of an outcome is left out.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import LargeBinary

from persona_mcp.state.batch.values import Cast, CastMember, Job, Outcome, Place, RecordedCall
from persona_mcp.state.dialogue_spec import TalkSpec, Tie
from persona_mcp.state.errors import BadSnapshot
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.snapshots.rows import Row, Rows
from persona_mcp.state.snapshots.tables import BY_NAME

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
ORDERED = BY_NAME["personas"].pairs
"""Fields of a persona whose keys stand in an order that prompts follow."""
BYTES = {
    name: frozenset(c.name for c in kept.columns if isinstance(c.type, LargeBinary))
    for name, kept in BY_NAME.items()
}
Views = Mapping[tuple[str, str], Mapping[str, float]]


def canonical(value: Any) -> str:
    """Write a JSON value: keys sorted, no spaces, letters as they are.

    Raises:
        ValueError: It holds a number that is none.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def outcome_json(outcome: Outcome) -> str:
    """Write an outcome, without what was measured."""
    return canonical(
        {
            "job": from_job(outcome.job),
            "status": outcome.status,
            "exit_reason": outcome.exit_reason,
            "error": outcome.error,
            "rows": from_rows(outcome.rows),
            "before": from_views(outcome.before),
            "after": from_views(outcome.after),
            "ended_at": outcome.ended_at,
            "calls": outcome.calls,
        }
    )


def read_outcome(text: str | bytes, measured: Mapping[str, float] | None = None) -> Outcome:
    """Read an outcome.

    Raises:
        BadSnapshot: It is none.
    """

    def made(found: dict[str, Any]) -> Outcome:
        return Outcome(
            **{
                **found,
                "job": to_job(found["job"]),
                "rows": to_rows(found["rows"]),
                "before": to_views(found["before"]),
                "after": to_views(found["after"]),
            },
            measured=dict(measured or {}),
        )

    return read("outcome", text, made)


def call_json(call: RecordedCall) -> str:
    """Write a call of the model."""
    return canonical(vars(call))


def read_call(text: str | bytes) -> RecordedCall:
    """Read a call of the model.

    Raises:
        BadSnapshot: It is none.
    """
    return read("call", text, lambda found: RecordedCall(**found))


def cast_json(cast: Cast) -> str:
    """Write a cast."""
    return canonical(
        {
            "members": [
                {
                    "id": member.id,
                    "spec": from_spec(member.spec),
                    "memories": list(member.memories),
                    "card": member.card,
                }
                for member in cast.members
            ],
            "ties": [tie.model_dump(mode="json") for tie in cast.ties],
            "kept": from_rows(cast.kept),
        }
    )


def read_cast(text: str | bytes) -> Cast:
    """Read a cast.

    Raises:
        BadSnapshot: It is none.
    """

    def made(found: dict[str, Any]) -> Cast:
        return Cast(
            members=tuple(
                CastMember(
                    id=member["id"],
                    spec=to_spec(member["spec"]),
                    memories=tuple(member["memories"]),
                    card=member["card"],
                )
                for member in found["members"]
            ),
            ties=tuple(strictly(Tie, tie) for tie in found["ties"]),
            kept=to_rows(found["kept"]),
        )

    return read("cast", text, made)


def read(kind: str, text: str | bytes, made: Callable[[dict[str, Any]], T]) -> T:
    """Read a JSON object as a value.

    Raises:
        BadSnapshot: It is none.
    """
    try:
        return made(json.loads(text))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise BadSnapshot(
            f"the {kind} of the batch cannot be read: it is damaged, or of another version",
            kind=kind,
        ) from error


def from_job(job: Job) -> dict[str, Any]:
    """Write a job as a JSON value."""
    return {
        **{field.name: getattr(job, field.name) for field in fields(job)},
        "place": vars(job.place),
        "talk": job.talk.model_dump(mode="json"),
    }


def to_job(found: dict[str, Any]) -> Job:
    """Read a job."""
    talk = strictly(TalkSpec, found["talk"])
    return Job(**{**found, "place": Place(**found["place"]), "talk": talk})


def strictly(model: type[M], found: Any) -> M:
    """Read what a strict model was written as."""
    return model.model_validate_json(json.dumps(found))


def from_spec(spec: PersonaSpec) -> dict[str, Any]:
    """Write who a persona is, the order of its traits and topics kept."""
    return {
        name: [list(pair) for pair in value.items()] if name in ORDERED else value
        for name, value in spec.model_dump(mode="json").items()
    }


def to_spec(found: Mapping[str, Any]) -> PersonaSpec:
    """Read who a persona is."""
    return PersonaSpec.model_validate(
        {name: dict(value) if name in ORDERED else value for name, value in found.items()}
    )


def from_rows(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Write rows as a JSON value."""
    return {name: [from_row(name, row) for row in its] for name, its in rows.items()}


def from_row(table: str, row: Row) -> dict[str, Any]:
    """Write a row as a JSON value."""
    pairs, blobs = BY_NAME[table].pairs, BYTES[table]
    found = dict(row)
    for name in pairs & row.keys():
        found[name] = [list(pair) for pair in row[name].items()]
    for name in blobs & row.keys():
        found[name] = None if row[name] is None else base64.b64encode(row[name]).decode()
    return found


def to_rows(found: Mapping[str, Sequence[Row]]) -> Rows:
    """Read rows."""
    return {name: [to_row(name, row) for row in its] for name, its in found.items()}


def to_row(table: str, found: Row) -> Row:
    """Read a row."""
    row = dict(found)
    for name in BY_NAME[table].pairs & found.keys():
        row[name] = dict(found[name])
    for name in BYTES[table] & found.keys():
        row[name] = None if found[name] is None else base64.b64decode(found[name], validate=True)
    return row


def from_views(views: Views) -> list[list[Any]]:
    """Write how some see each other, in order of who and whom."""
    return [[who, whom, dict(views[who, whom])] for who, whom in sorted(views)]


def to_views(found: Sequence[Sequence[Any]]) -> dict[tuple[str, str], dict[str, float]]:
    """Read how some see each other."""
    return {(who, whom): values for who, whom, values in found}
