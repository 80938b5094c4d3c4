"""Files of results: written under another name and renamed when whole, the same bytes each time."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

DECIMALS = 6
"""Numbers in results are rounded to so many."""
UNFINISHED = ".part"


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is there under its name only once all of it is written.

    What stood there before is replaced in one step; after an error it is still there, and nothing
    of the new one is.

    Yields:
        The file, for bytes.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def json_line(value: Any) -> bytes:
    """Write a JSON value as one line of UTF-8: keys sorted, numbers rounded.

    Line and paragraph separators of Unicode, at which some readers end a line, are escaped.
    """
    text = json.dumps(shortened(value), ensure_ascii=False, sort_keys=True, allow_nan=False)
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
    return text.encode() + b"\n"


def shortened(value: Any) -> Any:
    """Round every number of a JSON value to DECIMALS places; what is no number becomes None."""
    if type(value) is float:
        return round(value, DECIMALS) + 0.0 if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(item) for item in value]
    return value
