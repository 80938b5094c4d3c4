"""What is wrong with a specification, all of it at once: by path, what is allowed, what was given.

`config/spec_files.py` puts lines to them.
"""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import ValidationError

from persona_mcp.state.dialogue_spec import DialogueSpec
from persona_mcp.state.errors import Fault, InvalidParams
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.validation import distinct, fault, given, told, unwritable, validate

FAULTS_MOST = 50
"""More are not looked for."""
FOUND_MOST = 1000
"""Nor is after so many: a batch may have one and the same fault a million times."""
NAMED_MOST = 12
"""Names that a message lists."""


def spec_of(raw: Mapping[str, Any]) -> DialogueSpec:
    """Check a specification strictly; null for an optional field counts as absent.

    Raises:
        InvalidParams: One fault or more.
    """
    cannot = [told(*found, "") for found in islice(unwritable(raw), FAULTS_MOST)]
    if cannot:
        raise refused(distinct(cannot))
    try:
        return DialogueSpec.model_validate(given(DialogueSpec, raw), strict=True)
    except ValidationError as error:
        found = islice(error.errors(include_url=False), 2 * FAULTS_MOST)
        raise refused(distinct([fault(DialogueSpec, dict(e)) for e in found])) from None


def refused(faults: Sequence[Fault]) -> InvalidParams:
    """Make one error of all faults, the first one leading."""
    error = InvalidParams.of(faults)
    error.data["errors"] = list(faults[:FAULTS_MOST])
    return error


def first_of(faults: Iterable[Fault]) -> list[Fault]:
    """Take the first faults, one a field."""
    found: dict[str, Fault] = {}
    for one in islice(faults, FOUND_MOST):
        found.setdefault(one["field"], one)
        if len(found) >= FAULTS_MOST:
            break
    return list(found.values())


def known(given: str, names: Collection[str], what: str) -> str:
    """Say which names there are, the nearest first: `one of the cast: did you mean ada? ...`."""
    near = difflib.get_close_matches(given, list(names), 1)
    hint = f"did you mean {near[0]}? " if near else ""
    listed = ", ".join(list(names)[:NAMED_MOST])
    more = ", ..." if len(names) > NAMED_MOST else ""
    return f"{what}: {hint}there are {listed}{more}"


def change_faults(path: str, changes: Mapping[str, Any]) -> Iterator[Fault]:
    """Find which changes of a persona are no fields of one, or not allowed there."""
    try:
        validate(PersonaSpec, {"name": "Somebody", **changes}, path)
    except InvalidParams as error:
        yield from error.faults
    for name, value in changes.items():
        if value is None and name in PersonaSpec.model_fields:
            yield {
                "field": f"{path}.{name}",
                "allowed": "a value, or no such line",
                "given": "null",
            }
