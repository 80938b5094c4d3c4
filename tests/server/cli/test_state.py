"""Saved states from the command line: save, load, list, export."""

from pathlib import Path

import pytest

from persona_mcp.server.cli.state import in_words
from tests.command_line import Cli

PERSONA = "name: Mira\ndescription: A potter.\n"


def names(cli: Cli) -> list[str]:
    return [persona["name"] for persona in cli.good("list", "--json").json["personas"]]


def add_mira(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mira.yaml"
    file.write_text(PERSONA, "utf-8")
    cli.good("create", str(file))


def test_a_world_is_saved_changed_and_brought_back(cli: Cli, tmp_path: Path) -> None:
    saved = cli.good("state", "save", "--note", "before Mira")
    add_mira(cli, tmp_path)

    asked = cli("state", "load")
    planned = cli.good("state", "load", "--dry-run")
    after_plan = names(cli)
    loaded = cli.good("state", "load", "--yes", "--json").json

    assert saved.out.startswith("saved 'default' version 1: 3 personas, 0 memories")
    assert asked.code == 1
    assert "--yes: needed where nobody can be asked" in asked.err
    assert "would be replaced" in planned.out
    assert "Mira" in after_plan
    assert names(cli) == ["Aria", "Kira", "Noor"]
    undo = cli.good("state", "load", "--id", loaded["previous_snapshot_id"], "--yes")
    assert "undo it with: persona state load --id" in undo.out
    assert "Mira" in names(cli)


def test_a_file_carries_a_world_into_a_new_one(cli: Cli, tmp_path: Path) -> None:
    add_mira(cli, tmp_path)
    file = tmp_path / "world.json"
    written = cli.good("state", "save", str(file), "--name", "trip", "--json").json
    again = tmp_path / "again.json"
    cli.good("state", "export", str(again), "--name", "trip")

    loaded = cli.good("state", "load", str(file), "--into", "copy", "--json").json

    assert (written["name"], written["file"]) == ("trip", str(file))
    assert file.read_bytes() == again.read_bytes()
    assert (loaded["world_id"], loaded["world_made"]) == ("copy", True)
    assert loaded["restored"]["personas"] == 4


def test_what_is_saved_is_listed_newest_first(cli: Cli) -> None:
    cli.good("state", "save", "--note", "one", "--persona", "Aria")
    cli.good("state", "save", "--note", "two")

    listed = cli.good("state", "list").out
    first = cli.good("state", "list", "--limit", "1", "--json").json
    more = cli.good("state", "list", "--limit", "1").out

    assert listed.index("two") < listed.index("one")
    assert "1 persona," in listed
    assert (first["snapshots"][0]["note"], first["total_count"]) == ("two", 2)
    assert f"the next: --cursor {first['next_cursor']}" in more


def test_a_merge_lists_what_is_different(cli: Cli) -> None:
    memory = cli.good("memory", "store", "Tom sold it.", "--persona", "Aria", "--json").json
    cli.good("state", "save")
    cli.good("memory", "update", memory["memory_id"], "--text", "Tom kept it.")

    planned = cli.good("state", "load", "--merge", "--dry-run")
    refused = cli("state", "load", "--merge")

    assert f"memories {memory['memory_id']}: it is there already" in planned.out
    assert refused.code == 1
    assert "nothing was changed" in refused.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("load", "missing.json"), "file 'missing.json' not found"),
        (("load", "."), "FILE: allowed is a file that can be read"),
        (("load", "/dev/null"), "/dev/null (empty)"),
        (("load", "--version", "0"), "--version: allowed is whole number 1"),
        (("save", "--include", "dreams"), "--include: allowed is one of personas"),
        (("export", "x.json"), "snapshot 'default' not found"),
        (("save", "no/such/folder/x.json"), "FILE: allowed is a file that can be written"),
        (
            ("save", "."),
            "that can be written, given was . (Is a directory)",
        ),
    ],
)
def test_what_is_wrong_is_named_as_on_the_command_line(
    cli: Cli, arguments: tuple[str, ...], words: str
) -> None:
    done = cli("state", *arguments)

    assert done.code == 1
    assert words in " ".join(done.err.split())


def test_a_file_that_cannot_be_written_is_found_before_anything_is_saved(
    cli: Cli, tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "no" / "x.json")
    refused = cli("state", "save", nowhere)
    listed = cli.good("state", "list", "--json").json
    cli.good("state", "save")

    exported = cli("state", "export", nowhere)

    assert "FILE: allowed is a file that can be written" in refused.err
    assert listed["total_count"] == 0
    assert "FILE: allowed is a file that can be written" in exported.err


def test_a_refused_save_leaves_a_file_as_it_was(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    file.write_text("mine", "utf-8")

    refused = cli("state", "save", str(file), "--include", "dreams")

    assert refused.code == 1
    assert file.read_text("utf-8") == "mine"
    assert [one.name for one in tmp_path.glob("kept.json*")] == ["kept.json"]


def test_a_state_is_written_to_what_is_no_plain_file(cli: Cli) -> None:
    assert "wrote it to /dev/null" in cli.good("state", "save", "/dev/null").out
    assert Path("/dev/null").is_char_device()


def test_a_file_that_is_no_saved_state_is_refused(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "world.json"
    file.write_text("{}", "utf-8")

    done = cli("state", "load", str(file), "--into", "copy")

    assert done.code == 1
    assert "an object with format, payload and sha256 is expected" in done.err


def test_what_is_saved_is_counted_in_words() -> None:
    counts = {"personas": 1, "memories": 1, "turns": 2}

    assert in_words(counts) == "1 persona, 1 memory, 0 conversations, 2 turns"
