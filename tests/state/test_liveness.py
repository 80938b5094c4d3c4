import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from persona_mcp.state.liveness import STALE_S, Liveness

HOLDER = """
import sys
from pathlib import Path
from persona_mcp.state.liveness import Liveness

held = Liveness(Path(sys.argv[1]))
print(held.owner, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Liveness]:
    opened = Liveness(tmp_path / "processes")
    yield opened
    opened.close()


def test_another_process_is_alive_until_it_is_killed(mine: Liveness, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "processes")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    owner = holder.stdout.readline().strip()

    alive = not mine.is_gone(owner)
    holder.kill()
    holder.communicate()

    assert alive
    assert mine.is_gone(owner)
    assert mine.is_gone(owner)  # looking does not bring it back


def test_a_process_is_gone_when_it_has_said_so(mine: Liveness, tmp_path: Path) -> None:
    other = Liveness(tmp_path / "processes")
    assert not mine.is_gone(other.owner)

    other.close()

    assert mine.is_gone(other.owner)
    assert not list((tmp_path / "processes").glob(f"{other.owner}*"))


def test_a_process_knows_itself_alive(mine: Liveness) -> None:
    assert not mine.is_gone(mine.owner)


def test_of_another_folder_or_machine_nothing_is_known(mine: Liveness, tmp_path: Path) -> None:
    other = Liveness(tmp_path / "elsewhere")
    other.close()

    assert not mine.is_gone(other.owner)
    assert not mine.is_gone("some-other-machine")


def test_a_folder_of_the_same_place_in_another_container_is_another(tmp_path: Path) -> None:
    folder = tmp_path / "processes"
    here = Liveness(folder)
    here.close()
    shutil.rmtree(folder)  # the same path, and the same host name, on another disk

    there = Liveness(folder)

    assert not there.is_gone(here.owner)
    there.close()


def test_files_of_dead_processes_are_removed_after_a_day(mine: Liveness, tmp_path: Path) -> None:
    folder = tmp_path / "processes"
    old, young = folder / "old.lock", folder / "young.lock"
    held = next(folder.glob("*.lock"))
    for file in (old, young):
        file.touch()
    a_day_ago = time.time() - STALE_S - 60
    for file in (old, held):
        os.utime(file, (a_day_ago, a_day_ago))

    Liveness(folder).close()

    assert sorted(folder.glob("*.lock")) == sorted([held, young])
