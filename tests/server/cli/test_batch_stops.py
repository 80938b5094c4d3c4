"""Ctrl-C while a huge specification is read: the command ends without looking through all of it."""

import os
import signal
from pathlib import Path

import pytest

from persona_mcp.server.cli import run as cli_run
from tests.command_line import Cli
from tests.processes import end, start

TALKS = 20_000
READING, PLANNED = "reading a specification", "planned a batch"
"""What is logged before a file is read, and after what it asks for is planned: seconds later."""


@pytest.fixture
def huge(tmp_path: Path) -> str:
    """A specification that takes seconds to be read, and some more to be planned."""
    talk = "{participants: [ada, bo], scene: A street}"
    people = "personas:\n  ada: {persona: {name: Ada}}\n  bo: {persona: {name: Bo}}\n"
    waves = "waves:\n" + f"  - dialogues: [{', '.join([talk] * (TALKS // 4))}]\n" * 4
    file = tmp_path / "huge.yaml"
    file.write_text(people + waves)
    return str(file)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "FILE", "--no-probe"),
        ("run", "FILE", "--out", "out", "--dry-run"),
        ("run", "FILE", "--out", "out"),
    ],
)
def test_ctrl_c_ends_the_look_at_a_huge_specification(
    cli: Cli, huge: str, arguments: tuple[str, ...]
) -> None:
    given = {name: value for name, value in os.environ.items() if name.startswith("PERSONA_")}
    words = (huge if word == "FILE" else word for word in arguments)

    # In a process of its own: what watches the code of tests does not bear a Ctrl-C anywhere.
    process = start("dialogue", *words, **{**given, "PERSONA_LOG__LEVEL": "DEBUG"})
    told: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            told.append(line)
            if READING in line:
                process.send_signal(signal.SIGINT)
    finally:
        out, _ = end(process)

    assert (process.returncode, out, told[-1]) == (cli_run.INTERRUPTED, "", "stopped\n"), told
    assert any(READING in line for line in told)
    assert not any(PLANNED in line for line in told)
    assert not Path("out").exists()
