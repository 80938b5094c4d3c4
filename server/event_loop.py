"""How commands are run: turns of threads; of what does much at once, also loop and collection."""

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TURN_S = 0.0002
"""How long a thread that runs Python may go on while the event loop waits for its turn. Python's
own 5 ms, after each time it slept, are a stall of all conversations while one persona's memories
are read. Nothing else pays: only while several threads want to run do they change more often."""


@contextmanager
def short_turns() -> Iterator[None]:
    """Let the event loop wait at most `TURN_S` for threads that run Python, in all of the process.

    A single call into C that keeps the interpreter to itself may still take longer.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def busy_runner() -> Iterator[asyncio.Runner]:
    """Run what does many things at once for long: on the faster loop, with less garbage collection.

    The loop is the one that uvicorn brings; Windows has none. What is loaded by now stays as long
    as the process, so the collector need not look through it again and again: that took a quarter
    of a batch's processor time. A command that does one thing would only wait longer for both.
    """
    gc.collect()
    gc.freeze()
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        loop_factory = None
    else:
        loop_factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            yield runner
    finally:
        gc.unfreeze()
