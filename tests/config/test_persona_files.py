import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_mcp.config.persona_files import FILE_BYTES, bundled_personas, parse, read_persona
from persona_mcp.state.errors import InvalidParams, NotFound
from persona_mcp.state.persona import PersonaSpec

WHOLE = """
name: Zoë
description: |
  A clock maker.
  She hums.
personality_traits: {openness: 80, motto: "5"}
tags: [clocks]
examples:
  - user: What time is it?
    reply: Later than you think.
"""


def write(folder: Path, content: str | bytes, name: str = "zoe.yaml") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_the_bundled_personas_are_three_people_with_a_voice_of_their_own() -> None:
    bundled = bundled_personas()

    assert [persona.name for persona in bundled] == ["Aria", "Kira", "Noor"]
    assert all(persona.description and persona.examples for persona in bundled)


def test_a_persona_is_read_from_yaml(tmp_path: Path) -> None:
    spec = read_persona(write(tmp_path, WHOLE))

    assert (spec.name, spec.description) == ("Zoë", "A clock maker.\nShe hums.")
    assert spec.personality_traits == {"openness": 80.0, "motto": "5"}
    assert spec.examples[0].reply == "Later than you think."


def test_a_persona_is_read_from_json_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    made = read_persona(write(tmp_path, WHOLE))

    written = write(tmp_path, json.dumps(made.model_dump(mode="json")), "zoe.json")

    assert read_persona(written) == made
    assert read_persona(write(tmp_path, "\ufeff" + WHOLE)) == made


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_a_file_that_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound, match="file '"):
        read_persona(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: [", r"zoe\.yaml, line 1: allowed is YAML, given was expected the node content"),
        ("name: Zoe\n\tage: 5", r"zoe\.yaml, line 2: allowed is YAML"),
        ("", r"zoe\.yaml: allowed is fields with values, such as name: Aria, given was null"),
        ("- a\n- b", r'zoe\.yaml: .*given was \["a", "b"\]'),
        (b"name: \xff", r"zoe\.yaml: allowed is text in UTF-8.*given was another byte at 6"),
        ("x" * (FILE_BYTES + 1), r"allowed is at most 1048576 bytes, given was 1048577 bytes"),
        ("name: Zoe\ncharisma: 99", r"charisma: allowed is whole number 1\.\.20, given was 99"),
        ("name: Zoe\nage: 5", "age: allowed is .*known are name"),
        ("name: Zoe\n5: x", "5: allowed is .*known are name"),
        ("name: yes", "name: allowed is text of 1..80 characters, given was true"),
        ("name: Zoe\npersonality_traits: {1: 2}", "personality_traits"),
        ("name: 2026-02-30", "allowed is YAML"),
        ("name: !!bool maybe", "allowed is YAML"),
        ("name: !!timestamp soon", "allowed is YAML"),
        ("name: !!python/object/apply:os.system [ls]", "allowed is YAML"),
        ("name: " + "[" * 5000, "allowed is YAML"),
        ("? [a]\n: b", "allowed is YAML"),
        ("name: &a [*a]", "name: allowed is text"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(InvalidParams, match=message) as caught:
        read_persona(write(tmp_path, content))

    assert len(caught.value.message) < 600


def test_a_file_that_unfolds_without_end_is_refused_soon() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)
    )

    with pytest.raises(InvalidParams):
        parse(bomb + "name: *a59\n", "bomb.yaml")


@settings(max_examples=300)
@given(
    st.text(max_size=40)
    | st.from_regex(r"name: (!!(int|float|bool|null|binary|set|omap|pairs|timestamp) )?.{0,20}")
)
def test_any_text_is_a_persona_or_told_what_is_wrong(text: str) -> None:
    try:
        assert isinstance(parse(text, "file.yaml"), PersonaSpec)
    except InvalidParams as error:
        assert error.message


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidParams, match=r"line 2.*'name' stands twice"):
        parse("name: Mira\nname: Mora\n", "dup.yaml")
