"""`persona import` and `persona export`: files and folders, what is refused, what is written."""

from pathlib import Path

import pytest

from persona_mcp.server.cli.cards import cards_in
from persona_mcp.state.errors import InvalidParams
from tests.cards import V2, V3, as_charx, as_json, as_png
from tests.command_line import Cli


def test_a_folder_is_imported_and_what_is_refused_is_told(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "a.png").write_bytes(as_png(("chara", V2)))
    (folder / "b.json").write_bytes(b"[1]")
    (folder / "notes.txt").write_text("no card")

    done = cli("import", str(folder), "--json")

    assert done.code == 1
    found = done.json
    assert (found["imported"], found["failed"]) == (1, 1)
    assert found["cards"][0]["name"] == "Mira Holm"
    assert found["cards"][1]["error"]["data"]["code"] == "bad_snapshot"


def test_a_card_goes_through_files_unchanged(cli: Cli, tmp_path: Path) -> None:
    for name, raw in (
        ("one.charx", as_charx(V3)),
        ("two.json", as_json(V3)),
        ("three.json", as_json(V2)),
    ):
        came, gone = tmp_path / name, tmp_path / f"back-{name}"
        came.write_bytes(raw)

        cli.good("import", str(came), "--on-conflict", "replace")
        said = cli.good("export", "Mira Holm", str(gone)).out

        assert gone.read_bytes() == raw
        assert "Mira Holm is in" in said


def test_a_dry_run_makes_nobody(cli: Cli, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_bytes(as_json(V2))

    said = cli.good("import", str(card), "--dry-run").out

    assert "1 card would be imported" in said
    assert "Mira" not in cli.good("list").out


def test_a_dry_run_knows_that_two_files_make_one_name(cli: Cli, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_bytes(as_json(V2))
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]

    refused = cli("import", *files, "--dry-run", "--json")
    renamed = cli.good("import", *files, "--dry-run", "--json", "--on-conflict", "rename")

    assert (refused.code, refused.json["imported"], refused.json["failed"]) == (1, 1, 1)
    assert "earlier file" in refused.json["cards"][1]["error"]["message"]
    assert "earlier file" in renamed.json["cards"][1]["warnings"][-1]


def test_a_file_of_the_other_command_is_told_where_it_belongs(cli: Cli, tmp_path: Path) -> None:
    yaml, picture = tmp_path / "mira.yaml", tmp_path / "aria.png"
    yaml.write_text("name: Mira\n")
    cli.good("export", "Aria", str(picture))

    [card] = cli("import", str(yaml), "--json").json["cards"]
    created = cli("create", str(picture))

    assert "`persona create`" in card["error"]["message"]
    assert "`persona import`" in created.err


def test_what_is_not_there_or_cannot_be_told_apart_is_refused(cli: Cli, tmp_path: Path) -> None:
    missing = cli("import", str(tmp_path / "none.png"))
    unknown = cli("export", "Aria", str(tmp_path / "aria.gif"))
    other = cli("export", "Aria", str(tmp_path / "aria.png"), "--format", "v3")

    assert (missing.code, unknown.code, other.code) == (1, 1, 1)
    assert "ends in .png" in other.err
    assert "FILE" in missing.err
    assert "--format" in unknown.err


def test_a_folder_is_looked_through_by_name_and_one_without_cards_is_refused(
    tmp_path: Path,
) -> None:
    for name in ("b.PNG", "a.charx", "c.txt"):
        (tmp_path / name).touch()
    empty = tmp_path / "empty"
    empty.mkdir()

    assert [file.name for file in cards_in(tmp_path)] == ["a.charx", "b.PNG"]
    with pytest.raises(InvalidParams, match="a folder with files"):
        cards_in(empty)


def test_a_talk_begins_with_the_greeting_of_the_card(cli: Cli, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_bytes(as_json(V3))
    cli.good("import", str(card))

    said = cli.good("chat", "Mira Holm", "--user", "tom", said="/quit\n").out

    assert "Mira Holm: You are late, tom." in said
