import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.config import spec_yaml
from persona_mcp.config.spec_files import FILE_BYTES, read_plan, read_spec
from persona_mcp.config.spec_yaml import document_of
from persona_mcp.state.errors import InvalidParams

CAST = """\
personas:
  ada: {persona: {name: Ada}}
  bo:
    persona:
      name: Bo
      charisma: 12
"""
"""Lines 1..6."""


def write(folder: Path, content: str | bytes, name: str = "quarrel.yaml") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def refusal(folder: Path, content: str | bytes) -> InvalidParams:
    with pytest.raises(InvalidParams) as refused:
        read_plan(write(folder, content))
    return refused.value


def test_a_specification_is_read_with_the_lines_of_its_fields(tmp_path: Path) -> None:
    file = read_spec(
        write(tmp_path, CAST + "dialogue:\n  scene: >-\n    A room.\n  max_turns: 4\n")
    )

    assert file.spec.dialogue.scene == "A room."
    assert file.line_of("personas.bo.persona.charisma") == 6
    assert file.line_of("dialogue.scene") == 8
    assert file.line_of("dialogue.max_turns") == 10
    assert file.line_of("dialogue.witnesses.0") == 7, "of what would hold it"
    assert file.line_of("waves") == 1
    assert file.folder == tmp_path


def test_json_is_read_as_yaml_is(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path, CAST)).spec
    text = json.dumps(yaml.safe_load(CAST), indent="\t")

    file = read_spec(write(tmp_path, text, "quarrel.json"))

    assert file.spec == spec
    assert file.line_of("personas.bo") == text[: text.index('"bo"')].count("\n") + 1


def test_json_may_write_one_character_as_two_escapes(tmp_path: Path) -> None:
    said = {"description": "😀 and \\ud83d\\ude00 and \\", **yaml.safe_load(CAST)}

    file = read_spec(write(tmp_path, json.dumps(said)))

    assert file.spec.description == said["description"]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert read_spec(write(tmp_path, "\ufeff" + CAST)).spec.repeats == 1


def test_values_without_quotes_are_those_of_json(tmp_path: Path) -> None:
    text = (
        CAST
        + "name: 2026-01-01\nstarts_at: 2026-01-02T08:00:00Z\nrepeats: 010\n"
        + "relationships: [{of: ada, to: bo, quality: -1e-1}]\ndialogue: {scene: 12:30}\n"
        + "waves: ~\n"
    )

    spec = read_spec(write(tmp_path, text)).spec

    assert (spec.name, spec.repeats, spec.dialogue.scene) == ("2026-01-01", 10, "12:30")
    assert spec.relationships[0].quality == -0.1
    assert spec.starts_at == 1767340800.0
    assert len(spec.waves) == 1


