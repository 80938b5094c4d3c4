"""The command line with a model server beside it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.command_line import Cli
from tests.processes import model_server, variables


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """The command line on a data folder and a model server of the test's own."""
    monkeypatch.chdir(tmp_path)  # no `.env` of whoever runs the tests
    root, loud = logging.getLogger(), logging.getLogger("openai")
    handlers, level, loudness = root.handlers[:], root.level, loud.level
    with model_server() as server:
        for name, value in variables(tmp_path / "data", server.openai_url).items():
            monkeypatch.setenv(name, value)
        yield Cli(tmp_path / "data", server)
    root.handlers[:], root.level = handlers, level
    loud.setLevel(loudness)
    structlog.reset_defaults()
