"""Runs `persona` under a clock that a file sets: `python -m benchmarks.clocked FILE serve ...`.

The file has the seconds that are added to the machine's clock; it may change at any time. Only what
the program asks `time.time` is shifted: waits go by the monotonic clock, here as everywhere.
"""

import sys
import time
from pathlib import Path

REAL = time.time


def main() -> None:
    """Shift the clock, and become the program."""
    file = Path(sys.argv[1])
    time.time = lambda: REAL() + float(file.read_text("utf-8"))
    sys.argv = ["persona", *sys.argv[2:]]
    from persona_mcp.server.cli import main as persona  # noqa: PLC0415 - after the clock is set

    persona()


if __name__ == "__main__":
    main()