def test_aliases_and_merge_keys_say_a_thing_once(tmp_path: Path) -> None:
    text = (
        CAST
        + "waves:\n  - dialogues:\n      - &base\n        scene: A room.\n        max_turns: 4\n"
        + "      - <<: *base\n        max_turns: 6\n      - *base\n"
        + "      - {<<: [{minutes: 5.0}, *base], scene: x}\n"
    )

    file = read_spec(write(tmp_path, text))

    first, second, third, fourth = file.spec.waves[0].dialogues
    assert first == third
    assert (second.scene, second.max_turns) == ("A room.", 6)
    assert (fourth.scene, fourth.max_turns, fourth.minutes) == ("x", 4, 5.0)
    assert file.line_of("waves.0.dialogues.1.scene") == 10
    assert file.line_of("waves.0.dialogues.1.max_turns") == 13


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # what acceptance of the batch names
        (CAST + "dialogue:\n  first_speaker: adda\n", r"quarrel\.yaml:8: dialogue\.first_speaker: "
         r"allowed is one of the cast: did you mean ada\? there are ada, bo, given was adda"),
        (CAST + "  cy:\ndialogue:\n  participants: [ada, bo]\n  interventions:\n"
         "    - {text: Rain., turn: 1, to: [cy]}\n",
         r"quarrel\.yaml:11: dialogue\.interventions\.0\.to\.0: allowed is one who is there in "
         r"turn 1: there are ada, bo, given was cy, who is no part of this dialogue"),
        (CAST + "dialogue:\n  token_budget: -500\n",
         r"quarrel\.yaml:8: dialogue\.token_budget: allowed is whole number 51\.\.32768, given "
         r"was -500"),
        (CAST + "dialogue:\n  participants: [a, b, c, d, e, f, g, h, i, j, k, l, m]\n",
         r"quarrel\.yaml:8: dialogue\.participants: allowed is list of 2\.\.12 entries"),
        (CAST + "dialogue: [1, 2\nname: x\n",
         r"quarrel\.yaml:8: allowed is YAML or JSON, given was did not find expected ',' or '\]' "
         r"while parsing a flow sequence that begins in line 7"),
        (CAST + "variations:\n  dialogue.max_turns: &v [" + "4," * 100 + "5]\n"
         "  dialogue.minutes: *v\n  personas.bo.persona.charisma: *v\n",
         r"quarrel\.yaml:7: variations: allowed is a grid of at most 10,000 combinations, given "
         r"was 101 x 101 x 101 = 1,030,301"),
        # YAML that is none
        ("personas: [", "quarrel.yaml:[12]: allowed is YAML or JSON, given was did not find"),
        (CAST + "name: x\n\tseed: 5", "quarrel.yaml:[78]: allowed is YAML or JSON"),
        (CAST + "name: a: b", "quarrel.yaml:7: allowed is YAML or JSON, given was mapping values"),
        (CAST + "name: @x", "quarrel.yaml:7: allowed is YAML or JSON"),
        (CAST + "name: 'x", "quarrel.yaml:[78]: allowed is YAML or JSON"),
        (CAST + "---\nname: x", "quarrel.yaml:7: allowed is one document, given was another one"),
        (CAST + "name: x\x07", r"quarrel\.yaml:7: allowed is text without control characters, "
         r"given was \\x07"),
        (CAST + 'name: "\\ud83d"', "quarrel.yaml:7: "),
        # what YAML could do and a specification never does
        (CAST + "name: !!python/object/apply:os.system [ls]", "quarrel.yaml:7: name: allowed is a "
         "plain value, without a tag, given was tag:yaml.org,2002:python/object/apply:os.system"),
        (CAST + "name: !!timestamp 2026-01-01", "quarrel.yaml:7: name: allowed is a plain value"),
        (CAST + "name: !!int soon", "quarrel.yaml:7: name: allowed is a plain value"),
        (CAST + "dialogue: !!set {a, b}", "quarrel.yaml:7: dialogue: allowed is a plain value"),
        (CAST + "waves: &w [*w]", r"quarrel\.yaml:7: waves\.0: allowed is an alias of what stands "
         r"above it, as &w, given was \*w, which stands within itself"),
        (CAST + "name: *nobody", "quarrel.yaml:7: "),
        (CAST + "dialogue:\n  <<: 5\n", "quarrel.yaml:8: dialogue.<<: allowed is an object"),
        (CAST + "name: x\nname: y", r"quarrel\.yaml:8: name: allowed is a key once: it stands in "
         r"line 7, too, given was name"),
        ("personas:\n  ada: {}\n  ada: {}\n", r"quarrel\.yaml:3: personas\.ada: .* line 2"),
        (CAST + "? [a]\n: b", "quarrel.yaml:7: allowed is a text as key, given was a list"),
        ("x: " + "[" * 100, "quarrel.yaml:1: allowed is at most 64 levels"),
        ("x: " + "[" * 100_000, "quarrel.yaml:1: allowed is at most 64 levels"),
        ("x: " + "{a: " * 100_000, "quarrel.yaml:1: "),
        # what is no specification
        ("", "quarrel.yaml: allowed is a specification, personas at least, given was an empty"),
        ("# nothing\n", "quarrel.yaml:1: allowed is a specification: .*given was nothing"),
        ("- a\n- b", r'quarrel\.yaml:1: allowed is a specification: .*given was \["a", "b"\]'),
        ("hello", 'quarrel.yaml:1: allowed is a specification: .*given was "hello"'),
        (b"name: x\nscene: \xff", "quarrel.yaml:2: allowed is text in UTF-8, given was byte 0xff"),
        # values
        (CAST + "starts_at: 5", "quarrel.yaml:7: starts_at: allowed is a time in RFC 3339"),
        (CAST + "dialogue: {minutes: .nan}", "quarrel.yaml:7: dialogue.minutes: .*finite number"),
        (CAST + "dialogue: {minutes: -.inf}", "quarrel.yaml:7: dialogue.minutes: .*finite number"),
        (CAST + "seed: " + "9" * 5000, "quarrel.yaml:7: seed: allowed is whole number"),
        (CAST + "seed: true", "quarrel.yaml:7: seed: allowed is whole number.*given was true"),
        (CAST + "dialogue:\n  max_turns: '4'", 'quarrel.yaml:8: dialogue.max_turns: .*was "4"'),
        (CAST + "dialogue:\n  max_turn: 4", r"quarrel\.yaml:8: dialogue\.max_turn: allowed is "
         r"another name \(did you mean max_turns\? known are"),
        (CAST + "dialog: {}", r"quarrel\.yaml:7: dialog: allowed is another name \(did you mean "
         r"dialogue\?"),
        ("name: x\n", "quarrel.yaml:1: personas is required"),
        ("personas: {ada: }", r"quarrel\.yaml:1: personas: allowed is object of 2\.\.1000 entries"),
        (CAST + "  b o: {}", r"quarrel\.yaml:7: personas\.b o: allowed is text that matches"),
        (CAST.replace("12", "99"), r"quarrel\.yaml:6: personas\.bo\.persona\.charisma: allowed is "
         r"whole number 1\.\.20, given was 99"),
        (CAST + "dialogue:\n  ends_when: {says: x, mood: true}\n",
         "quarrel.yaml:8: dialogue.ends_when: allowed is exactly one of says"),
        (CAST + "outputs: [csv]", r"quarrel\.yaml:7: outputs\.0: allowed is one of parquet"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    error = refusal(tmp_path, content)

    assert re.search(message, error.message), error.message
    assert len(error.message) < 4000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.yaml", "none.yaml: allowed is a YAML or JSON file that is there, given was no file"),
        (".", "given was a folder"),
    ],
)
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        read_spec(tmp_path / name)


