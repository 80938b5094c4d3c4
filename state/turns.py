"""How long a thread that runs Python may keep the event loop waiting for its turn."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TURN_S = 0.0002
"""Python's own 5 ms, after each time it slept, are a stall of all conversations while the memories
of one persona are weighed. At all times it would make an exchange a fifth dearer: its threads would
then change places all the time."""


class _Turns:
    """How many want short turns now, and what there was before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanting = 0
        self.before = 0.0


_turns = _Turns()


@contextmanager
def short_turns() -> Iterator[None]:
    """Let every thread of the process run for at most `TURN_S` while another one waits.

    For long work in a thread. A single call into C that keeps the interpreter to itself may still
    take longer. Several may want it at once; the last one to leave puts back what was before.
    """
    with _turns.lock:
        if not _turns.wanting:
            _turns.before = sys.getswitchinterval()
            sys.setswitchinterval(TURN_S)
        _turns.wanting += 1
    try:
        yield
    finally:
        with _turns.lock:
            _turns.wanting -= 1
            if not _turns.wanting:
                sys.setswitchinterval(_turns.before)
