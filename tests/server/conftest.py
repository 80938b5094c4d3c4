"""The command line with a model server beside it; the eras of MCP."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.command_line import Cli
from tests.mcp_client import ERAS, Era
from tests.processes import model_server, variables

DIMENSION = 64


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> Era:
    """Each era of the protocol."""
    found: Era = request.param
    return found


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """The command line on a data folder, a model server and a server of embeddings of its own."""
    monkeypatch.chdir(tmp_path)  # no `.env` of whoever runs the tests
    root, loud = logging.getLogger(), logging.getLogger("openai")
    handlers, level, loudness = root.handlers[:], root.level, loud.level
    with model_server() as server, model_server(dimension=DIMENSION) as embedder:
        quick = {
            "PERSONA_EMBEDDER__MODEL": "openai:words",
            "PERSONA_EMBEDDER__OPENAI_URL": embedder.openai_url,
        }
        for name, value in variables(tmp_path / "data", server.openai_url, **quick).items():
            monkeypatch.setenv(name, value)
        yield Cli(tmp_path / "data", server)
    root.handlers[:], root.level = handlers, level
    loud.setLevel(loudness)
    structlog.reset_defaults()
