"""A seal on a folder of files that others read without checking: what was changed shows.

It is written when the folder is closed and taken off when it is opened. While it is open, and after
a process that was killed, there is none, and nothing is known.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sealed.json"
PIECE_BYTES = 1 << 20
Mark = list[int]
"""Of a file: its size in bytes, when it was written (ns since the epoch), and its CRC-32."""
Marks = Mapping[str, Mark]


def seal(folder: Path, known: Marks) -> None:
    """Write down what the files of a folder are.

    Args:
        folder: Nobody writes to it.
        known: From the last time; a file that has the same size and time is not read again.

    Raises:
        OSError: A file cannot be read, or the seal not be written.
    """
    marks = {name: mark_of(path, known.get(name)) for name, path in files_in(folder).items()}
    new = folder / f"{SEAL}.new"
    new.write_text(json.dumps(marks), encoding="utf-8")
    os.replace(new, folder / SEAL)


def take_off(folder: Path) -> Marks:
    """Remove the seal before the folder changes; return what it said, nothing if there is none."""
    marks = read_seal(folder) or {}
    (folder / SEAL).unlink(missing_ok=True)
    return marks


def read_seal(folder: Path) -> Marks | None:
    """Return what a folder's seal says; None if there is none, nothing if it cannot be read."""
    try:
        found: Any = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    is_one = isinstance(found, dict) and all(isinstance(mark, list) for mark in found.values())
    return found if is_one else {}


def broken(folder: Path, marks: Marks) -> str | None:
    """Say which file is not as it was sealed; None if all are. New ones are not looked at."""
    if not marks:
        return "the seal cannot be read"
    there = files_in(folder)
    for name, mark in sorted(marks.items()):
        try:
            if name not in there:
                return "a file is missing"
            if mark_of(there[name], mark) != mark and mark_of(there[name])[::2] != mark[::2]:
                return "a file was changed"
        except OSError:
            return "a file cannot be read"
    return None


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their names in it, but for the seal."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): p for p in found if p.parent != folder or not ours(p)}


def ours(path: Path) -> bool:
    """Tell whether a file is the seal, or was to be one."""
    return path.name.startswith(SEAL)


def mark_of(path: Path, known: Mark | None = None) -> Mark:
    """Read a file, unless it has the size and the time of a mark that is known.

    Raises:
        OSError: It cannot be read.
    """
    stat = path.stat()
    if known is not None and known[:2] == [stat.st_size, stat.st_mtime_ns]:
        return known
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return [stat.st_size, stat.st_mtime_ns, checksum]
