"""Somebody at a terminal, who types what a command asks for, or presses Ctrl-C."""

import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Sequence

from tests.processes import LIMIT_S, PERSONA, environment

Keys = bytes | signal.Signals


def plain(shown: str) -> str:
    """Take the styles out of what a terminal shows."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def typed(
    arguments: Sequence[str], steps: Sequence[tuple[str, Keys]], **more: str
) -> tuple[int, str]:
    """Run a command on a terminal: type each text when what is awaited is shown after the last.

    Returns:
        What it exits with, and what the terminal shows.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [PERSONA, *arguments], env=environment(TERM="xterm-256color", **more),
        stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    shown, ahead = b"", ""
    try:
        for awaited, keys in [*steps, (None, b"")]:
            while awaited is None or awaited not in ahead:
                assert select.select([master], [], [], LIMIT_S)[0], shown
                shown += (piece := os.read(master, 65536))
                ahead = plain(ahead + piece.decode(errors="replace"))
            ahead = ahead.partition(awaited)[2]
            if isinstance(keys, signal.Signals):
                process.send_signal(keys)
            else:
                os.write(master, keys)
    except OSError:  # Linux says so when the other side is closed
        pass
    finally:
        os.close(master)
    return process.wait(LIMIT_S), shown.decode(errors="replace")
