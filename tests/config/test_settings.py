"""Settings: what is given for them, what is refused, and that none is read and ignored."""

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from persona_mcp.config.loading import list_settings, load_settings
from persona_mcp.config.settings import (
    LLMSettings,
    Settings,
)
from persona_mcp.config.variables import MASK, Variable, variables_of
from persona_mcp.state.errors import InvalidSettings

ROOT = Path(__file__).parents[2]
SOURCES = ("state", "nodes", "graphs", "config", "server")
VARIABLES = variables_of(Settings)
NUMBERS = ("number", "whole number")


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PERSONA_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refused(**overrides: Any) -> InvalidSettings:
    with pytest.raises(InvalidSettings) as caught:
        load_settings(**overrides)
    return caught.value


def source_of(name: str, settings: Settings) -> str:
    return next(s.source for s in list_settings(settings) if s.name == name)


def test_without_anything_given_the_defaults_are_in_effect() -> None:
    settings = load_settings()

    assert settings.llm == LLMSettings()
    assert {setting.source for setting in list_settings(settings)} == {"default"}


def test_arguments_go_before_the_environment_before_the_file_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "PERSONA_WORLD=from-file\nPERSONA_USER=from-file\nPERSONA_LLM__MODEL=ollama:file\n"
    )
    monkeypatch.setenv("PERSONA_USER", "from-environment")
    monkeypatch.setenv("PERSONA_LLM__MODEL", "ollama:environment")

    settings = load_settings(llm={"model": "ollama:argument"})

    assert (settings.world, settings.user) == ("from-file", "from-environment")
    assert settings.llm.model == "ollama:argument"
    assert source_of("PERSONA_WORLD", settings) == ".env"
    assert source_of("PERSONA_USER", settings) == "environment"
    assert source_of("PERSONA_LLM__MODEL", settings) == "argument"
    assert source_of("PERSONA_LLM__TOTAL_S", settings) == "default"


def test_a_section_given_as_an_argument_is_merged_into_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PERSONA_LLM__TOTAL_S", "7")

    settings = load_settings(llm={"model": "ollama:argument"})

    assert (settings.llm.total_s, settings.llm.model) == (7.0, "ollama:argument")


def test_a_whole_section_can_be_an_argument() -> None:
    settings = load_settings(llm=LLMSettings(model="ollama:whole"))

    assert settings.llm.model == "ollama:whole"
    assert source_of("PERSONA_LLM__MODEL", settings) == "argument"


def test_letter_case_of_names_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("persona_llm__retries", "3")

    settings = load_settings()

    assert settings.llm.retries == 3
    assert source_of("PERSONA_LLM__RETRIES", settings) == "environment"


def test_a_mapping_is_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_RELATIONSHIPS__CONTEXTS", '{"duel": {"warmth": 0.25}}')

    settings = load_settings()

    assert settings.relationships.contexts["duel"].warmth == 0.25
    shown = {s.name: s.value for s in list_settings(settings)}
    assert '"warmth": 0.25' in shown["PERSONA_RELATIONSHIPS__CONTEXTS"]


def test_the_data_folder_is_made_whole_so_that_a_change_of_folder_does_not_move_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))

    assert load_settings(data_dir="data").data_dir == tmp_path / "data"
    assert load_settings(data_dir="~/data").data_dir == tmp_path / "home" / "data"


def test_an_empty_value_is_taken_where_empty_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_LLM__OPENAI_API_KEY", "")
    monkeypatch.setenv("PERSONA_EMBEDDER__MODEL_PATH", "")
    monkeypatch.setenv("PERSONA_EMBEDDER__QUERY_PREFIX", "")

    settings = load_settings()

    assert settings.llm.openai_api_key.get_secret_value() == ""
    assert settings.embedder.model_path is None


def test_variables_of_the_tests_are_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_TEST_POSTGRES_URL", "anything")

    assert load_settings().world == "main"


def test_secrets_are_masked_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_LLM__OPENAI_API_KEY", "sk-secret")

    settings = load_settings()

    listed = {setting.name: setting for setting in list_settings(settings)}
    assert listed["PERSONA_LLM__OPENAI_API_KEY"].value == MASK
    assert "sk-secret" not in str(listed)
    assert listed["PERSONA_EMBEDDER__OPENAI_API_KEY"].value == ""


