"""Where Chroma is: in a folder that one process opens at a time, or in a server.

Importing this module takes over a second: do it in a thread, where Chroma is used.
"""

import pickletools
import shutil
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import urlsplit
from uuid import UUID

import chromadb
import httpx
import numpy as np
from chromadb.api.client import Client
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings
from chromadb.errors import ChromaError

from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.index.folder_seal import Marks, broken, read_seal, seal, take_off

WRITING = "writing"
"""A file in the folder while something is written; found at opening, that write was cut off."""

RECORD = "chroma.sqlite3"
HEADER = struct.Struct("<iQQQQQQiIQQQdQ")
HEADER_VERSION = 1
LENGTH_BYTES = LINK_BYTES = 4
LABEL_BYTES = 8
LINKS = struct.Struct("<I")
COUNT_MASK = 0xFFFF
"""hnswlib keeps the number of links in two of four bytes; a third says whether a row is deleted."""
HTTP_PORT, HTTPS_PORT = 80, 443
FAULTS = (ChromaError, httpx.HTTPError, ValueError, RuntimeError, OSError)
"""What Chroma raises when it does not answer, or not as it should."""
SEGMENTS = "SELECT id FROM segments WHERE scope = 'VECTOR'"
PERSISTED = """SELECT id FROM segments JOIN max_seq_id ON max_seq_id.segment_id = segments.id
WHERE scope = 'VECTOR'"""


class ChromaHome(Protocol):
    """A place where Chroma is; its methods block.

    Attributes:
        fault: Why it was begun anew; empty if it was not.
        advice: What to tell, and what to do, when it does not answer.
        scope: Whose collections they are, where others have theirs too; else empty.
        is_own: All that is in it comes from SQL, and it may be made anew at any time.
    """

    fault: str
    advice: str
    scope: str
    is_own: bool

    def client(self) -> Client:
        """Return an open client."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Surround a write."""
        ...

    def sweep(self) -> None:
        """Remove what deleted collections leave behind; only while nothing else is written."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class ChromaFolder:
    """A folder that this process has open; made by `open_chroma`."""

    advice = "the dense index (Chroma) did not answer; `persona memory reindex` rebuilds it"
    scope = ""
    is_own = True

    def __init__(self, client: Client, folder: Path, marks: Marks) -> None:
        """Hold an open client of this folder; the marks are of its files as they were closed."""
        self.fault = ""
        self.released: Callable[[], None] = lambda: None
        """Called when it is closed."""
        self._client = client
        self._folder = folder
        self._marks = marks

    def client(self) -> Client:
        """Return the client."""
        return self._client

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Leave a trace if the process dies meanwhile: Chroma crashes on half-written files."""
        marker = self._folder / WRITING
        marker.touch()
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the files of collections that are deleted."""
        sweep(self._folder)

    def close(self) -> None:
        """Close the folder, and seal it; what was written is on disk."""
        self._client.close()
        # Without a seal, less is seen at the next start.
        with suppress(OSError):
            seal(self._folder, self._marks)
        self.released()


class ChromaServer:
    """A server over HTTP; connected at the first call."""

    fault = ""
    is_own = False

    def __init__(self, url: str, token: str, limit_s: float, scope: str) -> None:
        """Name a server.

        Args:
            url: `http[s]://host[:port]`.
            token: What it wants to be shown; empty shows nothing.
            limit_s: Of one request, in seconds.
            scope: Whose collections these are.
        """
        self.scope = scope
        self.advice = (
            f"the Chroma server at {url} did not answer; start it, or check PERSONA_INDEX__URL"
        )
        self._url = urlsplit(url)
        self._headers = {"Authorization": f"Bearer {token}", "X-Chroma-Token": token}
        self._headers = self._headers if token else {}
        self._limit_s = limit_s
        self._connecting = threading.Lock()
        self._client: Client | None = None

    def client(self) -> Client:
        """Return the client; connect if that was not done, or failed.

        Raises:
            ValueError: Nothing answers there, as Chroma says it.
        """
        with self._connecting:
            if self._client is None:
                secure = self._url.scheme == "https"
                client = chromadb.HttpClient(
                    host=self._url.hostname or "",
                    port=self._url.port or (HTTPS_PORT if secure else HTTP_PORT),
                    ssl=secure,
                    headers=self._headers,
                    settings=Settings(anonymized_telemetry=False),
                )
                self._client = cast("Client", client)
                # Left to itself, Chroma's client waits without end.
                for session in sessions_of(self._client):
                    session.timeout = httpx.Timeout(self._limit_s)
            return self._client

    def writing(self) -> AbstractContextManager[None]:
        """Surround a write: it is whole or not there, and the server sees to that."""
        return nullcontext()

    def sweep(self) -> None:
        """Do nothing: the server's files are its own."""

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            sessions = sessions_of(self._client)
            self._client.close()
            for session in sessions:
                session.close()


def sessions_of(client: Client) -> list[httpx.Client]:
    """Return what a client asks a server through: it neither limits nor closes them itself."""
    clients: list[Any] = [client, client._admin_client]
    return [one._server._session for one in clients]


