"""`persona dialogue run --engine ray` and `processes`: workers, and the bytes of any other run."""

import importlib.util
import os
import signal
import threading
from pathlib import Path

import pytest

from persona_mcp.server.cli.run import INTERRUPTED
from tests.batches import results, specification, written
from tests.command_line import Cli
from tests.model_server import Behaviour
from tests.processes import children, end, eventually, start

pytestmark = pytest.mark.timeout(600)  # starting workers is all work, on a machine that tests share

TITLES = {"ray": "ray::RayWorker", "processes": "persona_mcp.server.batch.worker_process"}
"""What is in the command line of a worker, by engine."""
NO_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="no Ray on this machine"
)

WAVES = {
    "repeats": 2,
    "waves": [
        {"dialogues": [{"participants": ["ada", "bo"]}, {"participants": ["bo", "cleo"]}]},
        {"gap_hours": 5.0, "dialogues": [{"participants": ["ada", "cleo"]}]},
    ],
}
TURNS = 24
ONE_TALK = {"dialogues": [{"participants": ["ada", "bo"]}]}


@pytest.fixture
def spec(cli: Cli, tmp_path: Path) -> str:
    """A small batch; the model server's replies depend on what it is asked."""
    cli.server.default = cli.server.named("hashed")
    return written(tmp_path / "batch.yaml", specification(**WAVES))


@pytest.fixture(
    params=["processes", pytest.param("ray", marks=[NO_RAY, pytest.mark.xdist_group("ray")])]
)
def engine(request: pytest.FixtureRequest, compiled: None) -> str:
    """One that has workers."""
    return str(request.param)


def test_workers_come_to_the_same_outputs_though_one_is_killed(
    cli: Cli, spec: str, engine: str
) -> None:
    cli.good("dialogue", "run", spec, "--out", "one", "--workers", "1")
    before, killed = len(cli.server.requests), list[int]()
    cli.server.default = Behaviour(hashed=True, delay_s=0.05)

    def kill() -> None:
        eventually(lambda: len(cli.server.requests) >= before + 3, "the third call")
        killed.append(children(TITLES[engine])[0])
        os.kill(killed[0], signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    done = cli.good(
        *("dialogue", "run", spec, "--out", "two", "--engine", engine, "--workers", "2")
    )
    killing.join()

    assert killed
    assert f"6/6 dialogues, {TURNS} turns" in done.err
    assert results(Path("two")) == results(Path("one"))
    assert len(cli.server.requests) - before < TURNS + 6  # at most what was under way, again
    assert children(TITLES[engine]) == []


def test_ctrl_c_stops_workers_where_turns_end_and_going_on_comes_to_the_same_bytes(
    cli: Cli, spec: str, compiled: None
) -> None:
    cli.good("dialogue", "run", spec, "--out", "whole")
    before = len(cli.server.requests)
    cli.server.default = Behaviour(hashed=True, delay_s=0.05)
    given = {name: value for name, value in os.environ.items() if name.startswith("PERSONA_")}

    process = start(*("dialogue", "run", spec, "--out", "out", "--engine", "processes"), **given)
    try:
        eventually(lambda: len(cli.server.requests) >= before + 3, "the third call")
        process.send_signal(signal.SIGINT)
    finally:
        out, err = end(process)
    asked = len(cli.server.requests) - before
    cli.good("dialogue", "run", spec, "--out", "out", "--resume")

    assert process.returncode == INTERRUPTED, (out, err)
    assert "go on with: persona dialogue run" in out
    assert "Traceback" not in err
    assert asked < TURNS
    assert results(Path("out")) == results(Path("whole"))
    assert len(cli.server.requests) - before == TURNS  # nothing was asked twice


def test_workers_end_when_who_started_them_is_killed(cli: Cli, spec: str, compiled: None) -> None:
    cli.server.default = cli.server.named("silence")
    given = {name: value for name, value in os.environ.items() if name.startswith("PERSONA_")}
    process = start(*("dialogue", "run", spec, "--out", "out", "--engine", "processes"), **given)
    try:
        eventually(lambda: cli.server.requests, "the model to be asked")
        workers = children(TITLES["processes"])
        process.kill()
    finally:
        end(process)

    assert workers
    eventually(lambda: not any(map(is_running, workers)), "the end of the workers")


def test_no_more_workers_are_started_than_there_are_dialogues(
    cli: Cli, tmp_path: Path, compiled: None
) -> None:
    alone = written(tmp_path / "alone.yaml", specification(repeats=1, waves=[ONE_TALK]))
    cli.server.default = cli.server.named("silence")
    given = {name: value for name, value in os.environ.items() if name.startswith("PERSONA_")}
    engine = ("--engine", "processes", "--workers", "3")

    process = start(*("dialogue", "run", alone, "--out", "out", *engine), **given)
    try:
        eventually(lambda: cli.server.requests, "the model to be asked")
        workers = children(TITLES["processes"])
    finally:
        process.kill()
        end(process)

    assert len(workers) == 1


def is_running(pid: int) -> bool:
    """Tell whether a process is there that has not ended."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return False
