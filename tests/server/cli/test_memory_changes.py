"""`persona memory update`, `delete`, `import` and `export`, for people and for scripts."""

import asyncio
import csv
import hashlib
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import typer

from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.server.cli.memory_changes import delete, joined
from persona_mcp.server.cli.run import FAILED, INTERRUPTED
from persona_mcp.state.memory.documents import DOCUMENT_BYTES
from persona_mcp.state.memory.merging import Merge, merge
from tests.command_line import Cli
from tests.state.rows import fill

BISCUIT = "Sam's cat is called Biscuit."
ARIA = ("--persona", "Aria")
HANDBOOK = "# Handbook\n\nThe harbour opens at six.\n\n## Tides\n\nThe tide turns at noon.\n"


class Keyboard(io.StringIO):
    """A terminal at which an answer is typed."""

    def isatty(self) -> bool:
        return True


class Interrupted(Keyboard):
    """A terminal at which Ctrl-C is pressed."""

    def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
        os.kill(os.getpid(), signal.SIGINT)
        return ""


def stored(cli: Cli, text: str = BISCUIT, *more: str) -> str:
    id: str = cli.good("memory", "store", text, *ARIA, "--json", *more).json["memory_id"]
    return id


def exported(cli: Cli, *more: str) -> list[dict[str, object]]:
    out = cli.good("memory", "export", *ARIA, "--format", "json", *more).out
    found: list[dict[str, object]] = json.loads(out)
    return found


def test_a_memory_is_changed_and_what_changed_is_said(cli: Cli) -> None:
    id = stored(cli)
    change = (
        "memory",
        "update",
        id,
        "--text",
        "-",
        "--share-with",
        "Kira",
        "--metadata",
        '{"a":1}',
    )

    said = cli.good(*change, said="Sam has a dog.\n").out
    again = cli.good("memory", "update", id, "--pinned", "--json").json
    same = cli.good("memory", "update", id, "--pinned").out

    assert said == "changed content, related_personas, metadata; version 2\n"
    assert (again["changed"], again["version"]) == (["pinned"], 3)
    assert same == "nothing is different; version 3\n"
    shown = cli.good("memory", "show", id, "--json").json["memory"]
    assert (shown["content"], shown["related_personas"]) == ("Sam has a dog.", ["kira"])
    assert shown["metadata"] == {"a": 1}


def test_what_is_deleted_is_archived_and_restored_as_it_says(cli: Cli) -> None:
    id = stored(cli)

    tried = cli("memory", "delete", id, "ffff", "--dry-run")
    assert [memory["id"] for memory in exported(cli)] == [id]
    done = cli.good("memory", "delete", id).out
    again = cli.good("memory", "delete", id).out
    assert exported(cli) == []
    assert len(exported(cli, "--include-archived")) == 1
    [undo] = [line for line in done.splitlines() if line.startswith("undo it with: persona ")]
    cli.good(*undo.removeprefix("undo it with: persona ").split())

    assert BISCUIT in tried.out
    assert "1 memory would be archived" in tried.out
    assert (tried.code, tried.err) == (FAILED, "not found: ffff\n")
    assert done.startswith("1 memory archived\n")
    assert again == f"0 memories archived\narchived already: {id}\n"
    assert [memory["id"] for memory in exported(cli)] == [id]


async def merged(cli: Cli, one: Merge) -> None:
    """Merge memories as the upkeep does."""
    database = open_database(Settings(_env_file=None, data_dir=cli.data_dir))
    assert await database.write(merge, "main", [one], time.time()) == [one]
    await database.aclose()


def test_merged_memories_are_taken_apart(cli: Cli) -> None:
    ids = (stored(cli), stored(cli, "Sam feeds a dog."))
    asyncio.run(merged(cli, Merge("merged", ids, (1, 1))))

    tried = cli.good("memory", "delete", "merged", "--unmerge", "--dry-run").out
    done = cli.good("memory", "delete", "merged", "--unmerge").out
    again = cli("memory", "delete", ids[0], "--unmerge")

    assert f"1 memory would be taken apart\nwould be back: {', '.join(ids)}\n" in tried
    assert done == f"1 memory taken apart\nback, and pinned: {', '.join(ids)}\n"
    assert {memory["id"] for memory in exported(cli)} == set(ids)
    assert (again.code, "was not merged from others" in again.err) == (FAILED, True)


def test_a_purge_needs_yes_where_nobody_can_be_asked(cli: Cli) -> None:
    id = stored(cli)

    refused = cli("memory", "delete", id, "--purge")
    as_json = cli("memory", "delete", id, "--purge", "--json")
    tried = cli.good("memory", "delete", id, "--purge", "--dry-run", "--json").json
    assert len(exported(cli)) == 1
    done = cli.good("memory", "delete", id, "--purge", "--yes").out

    assert (refused.code, refused.out) == (FAILED, "")
    assert "--yes: needed where nobody can be asked" in refused.err
    assert as_json.json["error"]["data"]["field"] == "--yes"
    assert (tried["deleted"], tried["purged"]) == (1, False)
    assert done == "1 memory deleted for good\n"
    assert exported(cli, "--include-archived") == []


@pytest.mark.parametrize("answer", ["n\n", "", "y\n"])
def test_a_purge_shows_what_would_go_and_asks(
    cli: Cli, answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    id, screen = stored(cli), Keyboard()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Keyboard(answer))
        patch.setattr(sys, "stderr", screen)
        if answer == "y\n":
            delete([id], purge=True)
        else:
            with pytest.raises(typer.Exit):
                delete([id], purge=True)

    shown = screen.getvalue()
    assert BISCUIT in shown
    assert "Delete 1 memory for good? Nothing brings it back. [y/N]" in shown
    purged = answer == "y\n"
    assert ("nothing was changed" in shown) is not purged
    assert capsys.readouterr().out == ("1 memory deleted for good\n" if purged else "")
    assert len(exported(cli)) == (0 if purged else 1)


