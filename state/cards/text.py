"""The JSON of a character card: read strictly, and written back as its numbers were spelled."""

import json
import math
import re
import secrets
from collections.abc import Callable
from typing import Any, NoReturn

from persona_mcp.state.errors import BadSnapshot

JSON_BYTES = 8 * 2**20
DEPTH = 64
SPELLED = f"number:{secrets.token_hex(8)}:"
"""Stands before a number that Python would spell in another way; nobody can guess it."""
SPELLED_NUMBER = re.compile(f'"{SPELLED}([^"]*)"')
HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
Json = dict[str, Any]


def bad_card(why: str) -> BadSnapshot:
    """Make the error for a card that cannot be read."""
    return BadSnapshot(f"this is no character card that can be read: {why}")


def decoded(raw: bytes) -> str:
    """Decode the JSON of a card.

    Raises:
        BadSnapshot: It is too large, or no UTF-8.
    """
    if len(raw) > JSON_BYTES:
        raise bad_card(f"its JSON has {len(raw):,} bytes, and {JSON_BYTES:,} are allowed")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_card(f"its JSON is not UTF-8 (byte {error.start:,})") from error


def parsed(text: str) -> Json:
    """Read a JSON object.

    Raises:
        BadSnapshot: It is no JSON object, a name stands twice in one, a number is not finite, or it
            is deeper than 64.
    """
    return _read(text, _integer, _finite)


def respelled(text: str, change: Callable[[Json], Json]) -> str:
    """Change a JSON object, and leave the order of its names and the spelling of its numbers."""
    changed = change(_read(text, _spelled_integer, _spelled_float))
    return SPELLED_NUMBER.sub(r"\1", json.dumps(changed, ensure_ascii=False, indent=2))


def _read(text: str, integer: Callable[[str], Any], real: Callable[[str], Any]) -> Json:
    try:
        found = json.loads(
            text,
            parse_int=integer,
            parse_float=real,
            parse_constant=_no_constant,
            object_pairs_hook=_once,
        )
    except RecursionError as error:
        raise bad_card(f"its JSON is deeper than {DEPTH}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise bad_card(f"it is no JSON: {error.msg} at {where}") from error
    if not isinstance(found, dict):
        raise bad_card("its JSON is no object")
    _check_depth(found)
    if HALF_CHARACTER.search(text):
        _check_characters(found)
    return found


def _check_characters(found: Json) -> None:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise bad_card("its JSON has half a character (a lone surrogate)") from error


def _check_depth(found: Json) -> None:
    level: list[Any] = [found]
    for _ in range(DEPTH):
        level = [
            item
            for one in level
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise bad_card(f"its JSON is deeper than {DEPTH}")


def _once(pairs: list[tuple[str, Any]]) -> Json:
    found: Json = {}
    for name, value in pairs:
        if name in found:
            raise bad_card(f"'{name[:40]}' stands twice in one object of its JSON")
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise bad_card(f"{name} in its JSON is no number")


def _integer(spelling: str) -> int:
    try:
        return int(spelling)
    except ValueError as error:
        raise bad_card(f"a number in its JSON has {len(spelling):,} digits") from error


def _finite(spelling: str) -> float:
    number = float(spelling)
    if not math.isfinite(number):
        raise bad_card(f"the number {spelling[:40]} in its JSON is too large")
    return number


def _spelled_integer(spelling: str) -> Any:
    return found if str(found := _integer(spelling)) == spelling else SPELLED + spelling


def _spelled_float(spelling: str) -> Any:
    return found if repr(found := _finite(spelling)) == spelling else SPELLED + spelling
