"""Questions of the command line: only a yes changes anything, however else one ends."""

import signal
import subprocess
from pathlib import Path

import pytest

from persona_mcp.server.cli import run as cli_run
from tests.command_line import Cli
from tests.keyboard import Keys, plain, typed
from tests.processes import PERSONA, environment, stored

ASKED = "[y/N] "
CTRL_D = b"\x04"
NAMES = "select name from personas where deleted_at is null order by name"


def names(data_dir: Path) -> list[str]:
    return [name for (name,) in stored(data_dir, NAMES)]


@pytest.fixture
def data_dir(cli: Cli) -> Path:
    cli.good("list")
    return cli.data_dir


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"n\r", cli_run.FAILED),
        (b"\r", cli_run.FAILED),
        (CTRL_D, cli_run.FAILED),
        (b"y" + 2 * CTRL_D, cli_run.FAILED),
        (b"\xff\r", cli_run.FAILED),
        (signal.SIGINT, cli_run.INTERRUPTED),
    ],
    ids=["no", "enter", "ctrl-d", "y and ctrl-d", "no text", "ctrl-c"],
)
def test_what_is_no_yes_changes_nothing_and_says_so(
    data_dir: Path, answer: Keys, code: int
) -> None:
    ended, shown = typed(("delete", "Aria"), [(ASKED, answer)], PERSONA_DATA_DIR=str(data_dir))

    assert ended == code, shown
    assert "nothing was changed" in plain(shown).splitlines()
    assert names(data_dir) == ["Aria", "Kira", "Noor"]


def test_a_yes_is_enough(data_dir: Path) -> None:
    ended, shown = typed(("delete", "Aria"), [(ASKED, b"Yes\r")], PERSONA_DATA_DIR=str(data_dir))

    assert ended == 0, shown
    assert names(data_dir) == ["Kira", "Noor"]


def test_ctrl_c_at_the_question_of_a_restore_leaves_the_data_folder(
    data_dir: Path, cli: Cli, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    cli.good("db", "backup", str(backup))
    cli.good("delete", "Aria", "--yes")

    ended, shown = typed(
        ("db", "restore", str(backup)),
        [(ASKED, signal.SIGINT)],
        PERSONA_DATA_DIR=str(data_dir),
    )

    assert ended == cli_run.INTERRUPTED, shown
    assert plain(shown).splitlines()[-2:] == ["nothing was changed", "stopped"]
    assert names(data_dir) == ["Kira", "Noor"]


def test_without_standard_input_nobody_is_asked(data_dir: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" delete Aria <&-', PERSONA],
        env=environment(PERSONA_DATA_DIR=str(data_dir)),
        capture_output=True,
        encoding="utf-8",
    )

    assert done.returncode == cli_run.FAILED
    assert done.stderr.startswith("error: --yes: needed where nobody can be asked")
    assert names(data_dir) == ["Aria", "Kira", "Noor"]
