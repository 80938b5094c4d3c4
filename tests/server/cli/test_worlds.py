"""`persona world`, and `--world` of the other commands: where things are, and what goes with it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from persona_mcp.server.cli import run as cli_run
from persona_mcp.server.cli.worlds import in_words, seconds
from persona_mcp.state.worlds import WorldUse
from tests.command_line import Cli, Done
from tests.model_server import Behaviour
from tests.processes import stored

REPLY = Behaviour().text
GARDEN = ("--world", "garden")
MIRA = "name: Mira\ndescription: You are Mira, who mends clocks.\n"


@pytest.fixture
def garden(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A data folder with two worlds: `main`, which is the default one, and `garden`."""
    cli.good("list")
    with monkeypatch.context() as named:
        named.setenv("PERSONA_WORLD", "garden")
        cli.good("list")
    return cli


def refused(done: Done) -> str:
    assert (done.code, done.out) == (cli_run.FAILED, "")
    return done.err


def threads(data_dir: Path) -> int:
    with closing(sqlite3.connect(data_dir / "checkpoints.db")) as connection:
        [(count,)] = connection.execute("select count(distinct thread_id) from checkpoints")
    return int(count)


def test_the_worlds_are_listed_with_how_much_is_in_each(garden: Cli) -> None:
    garden.good("ask", "Aria", "My cat is called Biscuit.", *GARDEN)

    table = garden.good("world", "list").out
    there, main = garden.good("world", "list", "--json").json["worlds"]

    assert "garden" in table and "main (default)" in table
    assert (there["world_id"], there["name"], there["default"]) == ("garden", "garden", False)
    assert (there["personas"], there["conversations"], there["memories"]) == (3, 1, 2)
    assert (main["world_id"], main["conversations"], main["default"]) == ("main", 0, True)
    assert there["used_at"] > main["used_at"]


def test_a_persona_is_made_seen_and_talked_to_in_the_world_that_is_named(
    garden: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "mira.yaml"
    file.write_text(MIRA)

    made = garden.good("create", str(file), *GARDEN)
    garden.good("ask", "Mira", "Hello.", *GARDEN)
    first = garden.good("chat", "Mira", *GARDEN, said="Hello again.\n/why\n/quit\n")
    talk = garden.good("talk", "Mira", "Aria", "--turns", "2", "--json", *GARDEN).json

    assert "persona chat mira --world garden" in made.out
    assert "Mira" in garden.good("list", *GARDEN).out
    assert "mends clocks" in garden.good("show", "Mira", *GARDEN).out
    assert "remembers" in garden.good("show", "Mira", "--now", *GARDEN).out
    assert "You go on after 2 turns" in first.out and "Memories in the prompt" in first.out
    assert [turn["content"] for turn in talk["turns"]] == [REPLY, REPLY]
    assert {where for (where,) in stored(garden.data_dir, "select world_id from turns")} == {
        "garden"
    }
    assert "Mira" not in garden.good("list").out


def test_the_index_of_the_world_that_is_named_is_made_anew(garden: Cli) -> None:
    garden.good("ask", "Aria", "My cat is called Biscuit.", *GARDEN)

    assert garden.good("memory", "reindex", *GARDEN, "--json").json["indexed"] == 2
    assert garden.good("memory", "reindex", "--json").json["indexed"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("show", "Aria"),
        ("show", "Aria", "--now"),
        ("ask", "Aria", "Hello."),
        ("chat", "Aria"),
        ("talk", "Aria", "Kira"),
        ("memory", "reindex"),
    ],
)
def test_a_world_that_is_not_there_is_not_made(garden: Cli, arguments: tuple[str, ...]) -> None:
    assert "world 'gardn' not found" in refused(garden(*arguments, "--world", "gardn"))

    assert stored(garden.data_dir, "select id from worlds order by id") == [("garden",), ("main",)]
    assert garden.server.requests == []


