"""The product's own command line, in the test's process."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from persona_mcp.server.cli.app import app
from tests.model_server import ModelServer


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        [line] = self.out.splitlines()
        return json.loads(line)


@dataclass(frozen=True)
class Cli:
    """Runs commands one after another on one data folder."""

    data_dir: Path
    server: ModelServer

    def __call__(self, *arguments: str, said: str | bytes = "") -> Done:
        result = CliRunner().invoke(app, arguments, input=said)
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        return Done(result.exit_code, result.stdout, result.stderr)

    def good(self, *arguments: str, said: str | bytes = "") -> Done:
        done = self(*arguments, said=said)
        assert done.code == 0, done
        return done
