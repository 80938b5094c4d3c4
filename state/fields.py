"""Types of the fields that come from outside: operations' arguments and persona files.

All are meant for pydantic's strict mode, in which nothing is coerced: text stays text, a boolean is
not a number, and out of range is refused, never clamped.
"""

import json
import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from persona_mcp.state.moments import moment

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
SESSION_PATTERN = r"^[A-Za-z0-9_-]{22,64}$"
REFUSED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Unicode's categories Cc (control characters, but tab and newline) and Cs (surrogates)."""
METADATA_BYTES = 4096
METADATA_DEPTH = 4


def clean_text(value: object) -> object:
    """Normalise text to NFC and trim it; other types pass, for the type check to refuse.

    Raises:
        ValueError: A control character other than tab and newline, or half a character.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n")
    if REFUSED.search(text):
        raise ValueError("text without control characters (tab and newline are fine)")
    return unicodedata.normalize("NFC", text).strip()


def without_refused(text: str) -> str:
    """Take out what a text from outside may not have: of what a model says nobody is told off."""
    return REFUSED.sub("", text)


def whole_number(value: object) -> object:
    """Take 5.0 for 5, as JSON does; 5.5 and the rest pass, for the type check to refuse."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def lower(value: str) -> str:
    """Fold to lower case."""
    return value.lower()


def deeper_than(value: Any, levels: int) -> bool:
    """Tell whether objects and lists are nested deeper; looks no further down than that."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(deeper_than(v, levels - 1) for v in value)


def small_object(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse an object of more than 4 KiB as JSON or deeper than 4 levels."""
    if deeper_than(value, METADATA_DEPTH) or len(json.dumps(value).encode()) > METADATA_BYTES:
        raise ValueError("a JSON object of at most 4096 bytes and 4 levels")
    return value


Text = Annotated[str, BeforeValidator(clean_text)]
WHOLE = BeforeValidator(whole_number)
"""Stands last in `Annotated[int, Field(ge=.., le=..), WHOLE]`, or the schema loses the range."""
Number = Annotated[float, Field(allow_inf_nan=False)]
Id = Annotated[str, Field(pattern=ID_PATTERN), BeforeValidator(clean_text)]
SessionId = Annotated[str, Field(pattern=SESSION_PATTERN), BeforeValidator(clean_text)]
Reference = Annotated[Text, Field(min_length=1, max_length=80)]
"""A persona's id, or its exact name in any case."""
Moment = Annotated[
    Number,
    BeforeValidator(moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time: RFC 3339 outside, seconds since the epoch, UTC, inside."""
Metadata = Annotated[dict[str, Any], AfterValidator(small_object)]
