"""A dry run of a batch: what the real one would refuse it refuses, and it makes nothing."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from persona_mcp.server.batch.folder import LOCK
from persona_mcp.server.cli import run as cli_run
from tests.batches import specification, written
from tests.command_line import Cli

SMALL: dict[str, Any] = {"repeats": 1, "waves": [{"dialogues": [{"participants": ["ada", "bo"]}]}]}


@pytest.fixture
def spec(cli: Cli, tmp_path: Path) -> str:
    """A batch of one dialogue."""
    cli.server.default = cli.server.named("hashed")
    return written(tmp_path / "batch.yaml", specification(**SMALL))


def content(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(cli: Cli, *arguments: str) -> str:
    """Run a batch dry, then for good; return why both are refused, before anything is changed."""
    before, asked = content(Path()), len(cli.server.requests)

    dry = cli("dialogue", "run", *arguments, "--dry-run")
    real = cli("dialogue", "run", *arguments)

    assert (dry.code, dry.out, dry.err) == (cli_run.FAILED, "", real.err)
    assert content(Path()) == before
    assert len(cli.server.requests) == asked
    return real.err


def test_a_dry_run_refuses_a_folder_with_other_files(cli: Cli, spec: str) -> None:
    Path("mine").mkdir()
    Path("mine/novel.txt").write_text("Chapter one")

    assert "holds other files (novel.txt)" in refused(cli, spec, "--out", "mine")
    assert "holds other files (novel.txt)" in refused(cli, spec, "--out", "mine", "--force")


def test_a_dry_run_refuses_a_place_that_is_no_folder(cli: Cli, spec: str) -> None:
    Path("file").write_text("mine")

    assert "'file' cannot be used (Not a directory)" in refused(cli, spec, "--out", "file")
    assert "'below' cannot be used (Not a directory)" in refused(cli, spec, "--out", "file/below")


def test_a_dry_run_refuses_the_folder_of_another_batch(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "out")
    other = written(Path("other.yaml"), specification(name="other", **SMALL))

    assert "holds another batch" in refused(cli, other, "--out", "out", "--resume")
    before = content(Path("out"))
    cli.good("dialogue", "run", other, "--out", "out", "--force", "--dry-run")
    assert content(Path("out")) == before


def test_a_dry_run_of_a_batch_that_was_begun_wants_to_know_how_to_go_on(
    cli: Cli, spec: str
) -> None:
    cli.good("dialogue", "run", spec, "--out", "out")
    Path("out/manifest.json").unlink()

    assert "add --resume to go on with it" in refused(cli, spec, "--out", "out")
    for how in ("--resume", "--retry-failed", "--force"):
        cli.good("dialogue", "run", spec, "--out", "out", "--dry-run", how)


def test_a_dry_run_refuses_a_folder_in_which_another_process_works(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "out")

    with FileLock(Path("out") / LOCK):
        assert "another process works on that batch" in refused(cli, spec, "--out", "out")


def test_a_dry_run_refuses_a_finished_batch_without_its_store(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "out")
    Path("out/run.db").unlink()

    assert "no run.db in 'out'" in refused(cli, spec, "--out", "out", "--resume")


def test_a_dry_run_refuses_an_engine_that_there_is_not(cli: Cli, spec: str) -> None:
    said = refused(cli, spec, "--out", "out", "--engine", "dask")

    assert "--engine: allowed is local, processes, ray" in said


def test_a_dry_run_finds_nothing_wrong_with_an_empty_folder_or_none(cli: Cli, spec: str) -> None:
    Path("empty").mkdir()

    cli.good("dialogue", "run", spec, "--out", "empty", "--dry-run")
    cli.good("dialogue", "run", spec, "--out", "new/deep", "--dry-run")

    assert list(Path("empty").iterdir()) == []
    assert not Path("new").exists()
    shutil.rmtree("empty")
