"""How commands are run: heaps and collection; of what does much at once, also the event loop."""

import asyncio
import atexit
import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

M_ARENA_MAX, HEAPS = -8, 2
"""The name is glibc's, from malloc.h."""


@contextmanager
def busy_runner() -> Iterator[asyncio.Runner]:
    """Run what does many things at once for long: on the faster loop, with less garbage collection.

    The loop is the one that uvicorn brings; Windows has none. What is loaded by now stays as long
    as the process, so the collector need not look through it again and again: that took a quarter
    of a batch's processor time. A command that does one thing would only wait longer for both. How
    often it looks through new objects is left alone: less often saved nothing that
    `benchmarks.batch` shows, and left 1.27 times the memory after 1,000 dialogues (1.06).
    """
    settle()
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


def settle() -> None:
    """Keep what is loaded by now from the collector; `busy_runner` gives it back at its end."""
    gc.collect()
    gc.freeze()


@cache
def end_at_once() -> None:
    """Keep all that is there at the end of the process from the collector.

    Python else looks through everything that was ever imported before it ends, some times over:
    that took longer than many a command. Whatever has to be closed is closed by who opened it.
    """
    atexit.register(gc.freeze)


def keep_imports() -> None:
    """Have the collector on from now on, and away from what was imported while it was off."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def share_heaps() -> None:
    """Let all threads that are still to come share two heaps (glibc; elsewhere nothing is done).

    Each would get one of its own, and what one thread made and another let go lies scattered over
    all of them: a server then takes a seventh more memory
    (`benchmarks.soak --exchanges 1600 --index exact`).
    """
    try:
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)
    except (OSError, TypeError, AttributeError):  # another system, or another C library
        return
