"""Ctrl-C while a huge specification is read: the command ends without looking through all of it."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from persona_mcp.server import cli_run
from tests.command_line import Cli
from tests.processes import LOOK_S, eventually

TALKS = 20_000
READ, PLANNED = "document_of", "plan_batch"
"""Functions that read a file's YAML, and after that plan what it asks for."""


@pytest.fixture
def huge(tmp_path: Path) -> str:
    """A specification that takes seconds to be read, and some more to be planned."""
    talk = "{participants: [ada, bo], scene: A street}"
    people = "personas:\n  ada: {persona: {name: Ada}}\n  bo: {persona: {name: Bo}}\n"
    waves = "waves:\n" + f"  - dialogues: [{', '.join([talk] * (TALKS // 4))}]\n" * 4
    file = tmp_path / "huge.yaml"
    file.write_text(people + waves)
    return str(file)


@pytest.fixture
def unwatched() -> Iterator[None]:
    """Nobody watches the collector: Python drops what is raised in who does, a Ctrl-C too.

    Hypothesis watches it in every process that runs tests; a command's process has no such.
    """
    watching = gc.callbacks.copy()
    gc.callbacks.clear()
    yield
    gc.callbacks.extend(watching)


def under_way(function: str) -> bool:
    """Tell whether a thread of this process is in a function."""
    for frame in sys._current_frames().values():
        inner: FrameType | None = frame
        while inner is not None:
            if inner.f_code.co_name == function:
                return True
            inner = inner.f_back
    return False


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "FILE", "--no-probe"),
        ("run", "FILE", "--out", "out", "--dry-run"),
        ("run", "FILE", "--out", "out"),
    ],
)
def test_ctrl_c_ends_the_look_at_a_huge_specification(
    cli: Cli, huge: str, unwatched: None, arguments: tuple[str, ...]
) -> None:
    over, went_on = threading.Event(), []

    def interrupt() -> None:
        eventually(lambda: under_way(READ), "the file to be read")
        os.kill(os.getpid(), signal.SIGINT)
        while not over.wait(LOOK_S):
            went_on.append(under_way(PLANNED))

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    done = cli("dialogue", *(huge if given == "FILE" else given for given in arguments))
    over.set()
    interrupting.join()

    assert (done.code, done.out, done.err) == (cli_run.INTERRUPTED, "", "stopped\n")
    assert not any(went_on)
    assert not Path("out").exists()
