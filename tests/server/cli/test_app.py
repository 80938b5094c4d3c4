"""The command line: personas, settings, checks, pictures, the database, and how commands end."""

import json
import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
import yaml

from persona_mcp.config.settings import Settings
from persona_mcp.server.cli import mcp as cli_mcp
from persona_mcp.server.cli import run as cli_run
from persona_mcp.server.cli import system as cli_system
from persona_mcp.server.mcp import NAME
from persona_mcp.server.pictures import mermaid, svg
from persona_mcp.server.terminal import Terminal
from tests.command_line import Cli, Done
from tests.processes import run, stored

MIRA = """\
name: Mira
description: You are Mira, who mends clocks.
social_rank: clockmaker
"""
HELLO = (
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    },
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
)


@pytest.fixture
def mira(tmp_path: Path) -> str:
    file = tmp_path / "mira.yaml"
    file.write_text(MIRA)
    return str(file)


def refused(done: Done) -> str:
    """Return the error of a command that ended as errors do."""
    assert (done.code, done.out) == (cli_run.FAILED, "")
    assert done.err.startswith("error: ")
    return done.err


def test_the_version_is_that_of_the_package(cli: Cli) -> None:
    assert cli.good("--version").out == version("persona-mcp") + "\n"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("persona dia", "dialogue"), ("persona dialogue run --eng", "--engine")],
)
def test_the_shell_completes_commands_and_options(typed: str, completed: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}

    done = run(_PERSONA_COMPLETE="complete_bash", **words)

    assert (done.stdout, done.stderr) == (f"{completed}\n", "")


@pytest.mark.parametrize(
    "group", ["", "db", "memory", "memory upkeep", "state", "dialogue", "token"]
)
def test_the_help_lists_what_each_command_does_in_a_whole_sentence(cli: Cli, group: str) -> None:
    listed = cli.good(*group.split(), "--help").out.partition("Commands:")[2]

    assert listed
    assert "..." not in listed


def test_a_persona_and_a_page_are_asked_for_in_the_same_way_by_every_command(cli: Cli) -> None:
    for name in ("conversations", "memory list", "state save", "memory prune"):
        assert "-p, --persona NAME" in cli.good(*name.split(), "--help").out
    for name in ("conversations", "memory list", "state list"):
        said = cli.good(*name.split(), "--help").out
        assert "-n, --limit" in said
        assert "next_cursor of the page before." in said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("conversations", "no talks; begin one: persona chat Aria"),
        ("state list", "nothing is saved; persona state save does it"),
        ("memory list --persona Aria", "no memories"),
        ("memory search boats --persona Aria", "nothing was found"),
        ("memory shared", "no memory is shared or public"),
        ("relationships", "nobody has met anybody yet; talk to one: persona chat Aria"),
        ("token list", "no tokens; persona token create makes one"),
    ],
)
def test_a_list_of_nothing_is_a_sentence_and_no_empty_table(
    cli: Cli, command: str, said: str
) -> None:
    assert cli.good(*command.split()).out == f"{said}\n"


def test_what_a_memory_command_needs_is_in_its_help(cli: Cli) -> None:
    assert "id or name; needed." in cli.good("memory", "search", "--help").out
    assert "id or name; or --all." in cli.good("memory", "prune", "--help").out


def test_the_personas_are_listed_in_a_table_and_as_json(cli: Cli) -> None:
    table, listed = cli.good("list").out, cli.good("list", "--json").json

    assert [persona["id"] for persona in listed["personas"]] == ["aria", "kira", "noor"]
    assert all(name in table for name in ("Aria", "Kira", "Noor"))


def test_a_persona_that_is_shown_is_a_file_that_makes_another(cli: Cli, tmp_path: Path) -> None:
    shown = cli.good("show", "aria").out
    file = tmp_path / "copy.yaml"
    file.write_text(shown.replace("name: Aria", "name: Ariadne"))

    made = cli.good("create", str(file), "--json").json

    assert (made["name"], made["created"]) == ("Ariadne", True)
    again = yaml.safe_load(cli.good("show", "Ariadne").out)
    assert again == {**yaml.safe_load(shown), "name": "Ariadne"}
    assert cli.good("show", made["persona_id"], "--json").json["version"] == 1


def test_a_persona_that_is_not_there_is_named_with_those_near_it(cli: Cli) -> None:
    assert "persona 'Ari' not found; did you mean Aria?" in refused(cli("show", "Ari"))


def test_a_dry_run_checks_a_file_and_stores_nothing(cli: Cli, mira: str) -> None:
    told = cli.good("create", mira, "--dry-run")
    as_json = cli.good("create", mira, "--dry-run", "--json").json

    assert "valid persona: Mira; nothing was stored" in told.out
    assert as_json == {"name": "Mira", "created": False, "valid": True}
    assert not cli.data_dir.exists()