def test_a_world_goes_with_all_that_is_in_it_and_about_it(garden: Cli) -> None:
    garden.good("ask", "Aria", "My cat is called Biscuit.", *GARDEN)
    garden.good("ask", "Aria", "My dog is called Ada.")
    garden.good("state", "save", *GARDEN)
    folder = garden.data_dir / "dialogues" / "garden" / "batch"
    folder.mkdir(parents=True)

    shown = garden.good("world", "delete", "garden", "--dry-run")
    before = garden.good("world", "list", "--json").json["worlds"]
    told = garden.good("world", "delete", "garden", "--yes", "--json").json

    assert shown.out == (
        "garden would be deleted: 3 personas, 1 conversation, 2 memories, 1 saved state\n"
    )
    assert [one["world_id"] for one in before] == ["garden", "main"]
    assert (told["world_id"], told["deleted"], told["memories"]) == ("garden", True, 2)
    assert stored(garden.data_dir, "select id from worlds") == [("main",)]
    assert len(stored(garden.data_dir, "select 1 from memories")) == 2
    assert stored(garden.data_dir, "select 1 from snapshots") == []
    assert threads(garden.data_dir) == 1
    assert not folder.parent.exists()
    assert "world 'garden' not found" in refused(garden("list", *GARDEN))


def test_tokens_that_name_a_deleted_world_are_told_of(garden: Cli) -> None:
    created = ("token", "create", "--scopes", "read", "--json", "--name")
    named = garden.good(*created, "ours", "--worlds", "garden").json["id"]
    garden.good(*created, "both", "--worlds", "garden,main")
    garden.good(*created, "theirs", "--worlds", "main")
    garden.good("token", "revoke", "both", "--yes")

    shown = garden.good("world", "delete", "garden", "--dry-run").out
    told = garden.good("world", "delete", "garden", "--yes", "--json").json

    assert f"end it with: persona token revoke {named}\n" in shown
    assert told["tokens"] == [named]


def test_a_deletion_that_failed_in_the_checkpoints_is_done_again(garden: Cli) -> None:
    garden.good("ask", "Aria", "My cat is called Biscuit.", *GARDEN)
    with closing(sqlite3.connect(garden.data_dir / "checkpoints.db")) as checkpoints:
        checkpoints.execute(
            "create trigger kept before delete on checkpoints begin select raise(abort, 'no'); end"
        )
        failed = refused(garden("world", "delete", "garden", "--yes"))
        checkpoints.execute("drop trigger kept")
    left = threads(garden.data_dir)
    garden.good("world", "delete", "garden", "--yes")

    assert failed.startswith("error: checkpoints: no")
    assert (left, threads(garden.data_dir)) == (1, 0)


def test_a_folder_of_batches_that_cannot_be_deleted_is_told_of(garden: Cli, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = garden.data_dir / "dialogues" / "garden"
    folder.parent.mkdir()
    folder.symlink_to(elsewhere)

    failed = refused(garden("world", "delete", "garden", "--yes"))
    folder.unlink()
    garden.good("world", "delete", "garden", "--yes")

    assert "the folder of its batches cannot be deleted" in failed
    assert str(folder) in failed


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("garden",), "--yes: needed where nobody can be asked"),
        (("main", "--yes"), "WORLD: allowed is another world than the default one"),
        (("gardn", "--yes"), "world 'gardn' not found; did you mean garden?"),
        (("gardn", "--dry-run"), "world 'gardn' not found; did you mean garden?"),
    ],
)
def test_a_world_stays_where_it_is_not_to_go(
    garden: Cli, arguments: tuple[str, ...], reason: str
) -> None:
    assert reason in refused(garden("world", "delete", *arguments))

    assert stored(garden.data_dir, "select id from worlds order by id") == [("garden",), ("main",)]


def test_what_is_in_a_world_is_said_without_what_is_not() -> None:
    empty = WorldUse("garden", "garden", 0, 0, 0, 0, 0, used_at=1_800_000_000.0)
    lived_in = WorldUse("garden", "garden", 1, 0, 2, 1, 2, used_at=1_800_000_000.0)

    assert in_words(empty) == "nothing in it"
    assert in_words(lived_in) == "1 persona, 2 memories, 1 saved state, 2 batches of dialogues"
    assert seconds(lived_in.used_at) == "2027-01-15 08:00:00"
