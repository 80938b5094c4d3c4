"""How much work something is, told by what is the same on every machine."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Work:
    """What has been done.

    Attributes:
        calls: Of Python functions.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.calls = 0

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        """Count a call."""
        if event == "call":
            self.calls += 1


@contextmanager
def work_counted() -> Iterator[Work]:
    """Count what this thread calls meanwhile."""
    work, before = Work(), sys.getprofile()
    sys.setprofile(work.note)
    try:
        yield work
    finally:
        sys.setprofile(before)