def open_chroma(folder: Path) -> ChromaFolder:
    """Open the folder, or make it; blocks.

    Raises:
        StorageUnavailable: It is damaged.
    """
    if fault := damage(folder):
        raise StorageUnavailable(f"in the folder of the dense index, {fault}")
    marks = take_off(folder)
    sweep(folder)
    settings = Settings(anonymized_telemetry=False)
    try:
        client = chromadb.PersistentClient(folder, settings=settings)
        client.list_collections()
    except FAULTS as error:
        # Chroma keeps the half-open system, and would hand it out at the next try.
        SharedSystemClient._identifier_to_system.pop(str(folder), None)
        raise StorageUnavailable("Chroma cannot open the folder of the dense index") from error
    return ChromaFolder(cast("Client", client), folder, marks)


def damage(folder: Path) -> str | None:
    """Say what is wrong with a folder, as far as that can be seen without opening it.

    Chroma reads its vectors without checking them: a file that was changed ends the process, and a
    missing one silently loses rows. A folder that was closed has a seal; in one that was left open
    by a process that died, the shape of the files is looked at.
    """
    record = folder / RECORD
    if not folder.is_dir():
        return "there is a file in its place" if folder.exists() else None
    if (folder / WRITING).exists():
        return "a write was cut off"
    if not record.exists():
        return "the record is missing" if any(folder.iterdir()) else None
    marks = read_seal(folder)
    try:
        segments = ids_of(record, PERSISTED)
    except sqlite3.OperationalError:  # not readable, or without tables yet: Chroma will tell
        return None if marks is None else broken(folder, marks)
    except sqlite3.DatabaseError:
        return "the record cannot be read"
    if marks is not None:
        return broken(folder, marks)
    if not all(is_whole(folder / segment) for segment in segments):
        return "vectors are missing or damaged"
    return None


def is_whole(segment: Path) -> bool:
    """See whether a segment's files have the shape that hnswlib gives them, and Chroma its names.

    One of another version is taken for damaged: it is made anew, after a crash alone.
    """
    try:
        head = Header(*HEADER.unpack((segment / "header.bin").read_bytes()))
        if head.version != HEADER_VERSION or not head.is_sane():
            return False
        vectors = (segment / "data_level0.bin").stat().st_size
        lengths = (segment / "length.bin").stat().st_size
        if vectors < head.rows * head.row_bytes or lengths < head.rows * LENGTH_BYTES:
            return False
        names = (segment / "index_metadata.pickle").read_bytes()
        return (
            are_links(segment / "data_level0.bin", head)
            and are_upper_links(segment / "link_lists.bin", head)
            and is_pickle(names)
        )
    except (OSError, struct.error, ValueError):
        return False


class Header(NamedTuple):
    """What hnswlib writes first of a graph of vectors.

    Attributes:
        version: Of the format.
        level_offset: Where a row's links begin, in bytes.
        room: Rows that there is room for.
        rows: That there are.
        row_bytes: Of a row: its links, its vector, its label.
        label_offset: Where in a row its label is.
        vector_offset: Where in a row its vector is.
        top_level: The highest level of the graph; -1 where there is no row.
        entry: The row that searches begin with.
        upper_links: Links of a row on each level but the lowest, at most.
        links: On the lowest one.
        new_links: Links that a new row gets.
        level_scale: How fast levels get smaller.
        breadth: Rows that are looked at to find those links.
    """

    version: int
    level_offset: int
    room: int
    rows: int
    row_bytes: int
    label_offset: int
    vector_offset: int
    top_level: int
    entry: int
    upper_links: int
    links: int
    new_links: int
    level_scale: float
    breadth: int

    def is_sane(self) -> bool:
        """Tell whether the numbers fit together."""
        return (
            self.rows <= self.room
            and self.level_offset == 0
            and self.vector_offset == LINK_BYTES * (self.links + 1)
            and self.vector_offset < self.label_offset == self.row_bytes - LABEL_BYTES
            and (not self.rows or self.entry < self.rows)
        )


def are_links(path: Path, head: Header) -> bool:
    """See whether every row's links on the lowest level lead to rows."""
    if not head.rows:
        return True
    rows = np.memmap(path, np.uint8, "r", shape=(head.rows, head.row_bytes))
    links = np.ascontiguousarray(rows[:, : head.vector_offset]).view("<u4")
    counts = links[:, :1] & COUNT_MASK
    used = np.arange(head.links) < counts
    return bool((counts <= head.links).all() and (links[:, 1:][used] < head.rows).all())


def are_upper_links(path: Path, head: Header) -> bool:
    """See whether every row has whole levels of links above the lowest, and nothing is behind."""
    told, at, level_bytes = path.read_bytes(), 0, LINK_BYTES * (head.upper_links + 1)
    for _ in range(head.rows):
        (size,) = LINKS.unpack_from(told, at)
        at += LINK_BYTES + size
        if size % level_bytes or at > len(told):
            return False
    return at == len(told)


def is_pickle(told: bytes) -> bool:
    """Tell whether bytes are a whole pickle; it is not read.

    Raises:
        ValueError: They are none.
    """
    *_, (last, _, place) = pickletools.genops(told)
    return last.name == "STOP" and place == len(told) - 1


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
