"""A saved state as bytes: canonical JSON, and the envelope with its check sum around it.

Canonical: UTF-8, keys sorted, no blanks, shortest floats that read back the same, rows sorted by
their keys. So the same world gives the same bytes, and the check sum is over what they say, not
over how some other program has laid them out.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from persona_mcp.state.errors import BadSnapshot
from persona_mcp.state.snapshots.rows import Rows, Selection
from persona_mcp.state.snapshots.steps import Tables, brought_up
from persona_mcp.state.snapshots.tables import FORMAT, SCHEMA

ENCODE = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode
LEVELS = 3
"""Payload, tables, rows: down to a row the text is made piece by piece, so that a large world does
not keep every other thread from running."""
PARTS_OF_FILE = {"format", "payload", "sha256"}
PARTS_OF_PAYLOAD = {"format", "schema", "include", "persona_ids", "tables"}


@dataclass(frozen=True)
class Opened:
    """A saved state whose format and check sum are right; its rows are still to be checked.

    Attributes:
        tables: The rows, in the form of today's schema.
        sha256: Of the payload.
        size: Bytes of the payload.
    """

    tables: Tables
    sha256: str
    size: int


def payload_of(rows: Rows, selection: Selection) -> bytes:
    """Write the payload: what the check sum is over."""
    chosen = selection.persona_ids
    return canonical(
        {
            "format": FORMAT,
            "schema": SCHEMA,
            "include": sorted(selection.parts),
            "persona_ids": None if chosen is None else sorted(chosen),
            "tables": rows,
        }
    )


def canonical(value: Any) -> bytes:
    """Write canonical JSON.

    Raises:
        ValueError: There is an infinite number, or one that is none, in it.
    """
    return "".join(pieces(value, LEVELS)).encode("utf-8")


def pieces(value: Any, levels: int) -> Iterator[str]:
    """Write canonical JSON, the inner levels in one piece each."""
    if levels and isinstance(value, dict):
        for place, key in enumerate(sorted(value)):
            yield f"{',' if place else '{'}{ENCODE(key)}:"
            yield from pieces(value[key], levels - 1)
        yield "}" if value else "{}"
    elif levels and isinstance(value, list):
        for place, item in enumerate(value):
            yield "," if place else "["
            yield from pieces(item, levels - 1)
        yield "]" if value else "[]"
    else:
        yield ENCODE(value)


def digest(payload: bytes) -> str:
    """Return the check sum of a payload."""
    return hashlib.sha256(payload).hexdigest()


def enveloped(payload: bytes) -> bytes:
    """Put a payload into a file that tells its format and its check sum."""
    return b'{"format":"%s","payload":%s,"sha256":"%s"}\n' % (
        FORMAT.encode(),
        payload,
        digest(payload).encode(),
    )


def open_file(data: bytes | Mapping[str, Any]) -> Opened:
    """Read a file, or what was read of one as JSON already.

    Raises:
        BadSnapshot: It is no saved state, cut off, edited, or of another format.
    """
    file = parsed(data) if isinstance(data, bytes) else data
    if not isinstance(file, Mapping) or set(file) != PARTS_OF_FILE:
        raise bad(
            "file", "an object with format, payload and sha256 is expected, as state_export writes"
        )
    if file["format"] != FORMAT:
        raise bad("format", f"only {FORMAT} can be read, this one is {file['format']!r:.60}")
    return open_payload(file["payload"], file["sha256"])


def open_payload(payload: Any, sha256: Any) -> Opened:
    """Check what a payload, as JSON or its bytes, says against its check sum.

    Raises:
        BadSnapshot: It says something else, or is of another format.
    """
    told = parsed(payload) if isinstance(payload, bytes) else payload
    try:
        text = canonical(told)
    except (ValueError, RecursionError, TypeError):
        raise bad(
            "payload", "it holds what is no JSON: an infinite number, or too many levels"
        ) from None
    if digest(text) != sha256:
        raise bad(
            "sha256",
            "the check sum is another one: the file was edited or is damaged, or one wrote it "
            "anew with 1 in place of 1.0 (send it as base64 of its bytes then)",
        )
    if not isinstance(told, dict) or set(told) != PARTS_OF_PAYLOAD or told["format"] != FORMAT:
        raise bad("payload", f"no payload of {FORMAT}")
    return Opened(brought_up(told["tables"], told["schema"]), digest(text), len(text))


def parsed(data: bytes) -> Any:
    """Read JSON.

    Raises:
        BadSnapshot: It is none.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=no_number)
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
        raise bad("file", "it is no JSON in UTF-8, or cut off") from None


def no_number(word: str) -> NoReturn:
    """Refuse Infinity and NaN, which are no JSON."""
    raise ValueError(word)


def bad(field: str, what: str) -> BadSnapshot:
    """Say what is wrong with a file; nothing was changed."""
    return BadSnapshot(f"{field}: {what}; nothing was changed", field=field)