@pytest.mark.parametrize(
    ("name", "given", "allowed"),
    [
        ("PERSONA_LLM__TOTAL_S", "abc", "number above 0 and up to 86400 (Limit of one reply"),
        ("PERSONA_LLM__TOTAL_S", "0", "number above 0 and up to 86400"),
        ("PERSONA_LLM__TOTAL_S", "nan", "number above 0 and up to 86400"),
        ("PERSONA_LLM__TOTAL_S", "inf", "number above 0 and up to 86400"),
        ("PERSONA_LLM__RETRIES", "11", "whole number 0..10"),
        ("PERSONA_LLM__RETRIES", "1.5", "whole number 0..10"),
        ("PERSONA_LOG__LEVEL", "loud", "one of DEBUG, INFO, WARNING, ERROR"),
        ("PERSONA_DATABASE__ECHO", "perhaps", "true or false"),
        ("PERSONA_WORLD", "a b", "1..64 letters, digits, _ and -"),
        ("PERSONA_LLM__OLLAMA_URL", "ftp://x", "address that starts with http:// or https://"),
        ("PERSONA_LLM__MODEL", "gpt", "auto, ollama:MODEL, openai:MODEL"),
        ("PERSONA_EMBEDDER__QUERY_PREFIX", "x" * 201, "text of 0..200 characters"),
        ("PERSONA_RELATIONSHIPS__DEAD_ZONE", "1", "number 0 or more and below 1"),
        ("PERSONA_RELATIONSHIPS__CONTEXTS", "[]", "JSON object"),
        ("PERSONA_RELATIONSHIPS__CONTEXTS", "{", "JSON object"),
        ("PERSONA_IMPORTANCE__TYPE_FACTORS", '{"fact": "x"}', "fact: Input should be"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_given_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, allowed: str
) -> None:
    monkeypatch.setenv(name, given)

    error = refused()

    [fault] = error.data["errors"]
    assert fault["field"] == name
    assert allowed in fault["allowed"]
    assert f"{name}: given was {fault['given']}, allowed is {fault['allowed']}" in error.message


@pytest.mark.parametrize(
    "name", ["PERSONA_WORLD", "PERSONA_DATA_DIR", "PERSONA_LLM__RETRIES", "PERSONA_LLM__MODEL"]
)
def test_an_empty_value_is_a_fault_where_a_value_is_needed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "")

    [fault] = refused().data["errors"]

    assert (fault["field"], fault["given"]) == (name, "nothing")


def test_a_wrong_secret_is_not_repeated() -> None:
    error = refused(llm={"openai_api_key": ["sk-secret"]})

    assert error.data["errors"][0]["field"] == "PERSONA_LLM__OPENAI_API_KEY"
    assert error.data["errors"][0]["given"] == MASK
    assert "sk-secret" not in error.message


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PERSONA_WORLDS", "PERSONA_WORLD"),
        ("PERSONA_LLM__TOTALS", "PERSONA_LLM__TOTAL_S"),
        ("PERSONA_LLM_MODEL", "PERSONA_LLM__MODEL"),
        ("PERSONA_LLM", "PERSONA_LLM__MODEL"),
        ("PERSONA_LLM__MODEL__NAME", "PERSONA_LLM__MODEL"),
    ],
)
@pytest.mark.parametrize("where", ["environment", "file"])
def test_an_unknown_variable_is_refused_with_the_nearest_name_and_without_its_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, nearest: str, where: str
) -> None:
    if where == "environment":
        monkeypatch.setenv(name, "sk-secret")
    else:
        (tmp_path / ".env").write_text(f"{name}=sk-secret\n")

    error = refused()

    assert f"{name}: there is no such setting; did you mean {nearest}?" in error.message
    assert "sk-secret" not in error.message


def test_other_programs_lines_in_the_file_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OTHER_PROGRAM=1\nPERSONA_WORLD=mine\n")

    assert load_settings().world == "mine"


