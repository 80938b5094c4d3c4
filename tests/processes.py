"""The product's commands as processes of their own, and a model server beside them."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.model_server import Behaviour, ModelServer

PERSONA = str(Path(sysconfig.get_path("scripts")) / "persona")
LIMIT_S = 120.0
LOOK_S = 0.02


@contextmanager
def model_server(default: Behaviour | str = "ok", dimension: int = 16) -> Iterator[ModelServer]:
    """Run the faulty model server in a thread, for commands that hold the test's own thread."""
    ready, ended = threading.Event(), asyncio.Event()
    server = ModelServer(default, dimension=dimension)
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with server:
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="model server")
    thread.start()
    try:
        assert ready.wait(LIMIT_S)
        yield server
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join(LIMIT_S)


def variables(data_dir: Path, openai_url: str, **more: str) -> dict[str, str]:
    """Name the settings of a process that talks to the model server."""
    return {
        "PERSONA_DATA_DIR": str(data_dir),
        "PERSONA_LLM__MODEL": "openai:test",
        "PERSONA_LLM__OPENAI_URL": openai_url,
        "PERSONA_LLM__RETRIES": "0",
        "PERSONA_LLM__IDLE_S": "90",  # a stopped reply is stopped by its reader, however slow
        "PERSONA_INDEX__KIND": "exact",
        **more,
    }


def environment(**more: str) -> dict[str, str]:
    """Return what a process inherits, and more; it keeps compiled files, or it starts slowly."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PERSONA_")}
    if kept.pop("PYTHONDONTWRITEBYTECODE", None):
        kept["PYTHONPYCACHEPREFIX"] = str(
            Path(tempfile.gettempdir()) / f"persona-tests-pycache-{os.getuid()}"
        )
    return {**kept, "PYTHONIOENCODING": "utf-8", **more}


def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start a command."""
    return subprocess.Popen(
        [PERSONA, *arguments],
        env=environment(**more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Read what a process writes to its end, and close its pipes."""
    try:
        return process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving(data_dir: Path, url: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the server on a free port, and give its process and address."""
    process = start("serve", "--port", "0", **variables(data_dir, url, **more))
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"serves on (http://\S+)", line):
                yield process, found[1]
                break
        else:
            raise AssertionError("the server said no address")
    finally:
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Stop a process with SIGTERM; give its code, and what it wrote to stderr."""
    process.send_signal(signal.SIGTERM)
    _, told = end(process)
    return process.returncode, told


def run(*arguments: str, said: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [PERSONA, *arguments],
        env=environment(**more),
        input=said,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
    )


def children(title: str) -> list[int]:
    """List processes below this one whose command line holds a text."""
    listed = subprocess.run(
        ["ps", "-wweo", "pid=,ppid=,args="],  # else a clone in a deep folder is cut off
        capture_output=True,
        text=True,
        check=True,
    )
    parents, titles = dict[int, int](), dict[int, str]()
    for line in listed.stdout.splitlines():
        own, parent, its, *_ = *line.split(maxsplit=2), ""  # one that ends has no title
        parents[int(own)], titles[int(own)] = int(parent), its
    return [pid for pid, its in titles.items() if title in its and is_below(pid, parents)]


def is_below(pid: int, parents: Mapping[int, int]) -> bool:
    """Tell whether this process, or one it started, started another."""
    while pid in parents and pid != os.getpid():
        pid = parents[pid]
    return pid == os.getpid()


def eventually(check: Callable[[], Any], what: str = "it") -> Any:
    """Look until something is so, and return what the look gave."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := check()):
        assert time.monotonic() < deadline, f"waited {LIMIT_S:g} s for {what}"
        time.sleep(LOOK_S)
    return found


def stored(data_dir: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read from the database as nobody of the product does: beside it."""
    with closing(sqlite3.connect(data_dir / "persona.db")) as connection:
        return connection.execute(query, values).fetchall()
