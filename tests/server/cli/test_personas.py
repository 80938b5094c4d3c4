"""`persona update`, `persona delete` and `persona show --now`: what people see and can undo."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.persona_changes import pair_of
from persona_mcp.server.cli.personas import PAGE
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.personas import add
from tests.command_line import Cli, Done


def refused(done: Done) -> str:
    assert done.code == 1, done
    return done.err


def test_fields_are_changed_one_by_one(cli: Cli) -> None:
    told = cli.good(
        "update", "aria", "--set", "charisma=3", "--set", "topic_preferences={gardens: 90}"
    )

    assert "changed topic_preferences, charisma; version 2" in told.out
    found = yaml.safe_load(cli.good("show", "aria").out)
    assert (found["charisma"], found["topic_preferences"]) == (3, {"gardens": 90})
    again = cli.good("update", "aria", "--set", "charisma=3", "--json").json
    assert again == {"persona_id": "aria", "version": 2, "changed": []}


def test_a_file_has_only_the_fields_that_change_and_an_option_goes_before_it(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "change.yaml"
    file.write_text("charisma: 4\nintelligence: 5\n")

    told = cli.good("update", "Aria", str(file), "--set", "charisma=6", "--expect-version", "1")

    assert "changed charisma, intelligence; version 2" in told.out
    assert yaml.safe_load(cli.good("show", "aria").out)["charisma"] == 6
    assert "has version 2, not 1" in refused(
        cli("update", "Aria", str(file), "--expect-version", "1")
    )


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("charisma=12", ("charisma", 12)),
        ("name=Vera", ("name", "Vera")),
        ("description=a = b", ("description", "a = b")),
        ("tags=[sea, boats]", ("tags", ["sea", "boats"])),
        ("current_priority = urgent", ("current_priority", "urgent")),
        ("system_prompt=", ("system_prompt", None)),
    ],
)
def test_a_value_is_read_as_a_file_would_have_it(text: str, pair: tuple[str, Any]) -> None:
    assert pair_of(text) == pair


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ((), "--set: allowed is FIELD=VALUE"),
        (("--set", "charisma"), "--set: allowed is FIELD=VALUE"),
        (("--set", "charisma=99"), "charisma"),
        (("--set", "charisme=9"), "did you mean charisma? known are name, "),
        (("--set", "request_id=abc"), "request_id: allowed is another name"),
        (("--set", "persona_id=kira", "--set", "charisma=9"), "persona_id: allowed is another"),
        (("--set", "tags=[a"), "that is YAML"),
        (("nowhere.yaml",), "nowhere.yaml"),
    ],
)
def test_a_change_that_is_wrong_is_refused_with_its_field(
    cli: Cli, given: tuple[str, ...], word: str
) -> None:
    assert word in refused(cli("update", "aria", *given))
    assert cli.good("show", "aria", "--json").json["version"] == 1


def test_a_date_in_yaml_for_a_field_that_is_not_there_is_refused_in_json(cli: Cli) -> None:
    done = cli("update", "aria", "--set", "born=2020-01-01", "--json")

    assert done.json["error"]["data"]["given"] == "2020-01-01"


def test_what_would_go_is_shown_and_nothing_goes(cli: Cli) -> None:
    cli.good("ask", "Aria", "Good evening.")

    told = cli.good("delete", "Aria", "--purge", "--dry-run")

    assert "Aria would be deleted, with everything that was its own: " in told.out
    assert "1 open conversation ends, 2 memories, " in told.out
    assert cli.good("show", "aria").out


def test_nobody_is_deleted_without_a_word(cli: Cli) -> None:
    assert "--yes: needed where nobody can be asked" in refused(cli("delete", "Aria"))
    assert "persona 'Ari' not found" in refused(cli("delete", "Ari", "--yes"))
    assert len(cli.good("list", "--json").json["personas"]) == 3


@pytest.mark.parametrize("purge", [(), ("--purge",)])
def test_a_deleted_persona_is_gone_from_the_list(cli: Cli, purge: tuple[str, ...]) -> None:
    told = cli.good("delete", "Aria", "--yes", *purge)

    assert "Aria was deleted" in told.out
    assert [p["id"] for p in cli.good("list", "--json").json["personas"]] == ["kira", "noor"]


def test_how_a_persona_stands_now_is_told_in_a_few_lines(cli: Cli) -> None:
    cli.good("ask", "Aria", "Good evening.")

    lines = cli.good("show", "Aria", "--now").out.splitlines()

    assert lines[0] == "Aria (aria), version 1"
    assert lines[1].startswith("feels ") and "social battery" in lines[1]
    assert lines[2].endswith("can talk")
    assert lines[3] == "remembers 2 things, 0 of them weighty"
    assert cli.good("show", "Aria", "--now", "--json").json["memory_stats"]["total_memories"] == 2


@pytest.mark.anyio
async def test_all_personas_are_listed_however_many_there_are(cli: Cli) -> None:
    before = len((await asyncio.to_thread(cli.good, "list", "--json")).json["personas"])
    database = open_database(Settings(data_dir=cli.data_dir, _env_file=None))
    with database.writing() as connection:
        for number in range(PAGE):
            add(connection, "main", PersonaSpec(name=f"Guest {number:03}"), 0.0)
    await database.aclose()

    listed = (await asyncio.to_thread(cli.good, "list", "--json")).json

    assert len(listed["personas"]) == before + PAGE
    assert listed["next_cursor"] is None