@pytest.mark.parametrize("overrides", [{"worlds": "x"}, {"llm": {"modell": "x"}}])
def test_an_unknown_argument_is_refused(overrides: dict[str, Any]) -> None:
    assert "there is no such setting; did you mean PERSONA_" in refused(**overrides).message


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PERSONA_NONSENSE=1\n")
    monkeypatch.setenv("PERSONA_WORLD", "")
    monkeypatch.setenv("PERSONA_LLM__RETRIES", "many")

    fields = {fault["field"] for fault in refused(user="a b").data["errors"]}

    assert fields == {"PERSONA_NONSENSE", "PERSONA_WORLD", "PERSONA_LLM__RETRIES", "PERSONA_USER"}


def test_values_that_do_not_fit_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONA_RELATIONSHIPS__STRENGTH_TRUST", "1")

    error = refused()

    assert "PERSONA_RELATIONSHIPS__...: given was these values together" in error.message


def test_on_postgresql_a_process_does_not_count_as_ended_while_it_holds_a_lease() -> None:
    there = {"url": "postgresql://one@db/persona", "gone_s": 60.0}

    error = refused(database=there)
    shorter = load_settings(database=there, dialogues={"lease_s": 30.0})
    on_sqlite = load_settings(database={"gone_s": 60.0})

    assert "PERSONA_DATABASE__GONE_S (now 60) longer than PERSONA_DIALOGUES__LEASE_S (now 60)" in (
        error.message
    )
    assert "PERSONA_...: given was these values together" in error.message
    assert shorter.database.gone_s == on_sqlite.database.gone_s == 60.0


def test_a_line_without_a_value_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PERSONA_WORLD\n")

    assert "PERSONA_WORLD: given was nothing" in refused().message


@pytest.mark.parametrize("content", [b"PERSONA_WORLD=\xff\xfe\n", b"\n\nPERSONA_WORLD='main\n"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)

    assert "the .env file cannot be read" in refused().message


@cache
def reads() -> dict[Path, set[tuple[str, str]]]:
    """For each source file: (attribute that is read, name that it is read from)."""
    found: dict[Path, set[tuple[str, str]]] = {}
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
            found[path] = {
                (node.attr, getattr(node.value, "id", getattr(node.value, "attr", "")))
                for node in nodes
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
            }
            if any(name == "model_dump" for name, _ in found[path]):  # then keys name fields
                keys = [key for node in nodes if isinstance(node, ast.Dict) for key in node.keys]
                found[path] |= {(str(k.value), "") for k in keys if isinstance(k, ast.Constant)}
    return found


def section_class(variable: Variable) -> type[BaseModel]:
    model: type[BaseModel] = Settings
    for name in variable.path[:-1]:
        section = model.model_fields[name].annotation
        assert isinstance(section, type) and issubclass(section, BaseModel)
        model = section
    return model


def readers(variable: Variable) -> Iterator[Path]:
    """Files that read a field of this name, and its section or the section's class."""
    model = section_class(variable)
    field, section = variable.path[-1], variable.path[-2] if variable.path[1:] else "settings"
    for path, found in reads().items():
        attributes, owners = {attribute for attribute, _ in found}, {of for _, of in found}
        knows = section in attributes | owners or model.__name__ in path.read_text("utf-8")
        if field in attributes and knows:
            yield path


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda v: v.name)
def test_every_setting_is_read_by_the_program(variable: Variable) -> None:
    assert list(readers(variable)), f"nothing reads {variable.name}"


@pytest.mark.parametrize("page", [".env.example", "docs/settings.md"])
def test_every_setting_is_on_the_page(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")

    assert [v.name for v in VARIABLES if v.name not in text] == []


def test_every_setting_says_what_it_is_for_and_every_number_has_a_range() -> None:
    assert [v.name for v in VARIABLES if not v.meaning] == []
    bare = [v.name for v in VARIABLES if v.type in NUMBERS and v.allowed in NUMBERS]
    assert bare == []


def test_the_example_file_uncommented_gives_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    plain = load_settings()
    example = (ROOT / ".env.example").read_text("utf-8")
    (tmp_path / ".env").write_text(example.replace("\n# ", "\n"))

    settings = load_settings()

    assert settings.model_dump(exclude={"data_dir"}) == plain.model_dump(exclude={"data_dir"})
    assert settings.data_dir == tmp_path / ".local/share/persona-mcp"
    assert {setting.source for setting in list_settings(settings)} == {".env"}
