"""How commands are run that do much at once: their event loop, and the collection of garbage."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def busy_runner() -> Iterator[asyncio.Runner]:
    """Run what does many things at once for long: on the faster loop, with less garbage collection.

    The loop is the one that uvicorn brings; Windows has none. What is loaded by now stays as long
    as the process, so the collector need not look through it again and again: that took a quarter
    of a batch's processor time. A command that does one thing would only wait longer for both.
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
