"""Files that the user names: read up to a limit; written whole or not at all."""

import errno
import os
from pathlib import Path

from persona_mcp.state.errors import InvalidParams, NotFound


def read(path: Path, most: int, allowed: str = "a file that can be read") -> bytes:
    """Read a file, up to one byte more than it may have.

    Args:
        path: The file.
        most: Bytes that it may have; a pipe or a device tells nothing of its size before.
        allowed: What it may be, for the error.

    Raises:
        NotFound: It is not there.
        InvalidParams: It cannot be read.
    """
    try:
        with path.open("rb") as opened:
            return opened.read(most + 1)
    except FileNotFoundError:
        raise NotFound.of("file", str(path)) from None
    except OSError as error:
        given = f"{path} ({error.strerror})"
        raise InvalidParams.one("FILE", allowed, given) from error


def save(path: Path, content: str | bytes, option: str) -> None:
    """Write a file whole or not at all; what had this name is replaced.

    Args:
        path: The file.
        content: What is written, text in UTF-8.
        option: Where the user named the file, for the error.

    Raises:
        InvalidParams: It cannot be written.
    """
    part = part_of(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.exists() and not path.is_file():  # such as /dev/null, which is not to be replaced
            path.write_bytes(data)
            return
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        given = f"{path} ({error.strerror})"
        raise InvalidParams.one(option, "a file that can be written", given) from error


def check_file(path: Path, option: str) -> None:
    """Make sure that a file can be written, before what goes into it is made; it stays as it is.

    Raises:
        InvalidParams: It cannot, as far as can be told now.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.exists() or path.is_file():  # of a pipe, an opening would be its reader's end
            part = part_of(path)
            part.touch()
            part.unlink()
    except OSError as error:
        given = f"{path} ({error.strerror})"
        raise InvalidParams.one(option, "a file that can be written", given) from error


def part_of(path: Path) -> Path:
    """Name the file beside another in which its new content is written, by this process alone."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")
