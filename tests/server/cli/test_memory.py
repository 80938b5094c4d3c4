"""`persona memory ...`: listed, searched, shown, stored and counted, for people and for scripts."""

import asyncio
import io
import json
import os
import signal
import sys
import threading

import pytest
import typer
from sqlalchemy import insert

from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.memory import CHART, chart, store, words_of
from persona_mcp.server.cli.run import FAILED, INTERRUPTED
from persona_mcp.state import tables
from tests.command_line import Cli
from tests.processes import LIMIT_S

BISCUIT = "Sam's cat is called Biscuit."
ARIA = ("--persona", "Aria")


def stored(cli: Cli, text: str, *more: str) -> str:
    id: str = cli.good("memory", "store", text, *ARIA, "--json", *more).json["memory_id"]
    return id


def test_what_is_stored_is_found_listed_and_shown(cli: Cli) -> None:
    id = stored(cli, BISCUIT, "--type", "fact", "--importance", "0.5", "--pinned")
    stored(cli, "It rains.")

    found = cli.good("memory", "search", "the name of the cat Biscuit", *ARIA, "--json").json
    listed = cli.good("memory", "list", *ARIA, "--order", "importance", "--limit", "1", "--json")
    shown = cli.good("memory", "show", id, "--json").json["memory"]

    assert (found["memories"][0]["id"], found["degraded"]) == (id, None)
    assert [memory["id"] for memory in listed.json["memories"]] == [id]
    assert (shown["content"], shown["memory_type"], shown["pinned"]) == (BISCUIT, "fact", True)


def test_tables_fit_80_columns_and_have_the_id(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    id = stored(cli, BISCUIT * 5, "--pinned")
    stored(cli, "It rains.")

    outputs = [
        cli.good("memory", "list", *ARIA).out,
        cli.good("memory", "list", *ARIA, "--limit", "1").out,
        cli.good("memory", "search", "Biscuit", *ARIA).out,
        cli.good("memory", "show", id).out,
        cli.good("memory", "stats", *ARIA).out,
    ]

    assert [line for out in outputs for line in out.splitlines() if len(line) > 80] == []
    assert all(id in out for out in (outputs[0], outputs[2], outputs[3]))
    assert "2 of 2" in outputs[0]
    assert "1 of 2; go on with --cursor 1" in outputs[1]
    assert "It rains." in cli.good("memory", "list", *ARIA, "--cursor", "0").out


def test_nothing_found_is_said(cli: Cli) -> None:
    assert "nothing was found" in cli.good("memory", "search", "Biscuit", *ARIA).out


def test_a_search_by_words_alone_says_why(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(cli, BISCUIT)
    monkeypatch.setenv("PERSONA_EMBEDDER__OPENAI_URL", "http://127.0.0.1:9/v1")

    done = cli.good("memory", "search", "Biscuit", *ARIA)

    assert "Biscuit" in done.out
    assert "by words alone: openai:words cannot be reached" in done.err


def test_a_text_is_read_from_standard_input(cli: Cli) -> None:
    told = cli.good("memory", "store", "-", *ARIA, "--importance", "0.25", said=f"{BISCUIT}\n").out

    assert told.startswith("stored ")
    assert told.endswith(", importance 0.25\n")
    assert cli.good("memory", "list", *ARIA, "--json").json["memories"][0]["content"] == BISCUIT


class Waiting(io.StringIO):
    """A standard input at which Ctrl-C is pressed."""

    def read(self, size: int | None = -1) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(LIMIT_S)
        return BISCUIT


def test_ctrl_c_ends_the_wait_for_standard_input(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Waiting())

    with pytest.raises(typer.Exit) as ended:
        store("-", "Aria", "fact", None, "private", False, None, as_json=True)

    assert ended.value.exit_code == INTERRUPTED
    assert capsys.readouterr() == ("", "stopped\n")
    assert not cli.data_dir.exists()


def test_counts_have_histograms_of_importance_and_of_what_is_left(cli: Cli) -> None:
    for importance in ("0.2", "0.25", "0.95"):
        stored(cli, f"It weighs {importance}.", "--importance", importance)

    counted = cli.good("memory", "stats", *ARIA, "--json").json
    lines = cli.good("memory", "stats", *ARIA).out.splitlines()

    assert counted["importance_histogram"] == [0, 0, 2, 0, 0, 0, 0, 0, 0, 1]
    assert counted["retention_histogram"] == [0] * 9 + [3]
    top = next(line for line in lines if line.startswith("0.9-1.0"))
    assert top.split() == ["0.9-1.0", "#" * 10, "1", "0.9-1.0", "#" * 20, "3"]
    assert any(line.split() == ["3", "memories"] for line in lines)
    assert any(line.split() == ["3", "of", "type", "user_input"] for line in lines)


async def in_another_world(cli: Cli) -> None:
    database = open_database(Settings(_env_file=None, data_dir=cli.data_dir))
    with database.writing() as connection:
        world = {"id": "other", "name": "other", "created_at": 0.0}
        connection.execute(insert(tables.World).values(**world))
    await database.aclose()


def test_another_world_is_looked_into(cli: Cli) -> None:
    stored(cli, BISCUIT)
    asyncio.run(in_another_world(cli))

    done = cli("memory", "stats", *ARIA, "--world", "other", "--json")

    assert (done.code, done.json["error"]["data"]["code"]) == (FAILED, "not_found")
    assert "world 'nowhere' not found" in cli("memory", "list", *ARIA, "--world", "nowhere").err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("list",), "--persona: allowed is a persona's id or name, from `persona list`"),
        (("search", "cat", "-p", "Ari"), "persona 'Ari' not found; did you mean Aria?"),
        (("show", "f" * 32), "memory 'ffffffff"),
        (("store", BISCUIT, *ARIA, "--importance", "7"), "importance: allowed is"),
        (("list", *ARIA, "--order", "colour"), "order: allowed is"),
        (("search", "-", *ARIA), "QUERY: allowed is"),
    ],
)
def test_what_is_wrong_is_said_and_the_command_fails(
    cli: Cli, arguments: tuple[str, ...], reason: str
) -> None:
    done, as_json = cli("memory", *arguments), cli("memory", *arguments, "--json")

    assert (done.code, done.out, as_json.code) == (FAILED, "", FAILED)
    assert reason in done.err
    assert reason in json.dumps(as_json.json["error"], ensure_ascii=False)


def test_help_has_an_example_of_each_command(cli: Cli) -> None:
    for name in ("list", "search", "show", "store", "stats", "shared"):
        assert f"persona memory {name}" in cli.good("memory", name, "--help").out


def test_a_chart_shows_a_bar_for_everything_that_is_there() -> None:
    title, *lines = chart("weight", [0, 1, 1_000_000])

    assert title == "weight"
    assert [line.count("#") for line in lines] == [20, 1, 0]
    assert all(len(line) <= CHART for line in lines)
    assert chart("weight", [0])[1].split() == ["0.0-1.0", "0"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        ([], "-"),
        (["aria", "sam"], "aria, sam"),
        ({}, "-"),
        ({"base": 0.35, "of": {"a": 1}}, "base: 0.35, of: a: 1"),
        (0.5, "0.5"),
    ],
)
def test_values_are_written_for_people(value: object, words: str) -> None:
    assert words_of(value) == words
