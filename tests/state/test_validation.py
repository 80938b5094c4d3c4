import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.fields import Id, Metadata, Number, Reference, Text
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.validation import GIVEN_LENGTH, cut, in_words, shorten, validate
from tests.work import work_counted

NAMES = ", ".join(PersonaSpec.model_fields)


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    flag: bool = False
    count: int = Field(0, ge=1)


class Arguments(BaseModel):
    """Kinds of fields that a persona has none of."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    who: Reference | None = None
    data: Metadata = Field(default_factory=dict)
    parts: list[Part] = Field(default_factory=list, min_length=0)
    part: Part | None = None
    ratio: Number | None = Field(None, le=1)
    above: float = Field(1.0, gt=0, lt=9)
    any: Any = None
    only: Part | Text | None = None


def faults_of(model: type[BaseModel], raw: dict[str, Any], where: str = "") -> list[dict[str, str]]:
    with pytest.raises(InvalidParams) as caught:
        validate(model, raw, where)
    found: list[dict[str, str]] = caught.value.data["errors"]
    return found


def fault(field: str, allowed: str, given: str) -> list[dict[str, str]]:
    return [{"field": field, "allowed": allowed, "given": given}]


@pytest.mark.parametrize(
    ("change", "field", "allowed", "given"),
    [
        ({"name": None}, "name", "text of 1..80 characters", "null"),
        ({"name": ""}, "name", "text of 1..80 characters", '""'),
        ({"name": "  "}, "name", "text of 1..80 characters", '"  "'),
        ({"name": 5}, "name", "text of 1..80 characters", "5"),
        ({"name": "a\x00b"}, "name", "text without control", '"a\\u0000b"'),
        ({"name": "a\x7fb"}, "name", "text without control", '"a\x7fb"'),
        ({"name": "\ud800"}, "name", "text without halves", '"\\ud800"'),
        ({"name": "x" * 81}, "name", "text of 1..80 characters", '"' + "x" * 78 + "…"),
        ({"charisma": 0}, "charisma", "whole number 1..20", "0"),
        ({"charisma": 21}, "charisma", "whole number 1..20", "21"),
        ({"charisma": 5.5}, "charisma", "whole number 1..20", "5.5"),
        ({"charisma": "4"}, "charisma", "whole number 1..20", '"4"'),
        ({"charisma": True}, "charisma", "whole number 1..20", "true"),
        ({"charisma": [4]}, "charisma", "whole number 1..20", "[4]"),
        ({"charisma": math.inf}, "charisma", "a finite number", "Infinity"),
        ({"charisma": 10**400}, "charisma", "whole number 1..20", "1" + "0" * 78 + "…"),
        ({"social_energy": "100"}, "social_energy", "number 20..200", '"100"'),
        ({"social_energy": 19.9}, "social_energy", "number 20..200", "19.9"),
        ({"social_energy": math.nan}, "social_energy", "a finite number", "NaN"),
        ({"social_energy": False}, "social_energy", "number 20..200", "false"),
        ({"current_priority": "high"}, "current_priority", "one of urgent, important", '"high"'),
        ({"tags": "bard"}, "tags", "list of 0..32 entries", '"bard"'),
        ({"tags": ["a", 5]}, "tags.1", "text of 1..40 characters", "5"),
        ({"tags": ["a"] * 33}, "tags", "list of 0..32 entries", '["a", "a"'),
        ({"topic_preferences": {"music": 101}}, "topic_preferences.music", "0..100", "101"),
        ({"topic_preferences": {"": 5}}, "topic_preferences.", "text of 1..60", '""'),
        ({"topic_preferences": []}, "topic_preferences", "object of 0..128 entries", "[]"),
        (
            {"personality_traits": {"openness": -1}},
            "personality_traits.openness",
            "number 0..100 or text of 1..200 characters",
            "-1",
        ),
        ({"personality_traits": {"scale": 7}}, "personality_traits", "scale 1 or 100", '{"scale"'),
        (
            {"personality_traits": {"openness": {"deep": [1]}}},
            "personality_traits.openness",
            "number 0..100 or text of 1..200 characters",
            '{"deep": [1]}',
        ),
        ({"exit_lines": {"tired": [5]}}, "exit_lines.tired.0", "text of 1..400", "5"),
        ({"exit_lines": {"never": ["x"]}}, "exit_lines.never", "one of", '"never"'),
        ({"examples": [{"user": "Hi"}]}, "examples.0.reply", "required", "nothing"),
        (
            {"examples": [{"user": "Hi", "reply": "Ho", "replay": "x"}]},
            "examples.0.replay",
            "did you mean reply? known are user, reply",
            '"x"',
        ),
        ({"chrisma": 4}, "chrisma", f"did you mean charisma? known are {NAMES}", "4"),
        ({"zzz": 4}, "zzz", f"known are {NAMES}", "4"),
    ],
)
def test_a_wrong_value_is_named_with_field_allowed_and_given(
    change: dict[str, Any], field: str, allowed: str, given: str
) -> None:
    (found,) = faults_of(PersonaSpec, {"name": "Aria", **change})

    assert found["field"] == field
    assert allowed in found["allowed"]
    assert found["given"].startswith(given)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, fault("id", "required", "nothing")),
        ({"id": "a b"}, fault("id", "text that matches ^[A-Za-z0-9_-]{1,64}$", '"a b"')),
        ({"id": "x", "who": ""}, fault("who", "text of 1..80 characters", '""')),
        ({"id": "x", "part": 5}, fault("part", "object", "5")),
        ({"id": "x", "parts": [{"flag": 1}]}, fault("parts.0.flag", "true or false", "1")),
        (
            {"id": "x", "parts": [{"count": 0}]},
            fault("parts.0.count", "whole number 1 or more", "0"),
        ),
        ({"id": "x", "ratio": 2}, fault("ratio", "number up to 1", "2")),
        ({"id": "x", "above": 0}, fault("above", "number above 0 and below 9", "0")),
        ({"id": "x", "only": 5}, fault("only", "object or text", "5")),
        (
            {"id": "x", "data": {"a": "x" * 5000}},
            fault(
                "data",
                "a JSON object of at most 4096 bytes and 4 levels",
                '{"a": "' + "x" * 72 + "…",
            ),
        ),
    ],
)
def test_kinds_of_fields_are_told_in_words(
    raw: dict[str, Any], expected: list[dict[str, str]]
) -> None:
    assert faults_of(Arguments, raw) == expected


@pytest.mark.parametrize(
    ("raw", "field", "allowed"),
    [
        ({"any": "a\ud800"}, "any", "text without halves"),
        ({"data": {"a": {"b": ["x", "\udfff"]}}}, "data.a.b.1", "text without halves"),
        ({"data": {"a": {"\ud800": 1}}}, "data.a.\\ud800", "text without halves"),
        ({"\ud800": 1}, "\\ud800", "text without halves"),
        ({"data": {"a": [math.inf]}}, "data.a.0", "a finite number"),
        ({"data": {"a": 10**5000}}, "data.a", "a number of at most 4200 digits"),
        ({"data": {"a": -(10**5000)}}, "data.a", "a number of at most 4200 digits"),
        ({"part": {"count": 10**5000}}, "part.count", "a number of at most 4200 digits"),
    ],
)
def test_what_no_store_and_no_answer_can_carry_is_refused_wherever_it_lies(
    raw: dict[str, Any], field: str, allowed: str
) -> None:
    (found,) = faults_of(Arguments, {"id": "x", **raw})

    assert found["field"] == field
    assert allowed in found["allowed"]
    json.dumps(found, ensure_ascii=False).encode()


@pytest.mark.parametrize("levels", [64, 100_000])
def test_what_is_nested_too_deep_is_refused_by_the_name_of_its_argument(levels: int) -> None:
    (found,) = faults_of(Arguments, {"id": "x", "any": nested(levels)})

    assert (found["field"], found["allowed"]) == ("any", "at most 64 levels of objects and lists")


def test_whole_characters_and_many_levels_are_taken() -> None:
    given = {"id": "x", "any": ["\U0001f600é", nested(60), 10**4000]}

    assert validate(Arguments, given).any == given["any"]


def test_a_list_that_is_in_many_places_is_read_once() -> None:
    shared: list[Any] = ["x"]
    for _ in range(40):
        shared = [shared, shared]

    assert validate(Arguments, {"id": "x", "any": shared}).any is not None


def test_every_fault_of_a_call_is_told_and_where_it_lies() -> None:
    found = faults_of(PersonaSpec, {"charisma": 0, "intelligence": 99}, where="persona")

    assert [f["field"] for f in found] == [
        "persona.name",
        "persona.charisma",
        "persona.intelligence",
    ]


def test_null_for_an_optional_argument_counts_as_absent() -> None:
    spec = validate(PersonaSpec, {"name": "Aria", "charisma": None, "tags": None})

    assert (spec.charisma, spec.tags) == (10, [])


@pytest.mark.parametrize(("given", "kept"), [(5, 5), (5.0, 5), (20.0, 20)])
def test_a_whole_number_may_be_written_with_a_point(given: float, kept: int) -> None:
    spec = validate(PersonaSpec, {"name": "Aria", "charisma": given})

    assert spec.charisma == kept
    assert isinstance(spec.charisma, int)


def test_text_is_normalised_and_trimmed_and_keeps_its_lines() -> None:
    spec = validate(
        PersonaSpec, {"name": " Zoe\u0308\t", "description": "a\r\nb\tc\n", "social_rank": "NOBLE"}
    )

    assert (spec.name, spec.description, spec.social_rank) == ("Zo\u00eb", "a\nb\tc", "noble")


def test_a_huge_value_or_name_is_shortened() -> None:
    (value,) = faults_of(PersonaSpec, {"name": "Aria", "charisma": "x" * 1_000_000})
    (name,) = faults_of(PersonaSpec, {"name": "Aria", "y" * 1_000_000: 1})
    (deep,) = faults_of(PersonaSpec, {"name": "Aria", "charisma": nested(500)})

    assert len(value["given"]) == len(name["field"]) == len(deep["given"]) == GIVEN_LENGTH


def test_of_what_is_too_long_it_is_told_how_long_it_is() -> None:
    (text,) = faults_of(PersonaSpec, {"name": "x" * 1_000})
    (entries,) = faults_of(PersonaSpec, {"name": "Aria", "tags": ["bard"] * 33})

    assert text["given"].endswith("…, 1,000 in all")
    assert entries["given"].endswith("…, 33 in all")


def test_in_a_call_that_is_wrong_everywhere_the_first_faults_alone_are_told_in_words() -> None:
    with work_counted() as work:
        found = faults_of(PersonaSpec, {f"unknown{n}": n for n in range(100_000)})

    assert len(found) == 20
    assert work.calls < 3 * 100_000, "to look at each, and no more"


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def test_metadata_may_be_deep_but_not_too_deep() -> None:
    fine = {"a": {"b": {"c": [1, "x"]}}}

    assert validate(Arguments, {"id": "x", "data": fine}).data == fine
    too_deep: list[dict[str, Any]] = [
        {"a": nested(4)},
        {"a": nested(5000)},
        {"a": {"b": {"c": {"d": {}}}}},
    ]
    for deep in too_deep:
        (found,) = faults_of(Arguments, {"id": "x", "data": deep})
        assert found["field"] == "data"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=12,
)


@pytest.mark.parametrize("model", [PersonaSpec, Arguments])
def test_whatever_comes_is_taken_or_told_what_is_wrong(model: type[BaseModel]) -> None:
    names = st.sampled_from([*model.model_fields, "scale", "unknown"])

    @settings(max_examples=300)
    @given(st.dictionaries(names | st.text(max_size=10), json_values, max_size=6))
    def check(raw: dict[str, Any]) -> None:
        try:
            validate(model, raw)
        except InvalidParams as error:
            error.message.encode()
            json.dumps(error.data, ensure_ascii=False).encode()
            for found in error.data["errors"]:
                assert found.keys() == {"field", "allowed", "given"}
                assert len(found["given"]) <= GIVEN_LENGTH * len("\\U00000000")

    check()


def test_what_cannot_be_written_is_named_by_its_type() -> None:
    circle: list[Any] = []
    circle.append(circle)

    assert shorten(circle) == '"list"'
    assert shorten({1, 2}) == '"{1, 2}"'
    assert cut("\ud800") == "\\ud800"


def test_a_schema_without_a_type_allows_another_value() -> None:
    assert in_words({}, {}) == "another value"
    assert in_words({"const": 5}, {}) == "only 5"
    assert in_words({"type": "array", "minItems": 2}, {}) == "list of at least 2 entries"
