"""JSON as columns hold it: written and read a dozen times for each turn of a talk."""

import json
from typing import Any

import orjson

STRICTLY = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
"""What json does not take is not taken; but plain enumerations and UUIDs are."""
_scan: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def write_json(value: Any) -> str:
    """Write a value of JSON; what orjson has no form for, such as 2**64, as json does.

    NaN and the infinite become null where orjson writes: JSON has no such number.

    Raises:
        TypeError: It is no value of JSON.
    """
    try:
        return orjson.dumps(value, None, STRICTLY).decode()
    except TypeError:
        return json.dumps(value)


def read_json(text: str) -> Any:
    """Read a text of JSON, whole numbers of any length as they are.

    Raises:
        ValueError: It is none.
        TypeError: It is no text.
    """
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        end = -1
    return value if end == len(text) else json.loads(text)
