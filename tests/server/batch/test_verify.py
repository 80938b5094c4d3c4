"""A finished batch is what its manifest says, and its recording makes the same of it again."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from persona_mcp.nodes import wording
from persona_mcp.server.batch.manifest import SUM, sum_of, versions, write_manifest
from persona_mcp.server.batch.verify import (
    Difference,
    first_in,
    first_in_lines,
    other_versions,
    words,
)
from persona_mcp.server.prompt_texts import prompts_sha256
from tests.batches import lines, results, specification, written
from tests.command_line import Cli

ONE = {"repeats": 1, "waves": [{"dialogues": [{"participants": ["ada", "bo"], "max_turns": 2}]}]}
OUT = Path("out")


@pytest.fixture
def out(cli: Cli, tmp_path: Path) -> Path:
    """A finished batch of one dialogue."""
    cli.server.default = cli.server.named("hashed")
    cli.good(
        "dialogue", "run", written(tmp_path / "one.yaml", specification(**ONE)), "--out", "out"
    )
    return OUT


def verdict(cli: Cli, folder: str = "out", *, good: bool = False) -> dict[str, Any]:
    done = cli("dialogue", "verify", folder, "--json")
    assert done.code == (0 if good else 1), done
    found: dict[str, Any] = done.json
    assert found["verified"] is good
    return found


def changed(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def flipped(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def summed_again(out: Path) -> None:
    """Have the manifest agree with the files, as one who forges would."""
    from persona_mcp.server.batch.folder import sha256_of

    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    for name, its in manifest["files"].items():
        its.update(sha256=sha256_of(out / name), bytes=(out / name).stat().st_size)
    manifest[SUM] = sum_of(manifest)
    write_manifest(out, manifest)


def test_it_needs_neither_the_model_nor_a_data_folder_nor_the_store(
    cli: Cli, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = len(cli.server.requests)
    shutil.copytree(out, "elsewhere")
    for name in ("run.db", "timings.jsonl", "run.lock"):
        Path("elsewhere", name).unlink()
    before = results(Path("elsewhere"))
    monkeypatch.setenv("PERSONA_DATA_DIR", str(Path("nowhere").absolute()))
    monkeypatch.setenv("PERSONA_CONVERSATION__WINDOW_TURNS", "3")
    monkeypatch.setenv("PERSONA_LLM__MODEL", "openai:gone")

    found = verdict(cli, "elsewhere", good=True)

    assert (found["dialogues"], found["calls"], found["differences"]) == (1, 2, [])
    assert found["files"] == len(before) - 1
    assert len(cli.server.requests) == asked
    assert results(Path("elsewhere")) == before
    assert not Path("nowhere").exists()


def test_one_byte_that_is_changed_in_any_file_is_found(cli: Cli, out: Path) -> None:
    for name in results(out):
        before = (out / name).read_bytes()
        flipped(out / name)

        found = verdict(cli)["differences"]

        assert [one["file"] for one in found] == [name]
        (out / name).write_bytes(before)
    verdict(cli, good=True)


def test_a_change_is_told_with_its_line_and_field(cli: Cli, out: Path) -> None:
    text = lines(out / "recording.jsonl")[1]["text"]
    changed(out / "recording.jsonl", text.encode(), b"Something else.")
    changed(out / "dialogues.jsonl", b'"status": "done"', b'"status": "gone"')

    by_file = {one["file"]: one for one in verdict(cli)["differences"]}
    words = cli("dialogue", "verify", "out").out

    told = by_file["recording.jsonl"]
    assert (told["line"], told["field"]) == (2, "text")
    assert set(by_file) == {"recording.jsonl", "dialogues.jsonl"}
    assert "recording.jsonl, line 2, text: " in words
    assert words.endswith("not verified\n")

    changed(out / "recording.jsonl", b"Something else.", text.encode())
    [told] = verdict(cli)["differences"]
    assert (told["file"], told["line"], told["field"]) == ("dialogues.jsonl", 1, "status")
    assert told["what"] == '"gone" there, "done" again'


def test_a_file_that_is_gone_is_told(cli: Cli, out: Path) -> None:
    (out / "openai.jsonl").unlink()

    [told] = verdict(cli)["differences"]

    assert (told["file"], told["what"]) == ("openai.jsonl", "it is not there")


@pytest.mark.parametrize(
    ("old", "new"), [(b"}\n", b"}\n\n"), (b"}\n", b"}"), (b'  "name"', b'  "name": 1,\n  "name"')]
)
def test_a_manifest_that_is_written_in_another_way_is_found(
    cli: Cli, out: Path, old: bytes, new: bytes
) -> None:
    data = (out / "manifest.json").read_bytes()
    head, _, tail = data.rpartition(old)
    (out / "manifest.json").write_bytes(head + new + tail)

    [told] = verdict(cli)["differences"]

    assert (told["file"], told["what"].split(":")[0]) == (
        "manifest.json",
        "it was changed or is damaged",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(cli: Cli, out: Path) -> None:
    for name in results(out):
        (out / name).chmod(0)

        [told] = verdict(cli)["differences"]

        assert told["file"] == name and told["what"].startswith("it cannot be read (")
        (out / name).chmod(0o600)


def test_a_report_that_is_made_again_hides_no_change(cli: Cli, out: Path) -> None:
    cli.good("dialogue", "report", "out")
    verdict(cli, good=True)
    with (out / "spec.yaml").open("ab") as file:
        file.write(b"# changed\n")
    (out / "turns.parquet").unlink()

    cli.good("dialogue", "report", "out")

    assert "spec.yaml" in {one["file"] for one in verdict(cli)["differences"]}


def test_a_report_may_be_made_of_a_batch_that_asks_for_none(cli: Cli, tmp_path: Path) -> None:
    cli.server.default = cli.server.named("hashed")
    spec = written(tmp_path / "one.yaml", specification(**ONE, outputs=["openai"]))
    cli.good("dialogue", "run", spec, "--out", "out")

    cli.good("dialogue", "report", "out")

    assert (OUT / "report.html").is_file()
    verdict(cli, good=True)


def test_a_finished_batch_is_read_without_its_store_and_makes_none(cli: Cli, out: Path) -> None:
    (out / "run.db").unlink()

    told = cli("dialogue", "report", "out")
    status = cli.good("dialogue", "status", "out", "--json").json

    assert told.code == 1 and "no run.db in 'out'" in told.err
    assert (status["status"], status["done"], status["left"]) == ("finished", 1, 0)
    assert not (out / "run.db").exists()
    verdict(cli, good=True)


def test_what_was_lost_of_a_finished_batch_is_written_again(
    cli: Cli, out: Path, tmp_path: Path
) -> None:
    before, asked = results(out), len(cli.server.requests)
    (out / "turns.parquet").unlink()
    flipped(out / "dialogues.jsonl")
    flipped(out / "manifest.json")

    cli.good("dialogue", "run", str(tmp_path / "one.yaml"), "--out", "out", "--resume")

    assert results(out) == before
    assert len(cli.server.requests) == asked
    verdict(cli, good=True)


def test_an_output_that_was_changed_together_with_its_sum_is_found(cli: Cli, out: Path) -> None:
    changed(out / "dialogues.jsonl", b'"turns": 2', b'"turns": 3')
    summed_again(out)

    found = verdict(cli)["differences"]

    [told] = [one for one in found if one["file"] == "dialogues.jsonl"]
    assert (told["line"], told["field"], told["what"]) == (1, "turns", "3 there, 2 again")


def test_a_recording_that_was_changed_together_with_its_sum_is_found(cli: Cli, out: Path) -> None:
    text = lines(out / "recording.jsonl")[0]["text"]
    changed(out / "recording.jsonl", text.encode(), b"I never said that.")
    summed_again(out)

    [told] = verdict(cli)["differences"]

    assert told["file"] == "recording.jsonl"
    assert told["what"].startswith("dialogue 0, call 1 (reply): the recording is of another prompt")


def test_a_count_that_was_changed_together_with_its_sum_is_found(cli: Cli, out: Path) -> None:
    changed(out / "manifest.json", b'"calls": 2', b'"calls": 9')
    summed_again(out)

    [told] = verdict(cli)["differences"]

    assert (told["file"], told["field"]) == ("manifest.json", "counts")


def test_other_versions_are_told_and_do_not_count(cli: Cli, out: Path) -> None:
    numpy = versions()["numpy"]
    changed(out / "manifest.json", f'"numpy": "{numpy}"'.encode(), b'"numpy": "0.1"')
    summed_again(out)

    found = verdict(cli, good=True)

    assert found["notes"] == [f"made with numpy 0.1, here is {numpy}"]
    assert list(other_versions({"made_with": versions()})) == []


def test_files_that_are_not_the_batchs_are_told_and_do_not_count(cli: Cli, out: Path) -> None:
    (out / "notes.txt").write_text("mine")

    found = verdict(cli, good=True)

    said = "notes.txt lies there too and is no file of the batch; it was not looked at"
    assert found["notes"] == [said]


def test_a_table_is_compared_by_rows_and_columns(cli: Cli, out: Path) -> None:
    from pyarrow import compute, parquet

    table = parquet.read_table(out / "turns.parquet")
    at = table.schema.get_field_index("text")
    other = compute.utf8_upper(table.column("text"))
    parquet.write_table(table.set_column(at, "text", other), out / "turns.parquet")

    [told] = verdict(cli)["differences"]

    assert (told["file"], told["line"], told["field"]) == ("turns.parquet", 1, "text")


def test_lines_and_values_are_compared() -> None:
    def compare(one: bytes, other: bytes) -> Difference | None:
        pair = (iter(text.splitlines(keepends=True)) for text in (one, other))
        return first_in_lines("f", *pair, as_json=True)

    assert compare(b"1\n2\n", b"1\n2\n") is None
    assert str(compare(b"1\n", b"1\n2\n")) == "f, line 2: the file ends before it"
    assert str(compare(b"1\n2\n", b"1\n")) == "f, line 2: it is one too many"
    assert str(compare(b'{"a": 1}\n', b'{"a":1}\n')) == "f, line 1: it is written in another way"
    assert str(compare(b"{\n", b"{}\n")) == "f, line 1: it is no JSON"
    assert first_in({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "") == (
        "a.1.b",
        "2 there, 3 again",
    )
    assert first_in([1], [1, 2], "a") == ("a.1", "null there, 2 again")


@pytest.mark.parametrize(
    ("there", "again", "told"),
    [
        ("short", "shirt", '"short" there, "shirt" again'),
        ("x" * 100, "y" * 100, f'"{"x" * 58}… there, "{"y" * 58}… again'),
        (
            "a" * 100 + "one" + "b" * 100,
            "a" * 100 + "two" + "b" * 100,
            f"…{'a' * 20}one{'b' * 35}… there, …{'a' * 20}two{'b' * 35}… again",
        ),
        ("a" * 100, "a" * 90, f'…{"a" * 30}" there, …{"a" * 20}" again'),
    ],
)
def test_of_long_values_the_piece_is_told_in_which_they_part(
    there: str, again: str, told: str
) -> None:
    assert words(there, again) == told


def test_a_batch_is_told_from_one_with_another_text_in_its_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = prompts_sha256()
    monkeypatch.setattr(wording, "MOODS", {})

    assert prompts_sha256() != before
    monkeypatch.undo()
    assert prompts_sha256() == before
