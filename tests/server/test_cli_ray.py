"""`persona dialogue run --engine ray`: a cluster of its own, and the bytes of any other run."""

import importlib.util
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batches import results, specification, written
from tests.command_line import Cli
from tests.model_server import Behaviour
from tests.processes import eventually

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(600),  # starting Ray is all work, on a machine that tests share
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray on this machine"),
]

WAVES = {
    "repeats": 2,
    "waves": [
        {"dialogues": [{"participants": ["ada", "bo"]}, {"participants": ["bo", "cleo"]}]},
        {"gap_hours": 5.0, "dialogues": [{"participants": ["ada", "cleo"]}]},
    ],
}
TURNS = 24


@pytest.fixture
def spec(cli: Cli, tmp_path: Path) -> str:
    """A small batch; the model server's replies depend on what it is asked."""
    cli.server.default = cli.server.named("hashed")
    return written(tmp_path / "batch.yaml", specification(**WAVES))


def workers() -> Iterator[int]:
    """Give the processes of Ray's workers that this process, or one it started, has."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    parents, titles = dict[int, int](), dict[int, str]()
    for line in listed.stdout.splitlines():
        own, parent, title, *_ = *line.split(maxsplit=2), ""  # one that ends has no title
        parents[int(own)], titles[int(own)] = int(parent), title
    for pid, title in titles.items():
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and title.startswith("ray::Worker"):
            yield pid


def test_ray_comes_to_the_same_outputs_though_a_worker_is_killed(cli: Cli, spec: str) -> None:
    cli.good("dialogue", "run", spec, "--out", "one", "--workers", "1")
    before, killed = len(cli.server.requests), list[int]()
    cli.server.default = Behaviour(hashed=True, delay_s=0.05)

    def kill() -> None:
        eventually(lambda: len(cli.server.requests) >= before + 3, "the third call")
        killed.append(eventually(lambda: next(workers(), None), "a worker"))
        os.kill(killed[0], signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    done = cli.good(*("dialogue", "run", spec, "--out", "ray", "--engine", "ray", "--workers", "2"))
    killing.join()

    assert killed
    assert f"6/6 dialogues, {TURNS} turns" in done.err
    assert results(Path("ray")) == results(Path("one"))
    assert len(cli.server.requests) - before < TURNS + 6  # at most what was under way, again
    assert list(workers()) == []
