"""A folder that its reader cannot write to: how far its batch is, and that none can begin there."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from persona_mcp.server.batch.folder import LOCK
from persona_mcp.server.batch.rows import NAME, connected
from tests.batches import specification, written
from tests.command_line import Cli
from tests.processes import PERSONA, environment

SMALL: dict[str, Any] = {"repeats": 1, "waves": [{"dialogues": [{"participants": ["ada", "bo"]}]}]}
AS_A_READER = ("setpriv", "--bounding-set=-dac_override")
"""In front of a command of root's, who may write everywhere: it may not."""

pytestmark = pytest.mark.skipif(
    os.name == "nt" or (os.geteuid() == 0 and shutil.which("setpriv") is None),
    reason="nothing keeps this user from writing to a folder",
)


@pytest.fixture
def out(cli: Cli, tmp_path: Path) -> Iterator[Path]:
    """The folder of a finished batch."""
    cli.server.default = cli.server.named("hashed")
    cli.good("dialogue", "run", written(tmp_path / "batch.yaml", specification(**SMALL)),
             "--out", "out")  # fmt: skip
    folder = tmp_path / "out"
    yield folder
    folder.chmod(0o755)


def closed(folder: Path) -> Path:
    """Let nobody write to a folder, nor to what is in it."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    return folder


def as_a_reader(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command on batches as somebody who cannot write there."""
    reader = AS_A_READER if os.geteuid() == 0 else ()
    return subprocess.run(
        [*reader, PERSONA, "dialogue", *arguments],
        env=environment(**more),
        capture_output=True,
        encoding="utf-8",
    )


def status(folder: Path) -> Any:
    """Ask how far a batch is as somebody who cannot write there."""
    done = as_a_reader("status", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_finished_batch_is_told_of_and_nothing_is_made(cli: Cli, out: Path) -> None:
    before = sorted(path.name for path in out.iterdir())

    found = status(closed(out))

    assert found == cli.good("dialogue", "status", "out", "--json").json
    assert (found["status"], found["done"], found["turns"]) == ("finished", 1, 4)
    assert sorted(path.name for path in out.iterdir()) == before


def test_a_batch_that_another_process_runs_is_told_of_with_its_newest_calls(out: Path) -> None:
    (out / "manifest.json").unlink()
    with FileLock(out / LOCK), closing(connected(out / NAME)) as running:
        running.execute("INSERT INTO calls VALUES (1, 0, '{}')")
        running.commit()

        found = status(closed(out))

    assert (found["status"], found["done"], found["calls_under_way"]) == ("running", 1, 1)


def test_a_batch_whose_process_was_killed_is_told_of_with_its_newest_calls(
    out: Path, tmp_path: Path
) -> None:
    (out / "manifest.json").unlink()
    with closing(connected(out / NAME)) as running:
        running.execute("INSERT INTO calls VALUES (1, 0, '{}')")
        running.commit()
        killed = shutil.copytree(out, tmp_path / "killed")

    found = status(closed(killed))
    killed.chmod(0o755)

    assert (found["status"], found["done"], found["calls_under_way"]) == ("stopped", 1, 1)


def test_a_dry_run_says_that_its_folder_could_not_be_written(out: Path, tmp_path: Path) -> None:
    closed(out)
    spec = str(tmp_path / "batch.yaml")

    for folder, name in ((out, "out"), (out / "below", "below")):
        done = as_a_reader("run", spec, "--out", str(folder), "--dry-run")

        assert (done.returncode, done.stdout) == (1, "")
        assert f"'{name}' cannot be used (Permission denied)" in done.stderr


def test_a_batch_is_forked_to_where_one_may_write_and_elsewhere_before_anything_is_held(
    out: Path, tmp_path: Path
) -> None:
    closed(out)
    which = ("fork", str(out), "--dialogue", "0", "--turn", "4")

    refused = [as_a_reader(*which), as_a_reader(*which, "--out", str(out / "below"))]
    ours = {name: value for name, value in os.environ.items() if name.startswith("PERSONA_")}
    forked = as_a_reader(*which[:-1], "0", "--out", str(tmp_path / "fork"), **ours)

    for done, name in zip(refused, ("out", "below"), strict=True):
        assert (done.returncode, done.stdout) == (1, "")
        assert f"'{name}' cannot be used (Permission denied)" in done.stderr
        assert "--resume" not in done.stderr and "give another --out" in done.stderr
    assert forked.returncode == 0, forked.stderr
