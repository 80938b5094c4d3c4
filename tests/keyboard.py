"""Somebody at a terminal, who types what a command asks for, or presses Ctrl-C."""

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Sequence

from tests.processes import LIMIT_S, PERSONA, environment

Keys = bytes | signal.Signals
AGAIN_S = 15.0
"""Ctrl-C is pressed again when nothing was shown for so long: one that comes between the last look
for signals and the read that waits for a key is noticed only at the next, in any Python program."""


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
    pressed: Keys = b""

    def press(keys: Keys) -> None:
        if isinstance(keys, signal.Signals):
            process.send_signal(keys)
        else:
            os.write(master, keys)

    try:
        for awaited, keys in [*steps, (None, b"")]:
            deadline = time.monotonic() + LIMIT_S
            while awaited is None or awaited not in ahead:
                if not select.select([master], [], [], AGAIN_S)[0]:
                    assert time.monotonic() < deadline, shown
                    if isinstance(pressed, signal.Signals):
                        press(pressed)
                    continue
                shown += (piece := os.read(master, 65536))
                ahead = plain(ahead + piece.decode(errors="replace"))
            ahead = ahead.partition(awaited)[2]
            press(pressed := keys)
    except OSError:  # Linux says so when the other side is closed
        pass
    except BaseException:  # no later test is to hear of it
        process.kill()
        process.wait()
        raise
    finally:
        os.close(master)
    return process.wait(LIMIT_S), shown.decode(errors="replace")
