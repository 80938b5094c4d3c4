"""What a command imports before it answers: whoever runs it waits for all of that, each time."""

import signal
import subprocess
import sys

import pytest

from persona_mcp.server.cli.run import INTERRUPTED
from tests.command_line import Cli

HEAVY = (
    "alembic",
    "chromadb",
    "fastapi",
    "httpx",
    "langchain_core",
    "langgraph",
    "langsmith",
    "mcp",
    "onnxruntime",
    "pyarrow",
    "tokenizers",
    "uvicorn",
    "xllamacpp",
)
TELL_IMPORTS = """
import sys
from persona_mcp.server.cli.app import main

heavy, sys.argv = sys.argv[1].split(","), ["persona", *sys.argv[2:]]
try:
    main()
finally:
    print("imported:", *(name for name in heavy if name in sys.modules), file=sys.stderr)
"""

PRESS_CTRL_C = """
import os, signal, sys
from persona_mcp.server.cli.app import main

awaited, times, sys.argv = sys.argv[1], int(sys.argv[2]), ["persona", *sys.argv[3:]]

class Presses:
    def find_spec(self, name, path, target=None):
        for _ in range(times if name == awaited else 0):
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Presses())
main()
"""


def imported_by(*arguments: str, heavy: tuple[str, ...] = HEAVY) -> list[str]:
    """Run a command in a process of its own, and name what it imported of what is heavy."""
    command = [sys.executable, "-c", TELL_IMPORTS, ",".join(heavy), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done
    return done.stderr.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    "command",
    [
        "list",
        "show Aria",
        "show Aria --now",
        "relationships",
        "relationships --of Aria",
        "conversations",
        "memory list -p Aria",
        "memory stats -p Aria",
        "memory upkeep status",
        "state list",
        "token list",
        "tools",
        "config",
    ],
)
def test_a_command_that_reads_imports_no_graph_no_model_and_no_door(cli: Cli, command: str) -> None:
    cli.good("list")  # makes the world

    assert imported_by(*command.split()) == []


@pytest.mark.parametrize("command", ["list", "show Aria", "conversations", "token list"])
def test_one_that_reads_no_memories_does_without_numpy(cli: Cli, command: str) -> None:
    cli.good("list")

    assert imported_by(*command.split(), heavy=("numpy",)) == []


def test_the_settings_are_shown_without_a_database(cli: Cli) -> None:
    assert imported_by("config", heavy=("sqlalchemy",)) == []


def test_a_database_is_made_by_alembic_which_is_not_imported_again(cli: Cli) -> None:
    first, second = (imported_by("list", heavy=("alembic",)) for _ in range(2))

    assert (first, second) == (["alembic"], [])


def test_who_opens_a_service_has_the_graphs_imported_before_the_first_message() -> None:
    command = "import sys, persona_mcp.server.service; print('langgraph.graph' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)

    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("awaited", "code", "told"),
    [
        ("persona_mcp.config.settings", -signal.SIGINT, ""),  # the shell makes 130 of it
        ("persona_mcp.server.operations.personas", INTERRUPTED, "stopped\n"),
    ],
    ids=["before the command has begun", "after"],
)
def test_ctrl_c_while_modules_are_imported_ends_the_command(
    cli: Cli, awaited: str, code: int, told: str
) -> None:
    command = [sys.executable, "-c", PRESS_CTRL_C, awaited, "1", "list"]

    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (code, "", told)


def test_a_second_ctrl_c_ends_a_server_that_does_not_serve_yet_and_nothing_breaks(cli: Cli) -> None:
    opening = "anyio._backends._asyncio"
    command = [sys.executable, "-c", PRESS_CTRL_C, opening, "2", "serve", "--port", "0"]

    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")
    assert "a second signal came" in done.stderr
    assert "Traceback" not in done.stderr and "serves on" not in done.stderr
