"""Commands whose standard input, output or error is closed, or cannot be written."""

import subprocess
from pathlib import Path

import pytest

from tests.batches import specification, written
from tests.cards import V2, as_png
from tests.processes import PERSONA, environment, model_server, variables

FULL = "error: standard output cannot be written (No space left on device)\n"


def shell(data_dir: Path, redirected: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours as a shell redirects it."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$0" {redirected}', PERSONA],
        env=environment(
            **{"PERSONA_DATA_DIR": str(data_dir), "PERSONA_LLM__MODEL": "openai:test"} | more
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize("command", ["list", "list --json", "config"])
def test_a_full_disk_is_one_line_of_error(tmp_path: Path, command: str) -> None:
    done = shell(tmp_path, f"{command} >/dev/full")

    assert (done.returncode, done.stderr) == (1, FULL)


@pytest.mark.parametrize("command", ["--help", "--version", "world delete --help"])
def test_help_on_a_full_disk_is_one_line_of_error(tmp_path: Path, command: str) -> None:
    done = shell(tmp_path, f"{command} >/dev/full")

    assert (done.returncode, done.stderr) == (1, FULL)


def test_a_wrong_option_without_a_place_to_tell_it_is_a_code_only(tmp_path: Path) -> None:
    assert shell(tmp_path, "list --nonsense 2>/dev/full").returncode == 1


def test_an_error_that_cannot_be_written_as_json_is_told_beside_it(tmp_path: Path) -> None:
    done = shell(tmp_path, "show Nobody --json >/dev/full")

    assert done.returncode == 1
    assert done.stderr.startswith("error: persona 'Nobody' not found")
    assert done.stderr.endswith(FULL)


@pytest.mark.parametrize("redirected", ["list >&-", "list 2>&-", "list >&- 2>&-", "chat Aria >&-"])
def test_a_command_without_an_output_does_what_it_does(tmp_path: Path, redirected: str) -> None:
    done = shell(tmp_path, redirected)

    assert (done.returncode, done.stderr) == (0, "")
    assert ("Aria" in done.stdout) is (redirected == "list 2>&-")


@pytest.mark.parametrize("command", ["export 'Mira Holm'", "graph conversation --svg"])
def test_a_file_that_there_is_no_room_for_leaves_the_one_that_was_there(
    tmp_path: Path, command: str
) -> None:
    card, there = tmp_path / "large.png", tmp_path / "there.png"
    card.write_bytes(as_png(("chara", V2)) + bytes(200_000))
    there.write_text("what was there")
    assert shell(tmp_path / "data", f"import {card}").returncode == 0
    blocks = 150 if command.startswith("export") else 2  # the database needs some, too
    little = f"ulimit -f {blocks}; PYTHONDONTWRITEBYTECODE=1"  # those files would be cut off, too

    done = shell(tmp_path / "data", f'--version; {little} "$0" {command} {there}')

    assert done.returncode == 1
    assert "allowed is a file that can be written, given was" in done.stderr
    assert there.read_bytes() == b"what was there"
    assert sorted(tmp_path.glob("*.p*")) == [card, there]


def test_a_saved_state_without_an_end_is_refused(tmp_path: Path) -> None:
    done = shell(tmp_path, '--version; ulimit -v 6000000; "$0" state load /dev/zero --into copy')

    assert done.returncode == 1
    allowed = "FILE: allowed is a file of at most 268435456 bytes"
    assert done.stderr == f"error: {allowed}, given was /dev/zero\n"


def test_an_error_without_a_place_to_tell_it_is_a_code_only(tmp_path: Path) -> None:
    assert shell(tmp_path, "show Nobody >/dev/full 2>/dev/full").returncode == 1
    assert shell(tmp_path, "show Nobody 2>&-").returncode == 1


@pytest.mark.timeout(120)  # it starts workers
@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("engine", ["local", "processes"])
def test_a_batch_is_held_without_an_input_and_an_output(
    tmp_path: Path, closed: str, engine: str
) -> None:
    spec, out = written(tmp_path / "batch.yaml", specification(repeats=1)), tmp_path / "out"

    with model_server("hashed") as server:
        done = shell(
            tmp_path,
            f"dialogue run '{spec}' --out '{out}' --engine {engine} --workers 2 {closed}",
            **variables(tmp_path, server.openai_url),
        )

    assert done.returncode == 0, done.stderr
    assert (out / "manifest.json").exists()
