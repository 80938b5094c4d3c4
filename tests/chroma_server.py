"""Chroma's own server, as a process."""

import socket
import subprocess
import sysconfig
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from tests.processes import eventually

CHROMA = str(Path(sysconfig.get_path("scripts")) / "chroma")
HOST = "127.0.0.1"


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def chroma_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server until it is left; it listens when this is entered."""
    command = [CHROMA, "run", "--path", str(folder), "--host", HOST, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        try:
            eventually(lambda: answers(port), "the Chroma server")
            yield process
        finally:
            process.kill()


def answers(port: int) -> bool:
    """Tell whether the server is there."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/api/v2/heartbeat", timeout=5) as found:
            return bool(found.status == 200)
    except (URLError, OSError):
        return False
