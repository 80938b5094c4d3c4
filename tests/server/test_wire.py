"""The one map from errors to the wires, against the table of operations.md 4.2."""

from collections.abc import Iterator

import pytest

from persona_mcp.server.wire import WIRES, Wire, problem_of
from persona_mcp.state import errors
from persona_mcp.state.correlation import correlation
from persona_mcp.state.errors import Fault, InvalidParams, ModelError, NotFound, PersonaError

TABLE = {
    "parse_error": (-32700, 400),
    "invalid_request": (-32600, 400),
    "method_not_found": (-32601, 404),
    "invalid_params": (-32602, 422),
    "internal_error": (-32603, 500),
    "not_found": (-32000, 404),
    "no_current_persona": (-32001, 409),
    "memory_error": (-32002, 503),
    "llm_error": (-32003, 502),
    "persona_unavailable": (-32004, 409),
    "conflict": (-32005, 409),
    "forbidden": (-32006, 403),
    "unauthenticated": (-32007, 401),
    "rate_limited": (-32008, 429),
    "limit_exceeded": (-32009, 413),
    "timeout": (-32010, 504),
    "cancelled": (-32011, 499),
    "bad_snapshot": (-32012, 422),
    "not_configured": (-32013, 501),
}
RETRYABLE = {"memory_error", "llm_error", "persona_unavailable", "rate_limited", "timeout"}


def every_error(base: type[PersonaError] = PersonaError) -> Iterator[type[PersonaError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from every_error(kind)


def test_each_code_has_the_numbers_that_the_reference_gives_it() -> None:
    assert {code: Wire(rpc, http) for code, (rpc, http) in TABLE.items()} == WIRES


def test_no_two_codes_share_a_number() -> None:
    assert len({wire.rpc for wire in WIRES.values()}) == len(WIRES)


@pytest.mark.parametrize("kind", list(every_error()))
def test_every_error_has_a_code_on_the_wires(kind: type[PersonaError]) -> None:
    problem = problem_of(kind("what was wrong"))

    assert problem["code"] == TABLE[kind.code][0]
    assert problem["message"] == "what was wrong"
    assert problem["data"] == {"code": kind.code, "retryable": kind.code in RETRYABLE}


def test_every_code_is_some_errors() -> None:
    assert {kind.code for kind in every_error()} == set(TABLE)


def test_the_drawing_of_the_tree_names_every_error() -> None:
    drawn = errors.__doc__ or ""

    for kind in every_error():
        assert f"── {kind.__name__} " in drawn
        assert kind.code in drawn


def test_a_problem_has_what_the_error_says_and_the_correlation_id() -> None:
    with correlation("call-1"):
        problem = problem_of(NotFound.of("persona", "arya", ["Aria"]))

    assert problem == {
        "code": -32000,
        "message": "persona 'arya' not found; did you mean Aria?",
        "data": {
            "code": "not_found",
            "retryable": False,
            "correlation_id": "call-1",
            "kind": "persona",
            "id": "arya",
            "suggestions": ["Aria"],
        },
    }


def test_what_an_error_does_not_know_is_left_out() -> None:
    assert "stage" not in problem_of(ModelError("down", stage=None))["data"]


def test_an_invalid_argument_names_field_range_and_value() -> None:
    fault: Fault = {"field": "limit", "allowed": "whole number 1..200", "given": "0"}

    data = problem_of(InvalidParams.of([fault] * 2))["data"]

    assert (data["field"], data["allowed"], data["given"]) == ("limit", "whole number 1..200", "0")
    assert data["errors"] == [fault] * 2
