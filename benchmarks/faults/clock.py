"""A fault of the clock: it is set back, for the server alone, by a library before its calls."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.running import Broken, Fault, now

SOURCE = Path(__file__).with_name("clock.c")
BACK_S = 3600
MEANWHILE = 12
"""Exchanges that must be acknowledged with the clock set back."""
FILE, LIBRARY = "clock", "clock.so"


def missing() -> str | None:
    """Say why no clock can be set here, or nothing."""
    if not sys.platform.startswith("linux"):
        return "a library before a process's calls (LD_PRELOAD) is Linux's"
    return None if shutil.which("cc") else "there is no C compiler (cc)"


def set_clock(file: Path, seconds: int) -> None:
    """Say how far the clock is off, in one step: it is read at any moment."""
    new = file.with_suffix(".new")
    new.write_text(f"{seconds}\n", "ascii")
    new.replace(file)


@contextmanager
def clock(folder: Path) -> Iterator[None]:
    """Make the library, and a clock that goes right at first."""
    set_clock(folder / FILE, 0)
    made = ["cc", "-shared", "-fPIC", "-O2", "-o", str(folder / LIBRARY), str(SOURCE), "-ldl"]
    subprocess.run(made, check=True)
    yield


async def is_set_back(broken: Broken) -> float:
    """Set it back by an hour under load, and right again."""
    file = broken.site.folder / FILE
    set_clock(file, -BACK_S)
    try:
        await broken.load.more(MEANWHILE)
    finally:
        set_clock(file, 0)
    return now()


FAULTS = [
    Fault(
        "clock-set-back",
        "The server's clock was set back by an hour under load, and right again.",
        is_set_back,
        given={"LD_PRELOAD": "{folder}/" + LIBRARY, "FAULTS_CLOCK": "{folder}/" + FILE},
        missing=missing,
        place=clock,
        felt=False,
    )
]