def test_a_file_of_more_than_eight_mebibytes_is_not_read(tmp_path: Path) -> None:
    error = refusal(tmp_path, CAST + "#" * FILE_BYTES)

    assert "quarrel.yaml: allowed is at most 8,388,608 bytes, given was 8,388," in error.message


def test_aliases_that_blow_up_are_refused(tmp_path: Path) -> None:
    levels = "".join(f"  - &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 10))

    error = refusal(tmp_path, CAST + f"waves:\n  - &l0 [1]\n{levels}")

    assert "at most 2,000,000 values, with aliases written out" in error.message


def test_all_faults_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    error = refusal(
        tmp_path, CAST.replace("12", "99") + "dialogue:\n  max_turns: 0\n  speakers: loud\nx: 1\n"
    )

    assert [(f["line"], f["field"]) for f in error.data["errors"]] == [
        (6, "personas.bo.persona.charisma"),
        (8, "dialogue.max_turns"),
        (9, "dialogue.speakers"),
        (10, "x"),
    ]
    assert len(error.message.splitlines()) == 4
    assert (error.data["line"], error.data["file"]) == (6, "quarrel.yaml")


def test_of_very_many_faults_the_first_fifty_are_told(tmp_path: Path) -> None:
    ties = "".join(f"  - {{of: no{n}, to: ada, quality: 0.1}}\n" for n in range(80))

    error = refusal(tmp_path, CAST + "relationships:\n" + ties)

    assert len(error.data["errors"]) == 50


def test_both_readers_of_yaml_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = document_of(CAST + "name: 'no'\nseed: 5 # five\n")
    monkeypatch.setattr(spec_yaml, "LOADER", yaml.SafeLoader)

    slow = document_of(CAST + "name: 'no'\nseed: 5 # five\n")

    assert slow.value == fast.value
    assert slow.line_of("personas.bo.persona.charisma") == 6


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), max_size=8)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_json_comes_back_as_it_was_written(value: Any, ascii: bool, indent: Any) -> None:
    text = json.dumps({"x": value}, ensure_ascii=ascii, indent=indent)

    found = document_of(text)

    assert found.faults == []
    assert found.value == {"x": value}


@given(st.text(alphabet="ab:{}[]-&*!|>'\"#,? \n\t%@`<~1.", max_size=60))
@settings(max_examples=200)
def test_whatever_text_it_is_faults_have_lines(text: str) -> None:
    found = document_of(text)

    assert all(1 <= one["line"] <= text.count("\n") + 2 for one in found.faults)
