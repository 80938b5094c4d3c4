import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.fields import clean_text, deeper_than, lower, small_object, whole_number


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\r", "\x7f", "\x85", "\ud800", "\udfff"])
def test_control_characters_and_halves_are_refused(character: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        clean_text(f"a{character}b")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_other_text_is_normalised_once(text: str) -> None:
    once = clean_text(text)

    assert clean_text(once) == once


@pytest.mark.parametrize("value", [5, None, True, ["a"], b"a"])
def test_what_is_not_text_is_left_to_the_type_check(value: object) -> None:
    assert clean_text(value) is value


@pytest.mark.parametrize(("given", "kept"), [(5.0, 5), (-0.0, 0), (1e3, 1000)])
def test_whole_floats_become_integers(given: float, kept: int) -> None:
    found = whole_number(given)

    assert found == kept
    assert isinstance(found, int)


@pytest.mark.parametrize("value", [5.5, float("inf"), float("nan"), "5", True, None])
def test_other_values_are_left_to_the_type_check(value: object) -> None:
    assert whole_number(value) is value


def test_levels_are_counted_through_objects_and_lists() -> None:
    value = {"a": [1, {"b": 2}]}

    assert not deeper_than(value, 3)
    assert deeper_than(value, 2)
    assert not deeper_than(5, 0)
    assert deeper_than([], 0)


def test_a_small_object_passes_and_a_large_one_does_not() -> None:
    assert small_object({"a": "x" * 4000}) == {"a": "x" * 4000}
    with pytest.raises(ValueError, match="4096 bytes"):
        small_object({"a": "x" * 4096})


def test_case_is_folded_down() -> None:
    assert lower("NOBLE") == "noble"