def test_a_created_persona_can_be_talked_to_and_its_name_is_taken(cli: Cli, mira: str) -> None:
    told = cli.good("create", mira)
    second = cli("create", mira)

    assert "created Mira" in told.out
    assert "Mira" in refused(second)
    assert "Well met" in cli.good("ask", "Mira", "Hello.").out


def test_a_file_that_is_no_yaml_is_refused_with_the_line(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("name: Mira\ndescription: [unclosed\n")

    assert "broken.yaml, line 3" in refused(cli("create", str(file)))


def test_a_field_that_is_wrong_is_named_with_what_is_allowed(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(MIRA + "charisma: 900\n")

    done = cli("create", str(file), "--json")

    assert done.code == cli_run.FAILED
    error = done.json["error"]
    assert (error["code"], error["data"]["field"]) == (-32602, "charisma")
    assert error["data"]["correlation_id"] in done.err
    assert "900" in done.err


def test_a_file_that_is_not_there_is_named(cli: Cli) -> None:
    assert "nowhere.yaml" in refused(cli("create", "nowhere.yaml"))


def test_the_settings_are_shown_with_their_sources_and_no_secret(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_LLM__OPENAI_API_KEY", "sk-secret")

    table, listed = cli.good("config").out, cli.good("config", "--json").json

    assert "sk-secret" not in table + json.dumps(listed)
    assert listed["PERSONA_LLM__MODEL"] == {"value": "openai:test", "source": "environment"}
    assert listed["PERSONA_USER"] == {"value": "user", "source": "default"}
    assert "PERSONA_LLM__MODEL" in table


def test_a_wrong_setting_stops_the_start_with_all_that_is_needed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_LLM__TOTAL_S", "-3")
    monkeypatch.setenv("PERSONA_LLM__MODLE", "x")

    told = refused(cli("list"))

    assert 'PERSONA_LLM__TOTAL_S: given was "-3", allowed is number above 0' in told
    assert "PERSONA_LLM__MODLE: there is no such setting; did you mean PERSONA_LLM__MODEL?" in told
    assert not cli.data_dir.exists()


def test_a_world_that_was_not_there_is_told_of_once(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cli.good("list").err
    monkeypatch.setenv("PERSONA_WORLD", "typo")

    made = json.loads(cli.good("list").err)
    again = cli.good("list").err

    assert (first, again) == ("", "")
    assert made["event"] == "made world 'typo'; it was not there"
    assert (made["level"], made["setting"]) == ("warning", "PERSONA_WORLD")


def test_the_doctor_uses_every_part_and_finds_all_well(cli: Cli) -> None:
    cli.good("ask", "Aria", "Hello.")

    table, told = cli.good("doctor").out, cli.good("doctor", "--json").json

    assert told["ok"] is True
    found = {check["part"]: check["detail"] for check in told["checks"]}
    assert list(found) == ["data folder", "database", "index", "embedder", "model"]
    assert found["database"] == "sound; exchanges: 1, memories: 2"
    assert found["index"].startswith("exact")
    assert found["embedder"].startswith("openai-words; 64 dimensions")
    assert "openai:test said 'Well met" in found["model"]
    assert "attention" not in table


def test_the_doctor_says_what_to_do_about_a_model_that_fails(cli: Cli) -> None:
    cli.server.script("500", "500")

    done, told = cli("doctor"), cli("doctor", "--json")

    assert (done.code, told.code) == (cli_run.FAILED, cli_run.FAILED)
    assert "attention" in done.out
    [wrong] = [check for check in told.json["checks"] if not check["ok"]]
    assert wrong["part"] == "model"
    assert "openai:test" in wrong["detail"]


def test_the_doctor_notices_a_data_folder_that_cannot_be_used(cli: Cli) -> None:
    cli.data_dir.write_text("a file where the folder should be")

    done = cli("doctor", "--json")

    assert done.code == cli_run.FAILED
    wrong, *others = done.json["checks"]
    assert (wrong["part"], wrong["ok"]) == ("data folder", False)
    assert [other["part"] for other in others] == ["embedder", "model"]
    assert "PERSONA_DATA_DIR" in wrong["detail"]
    assert wrong["detail"].count(str(cli.data_dir)) == 1, "named once"


def test_the_doctor_says_what_to_do_about_a_damaged_database(cli: Cli) -> None:
    cli.good("ask", "Aria", "Hello.")
    with closing(sqlite3.connect(cli.data_dir / "persona.db")) as connection, connection:
        connection.execute("pragma writable_schema = on")
        connection.execute(
            "update sqlite_schema set rootpage = (select rootpage from sqlite_schema "
            "where name = 'memory_uses') where name = 'energy_spent'"
        )

    done = cli("doctor", "--json")

    assert done.code == cli_run.FAILED
    [wrong] = [check for check in done.json["checks"] if not check["ok"]]
    assert wrong["part"] == "database"
    assert "put a backup back (`persona db restore`)" in wrong["detail"]


def test_the_doctor_mends_an_index_that_lacks_vectors(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.good("ask", "Aria", "Hello.")
    monkeypatch.setenv("PERSONA_INDEX__KIND", "chroma")

    found = {c["part"]: c["detail"] for c in cli.good("doctor", "--json").json["checks"]}

    assert found["index"].startswith("chroma; 0 memories wait")


@pytest.mark.parametrize("name", ["conversation", "relationship"])
def test_a_graph_is_printed_as_mermaid_and_drawn(cli: Cli, name: str, tmp_path: Path) -> None:
    file = tmp_path / "graph.svg"

    printed, drawn = cli.good("graph", name), cli.good("graph", name, "--svg", str(file))

    assert printed.out.strip() == mermaid(name).expandtabs().strip()
    assert file.read_text("utf-8") == svg(name)
    assert str(file) in drawn.out


def test_a_graph_that_is_not_there_is_refused(cli: Cli) -> None:
    assert "conversation" in refused(cli("graph", "conversatoin"))


def test_the_database_is_upgraded_once(cli: Cli) -> None:
    first, second = cli.good("db", "upgrade").out, cli.good("db", "upgrade").out

    [(revision,)] = stored(cli.data_dir, "select version_num from alembic_version")
    assert first == f"the database went from nothing to {revision}\n"
    assert second == f"the database is at {revision} already\n"


def test_a_database_of_a_newer_version_is_left_alone(cli: Cli) -> None:
    cli.good("db", "upgrade")
    with closing(sqlite3.connect(cli.data_dir / "persona.db")) as connection, connection:
        connection.execute("update alembic_version set version_num = '9999'")

    assert "a newer version made it" in refused(cli("list"))


def test_the_index_is_made_anew(cli: Cli) -> None:
    cli.good("ask", "Aria", "My cat is called Biscuit.")

    told = cli.good("memory", "reindex", "--embed", "--json").json
    words = cli.good("memory", "reindex").out

    assert told == {"indexed": 2, "index": "exact"}
    assert words == "2 memories are in the index (exact)\n"
    assert cli_system.HELD not in words


def test_a_toolset_that_is_not_there_is_refused(cli: Cli) -> None:
    assert "--toolset: allowed is core or all" in refused(cli("mcp", "--toolset", "most"))
    assert cli_mcp.TOOLSETS == ("core", "all")


def test_mcp_speaks_json_rpc_and_nothing_else_until_its_input_ends(cli: Cli) -> None:
    said = "".join(json.dumps(line) + "\n" for line in HELLO)

    done = cli.good("mcp", said=said)

    answers = [json.loads(line) for line in done.out.splitlines()]
    assert answers[0]["result"]["serverInfo"]["name"] == NAME
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)


def test_a_picture_that_cannot_be_written_is_refused(cli: Cli, tmp_path: Path) -> None:
    told = refused(cli("graph", "conversation", "--svg", str(tmp_path)))

    assert "--svg: allowed is a file that can be written" in told


def test_a_mistake_is_told_in_one_line_and_with_an_id_for_a_program_only(cli: Cli) -> None:
    plain, as_json = cli("show", "Ari"), cli("show", "Ari", "--json")

    error = as_json.json["error"]
    id_line = f"correlation id: {error['data']['correlation_id']}\n"
    assert plain.err == f"error: {error['message']}\n"
    assert as_json.err == plain.err + id_line


def test_a_defect_of_ours_has_the_id_of_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(settings: Settings, terminal: Terminal) -> None:
        raise RuntimeError("secret place")

    with pytest.raises(typer.Exit):
        cli_run.run(work)

    logged, *told = capsys.readouterr().err.splitlines()
    assert told[-1] == f"correlation id: {json.loads(logged)['correlation_id']}"


def test_a_defect_of_ours_is_logged_and_told_without_its_cause(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(settings: Settings, terminal: Terminal) -> None:
        raise RuntimeError("secret place")

    with pytest.raises(typer.Exit) as ended:
        cli_run.run(work, as_json=True)

    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert (ended.value.exit_code, error["code"]) == (cli_run.FAILED, -32603)
    assert "secret" not in out + "".join(err.splitlines()[1:])
    logged = json.loads(err.splitlines()[0])
    assert logged["correlation_id"] == error["data"]["correlation_id"]
    assert "secret place" in logged["exception"]
