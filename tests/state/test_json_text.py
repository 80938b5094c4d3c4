"""Columns of JSON hold what the standard library's JSON would hold."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.json_text import read_json, write_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@dataclass
class Point:
    x: int


class Mood(StrEnum):
    CALM = "calm"


@given(VALUES)
def test_what_is_written_is_read_as_json_reads_it(value: Any) -> None:
    text = write_json(value)

    assert read_json(text) == json.loads(text) == json.loads(json.dumps(value))


@given(VALUES)
def test_what_json_wrote_before_is_read_as_it_was(value: Any) -> None:
    assert read_json(json.dumps(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "value",
    [2**70, -(2**64), {"n": [10**40]}, "\ud800", ("a", 1), {1: "one"}, Mood.CALM, {"m": Mood.CALM}],
)
def test_what_json_takes_is_taken(value: Any) -> None:
    assert read_json(write_json(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "value", [object(), {"a": object()}, {1, 2}, b"bytes", Point(1), datetime.now(UTC)]
)
def test_what_is_no_value_of_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        write_json(value)


@pytest.mark.parametrize("text", ["", "{", "[1] 2", "nothing", '{"a": 1}}'])
def test_a_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        read_json(text)


def test_spaces_around_a_value_are_no_fault() -> None:
    assert read_json(' {"a": 1} ') == {"a": 1}