def test_ctrl_c_at_the_question_changes_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    id, screen = stored(cli), Keyboard()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Interrupted())
        patch.setattr(sys, "stderr", screen)
        with pytest.raises(typer.Exit) as ended:
            delete([id], purge=True)

    assert ended.value.exit_code == INTERRUPTED
    assert screen.getvalue().splitlines()[-1].strip() == "stopped"
    assert capsys.readouterr().out == ""
    assert len(exported(cli)) == 1


def test_a_document_is_imported_once(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "handbook.md").write_text(HANDBOOK, encoding="utf-8")
    command = ("memory", "import", str(tmp_path / "handbook.md"), *ARIA)

    tried = cli.good(*command, "--dry-run").out
    assert exported(cli) == []
    done = cli.good(*command).out
    cli.good("memory", "delete", str(exported(cli)[0]["id"]))
    again = cli.good("memory", "import", "-", *ARIA, "--title", "Handbook", said=HANDBOOK).out
    as_json = cli.good(*command, "--json").json

    count = as_json["count"]
    noun = "part" if count == 1 else "parts"
    assert tried == f'{count} {noun} of "Handbook" would be stored\n'
    assert done == f'{count} {noun} of "Handbook" stored\n'
    assert again.startswith('0 parts of "Handbook" stored; ')
    assert "there already and stay as they are, 1 of them archived" in again
    assert (as_json["stored"], as_json["archived"]) == (0, 1)


async def many(cli: Cli, count: int, content: str) -> None:
    database = open_database(Settings(_env_file=None, data_dir=cli.data_dir))
    fill(database, count, persona_id="aria", content=content)
    await database.aclose()


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_an_export_of_several_pages_is_one_text(cli: Cli, form: str) -> None:
    cli.good("list")
    asyncio.run(many(cli, 5, "x" * 2_000_000))

    out = cli.good("memory", "export", *ARIA, "--format", form).out

    records = json.loads(out) if form == "json" else [json.loads(line) for line in out.splitlines()]
    assert [record["id"] for record in records] == [f"aria-{number:05}" for number in range(5)]


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_an_export_is_the_same_in_a_file_and_in_json(cli: Cli, tmp_path: Path, form: str) -> None:
    stored(cli, 'Ünïcode, "quoted"\nand two lines.')
    stored(cli)
    file = tmp_path / f"aria.{form}"
    file.write_text("what was there")

    said = cli.good("memory", "export", *ARIA, "--format", form, "-o", str(file)).out
    as_json = cli.good("memory", "export", *ARIA, "--format", form, "--json").json
    text = file.read_bytes().decode("utf-8")

    assert said == f"wrote 2 memories to {file}\n"
    assert as_json["data"] == text
    assert as_json["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    match form:
        case "json":
            records = json.loads(text)
        case "jsonl":
            records = [json.loads(line) for line in text.splitlines()]
        case _:
            records = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [record["content"] for record in records][1] == BISCUIT
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("aria")] == [file.name]


def test_nothing_to_export_is_said_beside_the_output(cli: Cli) -> None:
    done = cli.good("memory", "export", *ARIA)

    assert (done.out, done.err) == ("", "aria has no memories to export\n")


def test_pages_of_an_export_make_one_text() -> None:
    assert joined(["[1,\n2]", "[3]"], "json") == "[1,\n2,\n3]\n"
    assert joined(["[]"], "json") == "[]\n"
    assert joined(["a\n", "b\n"], "jsonl") == "a\nb\n"


def test_a_device_is_written_and_not_replaced(cli: Cli) -> None:
    cli.good("memory", "export", *ARIA, "-o", os.devnull)

    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("update", "ffff"), "--text: allowed is this or another change"),
        (("update", "ffff", "--metadata", "{x"), "--metadata: allowed is a JSON object"),
        (("update", "ffff", "--importance", "3"), "--importance: allowed is number 0..1"),
        (("update", "ffff", "--pinned"), "memory 'ffff' not found"),
        (("delete", "no id!"), "MEMORY_ID: allowed is"),
        (("import", "nope.md", *ARIA), "file 'nope.md' not found"),
        (("import", ".", *ARIA), "FILE: allowed is a file that can be read"),
        (("import", "-", *ARIA), "FILE: allowed is text that is not blank"),
        (("import", "-"), "--persona: allowed is"),
        (("import", "large.md", *ARIA), f"FILE: allowed is at most {DOCUMENT_BYTES} bytes"),
        (("import", "binary.md", *ARIA), "FILE: allowed is text in UTF-8"),
        (("export", *ARIA, "--format", "xml"), "--format: allowed is one of json, jsonl, csv"),
        (("export", *ARIA, "-o", "no/such/folder"), "--output: allowed is a file"),
    ],
)
def test_what_is_wrong_is_said_and_the_command_fails(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "binary.md").write_bytes(b"\xff\xfe")
    (tmp_path / "large.md").write_bytes(b"a" * (DOCUMENT_BYTES + 1))

    done = cli("memory", *arguments, "--json")

    assert done.code == FAILED
    assert reason in done.err
    assert reason in done.json["error"]["message"]


def test_standard_input_that_is_no_text_is_said(cli: Cli) -> None:
    done = cli("memory", "import", "-", *ARIA, said=b"\xff\xfe")

    assert done.code == FAILED
    assert "-: allowed is text on standard input" in done.err


def test_help_has_an_example_of_each_command(cli: Cli) -> None:
    for name in ("update", "delete", "import", "export"):
        assert f"persona memory {name}" in cli.good("memory", name, "--help").out
