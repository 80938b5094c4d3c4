"""Variables of any settings class: sections in sections, collections, checks of one's own."""

import json
import os
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from persona_mcp.config.variables import (
    MASK,
    dotenv_value,
    faults_in,
    faults_of,
    given_for,
    sections_of,
    variables_of,
    written,
)


def only_even(value: int) -> int:
    if value % 2:
        raise ValueError("an even number")
    return value


class Inner(BaseModel):
    """Deep inside."""

    even: Annotated[int, AfterValidator(only_even)] = Field(2, description="Pairs")
    unlimited: float = 1.0
    below: float = Field(0.5, lt=1)
    words: frozenset[str] = frozenset({"b", "a"})
    folders: list[Path] = Field(default_factory=lambda: [Path("x")], max_length=3)
    folder: Path | None = None


class Outer(BaseModel):
    """Around it."""

    inner: Inner = Inner(unlimited=7)
    key: SecretStr = SecretStr("sk-secret")


class Example(BaseSettings):
    """The whole."""

    model_config = SettingsConfigDict(
        env_prefix="EXAMPLE_", env_nested_delimiter="__", env_file=".env", extra="ignore"
    )

    outer: Outer = Outer()
    size: int = 3


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_sections_come_in_the_order_of_the_source_each_with_its_own_variables_first() -> None:
    sections = sections_of(Example)

    assert [(s.path, s.meaning) for s in sections] == [
        ((), "The whole."),
        (("outer",), "Around it."),
        (("outer", "inner"), "Deep inside."),
    ]
    assert [v.name for v in sections[0].variables] == ["EXAMPLE_SIZE"]
    assert [v.name for v in sections[1].variables] == ["EXAMPLE_OUTER__KEY"]


def test_each_variable_says_its_kind_what_it_allows_and_its_default() -> None:
    found = {v.path[-1]: (v.type, v.allowed, v.default) for v in variables_of(Example)}

    assert found == {
        "size": ("whole number", "whole number", "3"),
        "key": ("secret", "text", MASK),
        "even": ("whole number", "whole number", "2"),
        "unlimited": ("number", "number", "7"),
        "below": ("number", "number below 1", "0.5"),
        "words": ("JSON list", "JSON list", '["a", "b"]'),
        "folders": ("JSON list", "JSON list of 0..3 entries", '["x"]'),
        "folder": ("path", "path", ""),
    }


def test_values_are_written_as_one_would_give_them() -> None:
    assert [written(v) for v in (None, True, 3.0, 0.25, "text", Path("a/b"), SecretStr(""))] == [
        "",
        "true",
        "3",
        "0.25",
        "text",
        "a/b",
        "",
    ]
    assert json.loads(written({"one": Inner()}))["one"]["even"] == 2


def test_a_value_that_a_check_of_our_own_refuses_says_what_the_check_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXAMPLE_OUTER__INNER__EVEN", "3")
    with pytest.raises(ValidationError) as caught:
        Example()

    [fault] = faults_of(caught.value, variables_of(Example), "EXAMPLE_")

    assert str(fault) == 'EXAMPLE_OUTER__INNER__EVEN: given was "3", allowed is an even number'


def test_what_is_given_is_collected_with_where_it_is_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("EXAMPLE_SIZE=1\nexample_outer__key=x\nOTHER=2\n")
    monkeypatch.setenv("EXAMPLE_SIZE", "4")

    given = given_for(Example)

    assert {name: (one.value, one.source) for name, one in given.items()} == {
        "EXAMPLE_SIZE": ("4", "environment"),
        "EXAMPLE_OUTER__KEY": ("x", ".env"),
    }
    assert faults_in(given, variables_of(Example)) == []
    assert Example().size == 4


@pytest.mark.parametrize("value", ["plain", "a b", '{"k": 1}', "http://x:1/y", "a#b", ""])
def test_a_value_in_a_file_is_read_as_it_was_written(tmp_path: Path, value: str) -> None:
    (tmp_path / ".env").write_text(f"EXAMPLE_OUTER__KEY={dotenv_value(value)}{os.linesep}")

    assert given_for(Example)["EXAMPLE_OUTER__KEY"].value == value
