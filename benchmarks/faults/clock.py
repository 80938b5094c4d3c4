"""A fault of the clock: it is set back, for the server alone, by libfaketime."""

from pathlib import Path
from typing import Any

from benchmarks.faults.running import Broken, Fault, now

LIBRARY = "libfaketimeMT.so.1"
PLACES = ("/usr/lib", "/usr/local/lib", "/usr/lib64")
BACK = "-1h"
MEANWHILE = 12
"""Exchanges that must be acknowledged with the clock set back."""
FILE = "clock"


def library() -> str | None:
    """Find libfaketime."""
    for place in PLACES:
        for file in Path(place).glob(f"**/faketime/{LIBRARY}"):
            return str(file)
    return None


def missing() -> str | None:
    """Say why no clock can be set here, or nothing."""
    return None if library() else f"libfaketime is not installed ({LIBRARY})"


def set_clock(file: Path, offset: str) -> None:
    """Say what the time is, in one step: it is read at any moment."""
    new = file.with_suffix(".new")
    new.write_text(offset + "\n", "ascii")
    new.replace(file)


class Clock:
    """The folder's clock, which goes right at first; a context manager that does nothing else."""

    def __init__(self, folder: Path) -> None:
        """Set it right."""
        set_clock(folder / FILE, "+0")

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: Any) -> None:
        """Do nothing."""


async def is_set_back(broken: Broken) -> float:
    """Set it back by an hour under load, and right again."""
    file = broken.site.folder / FILE
    set_clock(file, BACK)
    try:
        await broken.load.more(MEANWHILE)
    finally:
        set_clock(file, "+0")
    return now()


def given() -> dict[str, str]:
    """Name what puts the library before the server's clock; the monotonic one stays as it is."""
    return {
        "LD_PRELOAD": library() or "",
        "FAKETIME_TIMESTAMP_FILE": "{folder}/" + FILE,
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


FAULTS = [
    Fault(
        "clock-set-back",
        "The server's clock was set back by an hour under load (libfaketime), and right again.",
        is_set_back,
        given=given(),
        missing=missing,
        place=Clock,
        felt=False,
    )
]
