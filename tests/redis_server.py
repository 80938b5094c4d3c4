"""A Redis server of the tests' own: on a free port of this machine, without a file."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.processes import eventually

WANTED = "PERSONA_TEST_REDIS" in os.environ
"""Set in `.ci/run`: there a missing server is a failure. Read here: tests see no such variable."""


@contextmanager
def redis_server(port: int = 0) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server while the block lasts, and give its process and address; skips without one."""
    program = shutil.which("redis-server")
    if program is None:
        if WANTED:
            pytest.fail("redis-server is not installed")
        pytest.skip("redis-server is not installed")
    port = port or free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: answers(port), "Redis")
        yield process, f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """Find a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Tell whether a server is ready there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False
