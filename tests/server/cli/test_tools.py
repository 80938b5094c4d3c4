"""The command `persona tools`: the registry, for people and for scripts."""

import pytest

from persona_mcp.server.cli.tools import brief
from persona_mcp.server.operations.catalogue import operations
from tests.command_line import Cli


def test_tools_are_listed_as_the_registry_has_them(cli: Cli) -> None:
    listed = cli.good("tools", "--json").json

    assert listed == [brief(operation) for operation in operations("all")]
    assert all({"name", "toolset", "scope", "title"} <= one.keys() for one in listed)


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_table_has_a_row_for_every_operation(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    lines = cli.good("tools").out.splitlines()

    expected = [(o.name, o.title, "core" if o.core else "") for o in operations("all")]
    assert rows_of(lines) == expected
    assert max(map(len, lines)) <= int(columns)


def rows_of(lines: list[str]) -> list[tuple[str, str, str]]:
    """Read name, title and core of the table's rows, whose titles may go on below."""
    rows: list[tuple[str, str, str]] = []
    for line in lines:
        if not line.startswith("│"):
            continue
        name, _, _, core, title = (cell.strip() for cell in line.strip("│").split("│"))
        if name:
            rows.append((name, title, core))
        else:
            before = rows.pop()
            rows.append((before[0], f"{before[1]} {title}", before[2]))
    return rows


def test_one_operation_is_shown_with_all_that_it_takes_and_returns(cli: Cli) -> None:
    shown = cli.good("tools", "memory_search").out
    told = cli.good("tools", "memory_search", "--json").json

    assert "n_results" in shown
    assert "whole number 1..100" in shown
    assert "result_count" in shown
    assert "│ false " in shown  # a default is written as JSON has it
    assert told["input_schema"]["properties"]["n_results"]["maximum"] == 100
    assert told["read_only"] is True


def test_a_tool_that_is_not_there_suggests_one_that_is(cli: Cli) -> None:
    done = cli("tools", "memory_serch")

    assert done.code == 1
    assert "did you mean memory_search" in done.err
