"""Personas in files: those that come with the product, and people's own."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from persona_mcp.state.errors import InvalidParams, NotFound
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.validation import shorten, validate

MERGE = "<<"
FILE_BYTES = 1_048_576
# Beside its own errors PyYAML lets through what Python makes of a tagged or impossible value.
UNREADABLE = (
    yaml.YAMLError,
    RecursionError,
    ValueError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
)


@cache
def bundled_personas() -> tuple[PersonaSpec, ...]:
    """Return the personas that a new world begins with, by file name."""
    folder = files("persona_mcp.config") / "personas"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return tuple(parse((folder / name).read_text(encoding="utf-8"), name) for name in names)


def read_persona(path: Path) -> PersonaSpec:
    """Read a persona from a YAML (or JSON) file.

    Raises:
        NotFound: There is no such file.
        InvalidParams: It is too large, no YAML, or says something that is not allowed.
    """
    return parse(text_of(path), path.name)


def read_fields(path: Path) -> dict[str, Any]:
    """Read some fields of a persona from a YAML (or JSON) file; they are not validated yet.

    Raises:
        NotFound: There is no such file.
        InvalidParams: It is too large, or no YAML with fields.
    """
    return fields_of(text_of(path), path.name)


def text_of(path: Path) -> str:
    """Read a file.

    Raises:
        NotFound: There is no such file.
        InvalidParams: It is too large, or no text.
    """
    if not path.is_file():
        raise NotFound.of("file", str(path))
    if path.stat().st_size > FILE_BYTES:
        size = f"{path.stat().st_size} bytes"
        raise InvalidParams.one(path.name, f"at most {FILE_BYTES} bytes", size)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        allowed = "text in UTF-8; a picture or an archive is a card, for `persona import`"
        given = f"another byte at {error.start}"
        raise InvalidParams.one(path.name, allowed, given) from error


class StrictLoader(yaml.SafeLoader):
    """Reads plain values only, and refuses a key that stands twice: one of them would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping of a node.

        Raises:
            ConstructorError: A key stands twice; its mark is the second one's.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != MERGE:
                problem = f"the key '{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def parse(text: str, name: str) -> PersonaSpec:
    """Read a persona from YAML.

    Raises:
        InvalidParams: No YAML (with the line), or something that is not allowed (with the field).
    """
    return validate(PersonaSpec, fields_of(text, name))


def fields_of(text: str, name: str) -> dict[str, Any]:
    """Read fields with values from YAML.

    Raises:
        InvalidParams: It is no YAML (with the line), or something else.
    """
    try:
        raw: Any = yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark else "the text"
        problem = getattr(error, "problem", None) or "unreadable"
        raise InvalidParams.one(f"{name}, {line}", "YAML", problem) from error
    if not isinstance(raw, dict):
        allowed = "fields with values, such as name: Aria"
        raise InvalidParams.one(name, allowed, shorten(raw))
    return {str(key): value for key, value in raw.items()}
