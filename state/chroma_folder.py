"""The folder of Chroma: opened when it is whole, and freed of what Chroma leaves in it.

Importing this module takes over a second: do it in a thread, where Chroma is used.
"""

import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import cast
from uuid import UUID

import chromadb
from chromadb.api.client import Client
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings
from chromadb.errors import ChromaError

from persona_mcp.state.errors import StorageUnavailable

RECORD = "chroma.sqlite3"
WRITING = "writing"
"""A file in the folder while something is written; found at opening, that write was cut off."""

# What hnswlib writes first: version, level offset, room, rows, bytes a row.
HEADER = struct.Struct("<iQQQQ")
HEADER_VERSION = 1
LENGTH_BYTES = 4
SEGMENTS = "SELECT id FROM segments WHERE scope = 'VECTOR'"
PERSISTED = """SELECT id FROM segments JOIN max_seq_id ON max_seq_id.segment_id = segments.id
WHERE scope = 'VECTOR'"""


def open_chroma(folder: Path) -> Client:
    """Open the folder, or make it; blocks.

    Raises:
        StorageUnavailable: It is damaged.
    """
    if fault := damage(folder):
        raise StorageUnavailable(f"in the folder of the dense index, {fault}")
    sweep(folder)
    settings = Settings(anonymized_telemetry=False)
    try:
        client = chromadb.PersistentClient(folder, settings=settings)
        client.list_collections()
    except (ChromaError, ValueError, RuntimeError, OSError) as error:
        # Chroma keeps the half-open system, and would hand it out at the next try.
        SharedSystemClient._identifier_to_system.pop(str(folder), None)
        raise StorageUnavailable("Chroma cannot open the folder of the dense index") from error
    return cast("Client", client)


def damage(folder: Path) -> str | None:
    """Say what is wrong with a folder, as far as that can be seen without opening it.

    Chroma reads its vectors without checking them: a file that was cut off ends the process, and a
    missing one silently loses rows.
    """
    record = folder / RECORD
    if not folder.is_dir():
        return "there is a file in its place" if folder.exists() else None
    if (folder / WRITING).exists():
        return "a write was cut off"
    if not record.exists():
        return "the record is missing" if any(folder.iterdir()) else None
    try:
        segments = ids_of(record, PERSISTED)
    except sqlite3.OperationalError:  # not readable, or without tables yet: Chroma will tell
        return None
    except sqlite3.DatabaseError:
        return "the record cannot be read"
    if not all(is_whole(folder / segment) for segment in segments):
        return "vectors are missing"
    return None


def is_whole(segment: Path) -> bool:
    """Compare the sizes of a segment's files with the number of rows that it names."""
    try:
        header = (segment / "header.bin").read_bytes()
        version, _, _, rows, row_bytes = HEADER.unpack_from(header)
        if version != HEADER_VERSION:
            return True
        vectors = (segment / "data_level0.bin").stat().st_size
        lengths = (segment / "length.bin").stat().st_size
    except (OSError, struct.error):
        return False
    return bool(vectors >= rows * row_bytes and lengths >= rows * LENGTH_BYTES)


def ids_of(record: Path, query: str) -> list[str]:
    """Ask Chroma's record for ids of segments.

    Raises:
        sqlite3.DatabaseError: It cannot be read.
    """
    read_only = f"{record.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(read_only, uri=True)) as connection:
        return [id for (id,) in connection.execute(query)]


def sweep(folder: Path) -> None:
    """Remove the files of collections that are deleted: Chroma leaves them, vectors and all.

    Whoever calls this writes to the folder alone. What cannot be removed now, since it is still
    open, is removed when the folder is opened again.
    """
    try:
        known = set(ids_of(folder / RECORD, SEGMENTS))
        found = [path for path in folder.iterdir() if path.is_dir() and path.name not in known]
    except (sqlite3.DatabaseError, OSError):  # no record, no tables in it yet: nothing to compare
        return
    for path in found:
        if is_segment(path.name):
            shutil.rmtree(path, ignore_errors=True)


def is_segment(name: str) -> bool:
    """Tell whether a folder is named as Chroma names those of segments."""
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
