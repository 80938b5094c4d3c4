"""What the pages name is there: operations, commands, variables, files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from persona_mcp.config.settings import Settings
from persona_mcp.config.variables import variables_of
from persona_mcp.server.cli.app import app
from persona_mcp.server.metric_families import ALL as METRICS
from persona_mcp.server.operations.catalogue import operations
from persona_mcp.server.wire import WIRES
from persona_mcp.state.memory.full_text import TABLE as WORDS
from persona_mcp.state.tables import World

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
COMMAND = re.compile(r"(?:`|uv run |^ {4}|^\$ )persona ([a-z][^`#|>\n]*)", re.MULTILINE)
WORD = re.compile(r"--[a-z-]+|[a-z][a-z-]*")
NAME = re.compile(r"`((?:persona|conversation|memory|relationship|system)_[a-z_]+)`")
"""Of an operation, an argument, a table or an error."""
VARIABLE = re.compile(r"\bPERSONA_[A-Z_]*[A-Z]\b")
FILE = re.compile(r"`((?:config|graphs|nodes|server|state|benchmarks)/[\w/]+\.py)`")
OTHERS = re.compile(r"PERSONA_TEST_|PERSONA_MCP")
"""Variables that are no settings."""


def fields_of(schema: Any) -> Iterator[str]:
    """Name all fields of a result, those of its parts too."""
    if isinstance(schema, list):
        for item in schema:
            yield from fields_of(item)
    elif isinstance(schema, dict):
        yield from schema.get("properties", {})
        for item in schema.values():
            yield from fields_of(item)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_gives_only_commands_and_options_that_there_are(page: Path) -> None:
    for line in COMMAND.findall(page.read_text("utf-8")):
        command: Any = typer.main.get_command(app)
        words = line.split()
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            word = WORD.match(words.pop(0))
            assert word and word[0] in command.commands, line
            command = command.commands[word[0]]
        given = {word[0] for word in map(WORD.match, words) if word and word[0].startswith("--")}
        taken = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        assert given <= {*taken, "--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_only_what_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    known = {name for one in operations("all") for name in (one.name, *one.arguments.model_fields)}
    known |= {field for one in operations("all") for field in fields_of(one.output_schema)}
    known |= {*World.metadata.tables, WORDS, *WIRES}
    known |= {metric.shown for metric in METRICS.values()}
    assert set(NAME.findall(text)) <= known
    variables = {variable.name for variable in variables_of(Settings)}
    assert {v for v in VARIABLE.findall(text) if not OTHERS.match(v)} <= variables
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []
