"""CHARX files: a zip with `card.json` at its root and the card's assets beside it."""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from persona_mcp.state.cards.text import JSON_BYTES, bad_card

BEGINNING = b"PK\x03\x04"
CARD = "card.json"
ENTRIES = 512
UNPACKED = 128 * 2**20
DRIVE = re.compile(r"^[A-Za-z]:")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(NotImplementedError, ValueError, RuntimeError, OSError),
)
"""What Python raises on a damaged zip file."""
MADE = (1980, 1, 1, 0, 0, 0)
"""No time of day in a file, so that the same card gives the same bytes."""


def card_of(file: bytes) -> bytes:
    """Return the JSON of the card in a CHARX.

    Raises:
        BadSnapshot: It is no whole zip, holds no card, something in it is damaged, or one of its
            names or sizes is not allowed.
    """
    with opened(file) as archive:
        if CARD not in archive.namelist():
            raise bad_card(f"the CHARX has no {CARD} at its root")
        card = read(archive, CARD, JSON_BYTES)
        # All of it goes out again with an export, which is too late to learn that it cannot.
        if damaged := archive.testzip():
            raise bad_card(f"'{damaged[:60]}' in the CHARX is damaged")
        return card


def names_of(file: bytes) -> set[str]:
    """Return the names of what is in a CHARX."""
    with opened(file) as archive:
        return set(archive.namelist())


def with_card(file: bytes | None, card: str) -> bytes:
    """Put a card into a CHARX in place of the one that it has; None makes a new one."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(zipfile.ZipInfo(CARD, MADE), card.encode(), zipfile.ZIP_DEFLATED)
        if file is not None:
            with opened(file) as archive:
                for one in archive.infolist():
                    if one.filename != CARD:
                        target.writestr(one, read(archive, one.filename, UNPACKED))
    return made.getvalue()


@contextmanager
def opened(file: bytes) -> Iterator[zipfile.ZipFile]:
    """Open a CHARX whose names and sizes are allowed.

    Raises:
        BadSnapshot: They are not, or it is no zip.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            check(archive.infolist())
            yield archive
    except UNREADABLE as error:
        raise bad_card("the CHARX is no whole zip file") from error


def check(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse what a card never needs and an attack does.

    Raises:
        BadSnapshot: There is such a thing.
    """
    if len(entries) > ENTRIES:
        raise bad_card(f"the CHARX has {len(entries):,} entries, and {ENTRIES} are allowed")
    size = sum(one.file_size for one in entries)
    if size > UNPACKED:
        raise bad_card(f"the CHARX unpacks to {size:,} bytes, and {UNPACKED:,} are allowed")
    seen = set[str]()
    for one in entries:
        name = one.filename
        if name in seen:
            raise bad_card(f"'{name[:60]}' stands twice in the CHARX")
        seen.add(name)
        if not name.isascii() or "\\" in name or "\0" in name:
            raise bad_card(f"the name '{name[:60]}' in the CHARX is not plain ASCII with /")
        if name.startswith("/") or DRIVE.match(name) or ".." in name.split("/"):
            raise bad_card(f"the path '{name[:60]}' in the CHARX leads out of it")
        if one.flag_bits & ENCRYPTED:
            raise bad_card(f"'{name[:60]}' in the CHARX is encrypted")
        if one.compress_type not in METHODS:
            raise bad_card(f"'{name[:60]}' in the CHARX is packed in a way that is not allowed")


def read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Unpack an entry, but never more than is allowed, whatever its header says.

    Raises:
        BadSnapshot: There is more.
    """
    with archive.open(name) as entry:
        found = entry.read(most + 1)
    if len(found) > most:
        raise bad_card(f"'{name[:60]}' in the CHARX unpacks to more than {most:,} bytes")
    return found
