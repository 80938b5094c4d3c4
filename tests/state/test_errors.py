import re
from collections.abc import Iterator

import pytest

from persona_mcp.state import errors
from persona_mcp.state.errors import (
    FAULTS_LISTED,
    Fault,
    InvalidParams,
    InvalidSettings,
    NotFound,
    PersonaError,
)

RETRYABLE = {
    "StorageUnavailable",
    "ModelError",
    "PersonaUnavailable",
    "RateLimited",
    "DeadlineExceeded",
}


def descendants(kind: type[PersonaError]) -> Iterator[type[PersonaError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_the_picture_of_the_tree_is_true() -> None:
    picture = dict(re.findall(r"[├└]── (\w+) +(\w+) ", errors.__doc__ or ""))

    assert picture == {kind.__name__: kind.code for kind in descendants(PersonaError)}


def test_what_may_succeed_later_says_so() -> None:
    assert {kind.__name__ for kind in descendants(PersonaError) if kind.retryable} == RETRYABLE


@pytest.mark.parametrize("kind", list(descendants(PersonaError)), ids=lambda kind: kind.__name__)
def test_an_error_has_a_message_and_data_without_gaps(kind: type[PersonaError]) -> None:
    error = kind("no", field="a", given=None, number=0)

    assert (str(error), error.message) == ("no", "no")
    assert error.data == {"field": "a", "number": 0}


def test_codes_are_one_a_class() -> None:
    kinds = [kind for kind in descendants(PersonaError) if kind is not InvalidSettings]

    assert len({kind.code for kind in kinds}) == len(kinds)


def test_faults_are_told_with_the_first_one_leading() -> None:
    faults: list[Fault] = [{"field": f"f{n}", "allowed": "text", "given": "1"} for n in range(30)]

    error = InvalidParams.of(faults)

    assert error.message == "f0: allowed is text, given was 1 (and 29 more)"
    assert (error.data["field"], len(error.data["errors"])) == ("f0", FAULTS_LISTED)
    assert InvalidParams.of(faults[:1]).message == "f0: allowed is text, given was 1"


def test_a_field_that_was_left_out_is_called_required() -> None:
    missing: Fault = {"field": "query", "allowed": "required", "given": "nothing"}

    error = InvalidParams.of([missing, {"field": "limit", "allowed": "text", "given": "1"}])

    assert error.message == "query is required (and 1 more)"
    assert error.data["errors"][0] == missing


def test_what_is_not_found_is_named_with_up_to_three_near_names() -> None:
    error = NotFound.of("persona", "Ana", ["Anna", "Anja", "Ina", "Bo"])

    assert error.message == "persona 'Ana' not found; did you mean Anna, Anja, Ina?"
    assert NotFound.of("file", "x").message == "file 'x' not found"


def test_who_is_not_like_what_was_looked_for_is_not_called_what_was_meant() -> None:
    error = NotFound.of("persona", "Bob", ["Aria", "Kira"])

    assert error.message == "persona 'Bob' not found; others are Aria, Kira"
