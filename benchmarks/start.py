"""How long it takes until the program answers: help, a command that reads, MCP over stdio, HTTP.

Each row is the median of several starts, beside those of an empty Python program and of the MCP
SDK's import in the same run.

    uv run python -m benchmarks.start
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

PERSONA = str(Path(sysconfig.get_path("scripts")) / "persona")
LIMIT_S = 60.0
LOOK_S = 0.01
FIRST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    },
}
BASELINE, SDK = "python -c pass", "import mcp.server"
"""An empty program, and what every MCP server in Python begins with."""
BARS_S = {"persona --help": 0.5, "persona list": 1.0, "persona mcp: first answer": 2.0}
"""What is asked of each, in seconds."""


def environment(folder: str) -> dict[str, str]:
    """Return the variables of a process on a data folder of its own, with compiled files kept."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PERSONA_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    kept["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "persona-start-pycache")
    return {**kept, "PERSONA_DATA_DIR": folder, "PERSONA_LLM__MODEL": "embedded:smollm2"}


def python(program: str) -> Callable[[str], None]:
    """Return what runs a Python program."""

    def run(folder: str) -> None:
        subprocess.run([sys.executable, "-c", program], env=environment(folder), check=True)

    return run


def persona(argument: str) -> Callable[[str], None]:
    """Return what runs a command to its end; its world is made by the start that is not counted."""

    def run(folder: str) -> None:
        command = [PERSONA, argument]
        subprocess.run(command, env=environment(folder), stdout=subprocess.DEVNULL, check=True)

    return run


def first_answer(folder: str) -> Iterator[None]:
    """Start the stdio server, and wait for the answer to the first message."""
    with started("mcp", folder) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(FIRST) + "\n")
        process.stdin.flush()
        if "result" not in json.loads(process.stdout.readline()):
            raise RuntimeError("the server did not answer the first message")
        yield
        process.stdin.close()
        process.wait(LIMIT_S)


def server_ready(folder: str) -> Iterator[None]:
    """Start the HTTP server, and wait until every part of it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with started("serve", folder, "--port", str(port)):
        deadline = time.monotonic() + LIMIT_S
        while not is_ready(f"http://127.0.0.1:{port}/health/ready"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server was not ready within {LIMIT_S:g} s")
            time.sleep(LOOK_S)
        yield


def is_ready(url: str) -> bool:
    """Ask a server whether it is ready."""
    try:
        return httpx.get(url, timeout=LIMIT_S, trust_env=False).is_success
    except httpx.TransportError:
        return False


@contextmanager
def started(command: str, folder: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command and end it."""
    process = subprocess.Popen(
        [PERSONA, command, *more],
        env=environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()


ROWS: dict[str, Callable[[str], Iterator[None] | None]] = {
    BASELINE: python("pass"),
    SDK: python(SDK),
    "persona --help": persona("--help"),
    "persona list": persona("list"),
    "persona mcp: first answer": first_answer,
    "persona serve: ready": server_ready,
}


def timed(row: Callable[[str], Iterator[None] | None], folder: str) -> float:
    """Time a start up to its answer, in seconds; ending the process is not in it."""
    before = time.perf_counter()
    begun = row(folder)
    if begun is None:
        return time.perf_counter() - before
    next(begun)
    took = time.perf_counter() - before
    for _ in begun:
        pass
    return took


def measure(runs: int) -> dict[str, float]:
    """Return each row's median, in seconds; the first start of each is not counted."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, row in ROWS.items():
            sys.stderr.write(f"{name} ...\n")
            times = [timed(row, folder) for _ in range(runs + 1)]
            found[name] = statistics.median(times[1:])
    return found


def show(found: dict[str, float]) -> None:
    """Print the table."""
    table = Table("start", "seconds", f"x {BASELINE}", f"x {SDK}", "bar")
    for name, seconds in found.items():
        bar = BARS_S.get(name)
        state = "" if bar is None else f"{'held' if seconds < bar else 'MISSED'} (< {bar:g} s)"
        ratios = [f"{seconds / found[baseline]:.1f}" for baseline in (BASELINE, SDK)]
        table.add_row(name, f"{seconds:.2f}", *ratios, state)
    Console().print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="starts that count, of each")
    parser.add_argument("--json", action="store_true", help="print one JSON object, in seconds")
    given = parser.parse_args()
    found = measure(given.runs)
    if given.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        show(found)


if __name__ == "__main__":
    main()
