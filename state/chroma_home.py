"""Where Chroma is: in a folder that one process opens at a time, or in a server.

Importing this module takes over a second: do it in a thread, where Chroma is used.
"""

import shutil
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit
from uuid import UUID

import chromadb
import httpx
from chromadb.api.client import Client
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings
from chromadb.errors import ChromaError

from persona_mcp.state.errors import StorageUnavailable

WRITING = "writing"
"""A file in the folder while something is written; found at opening, that write was cut off."""

RECORD = "chroma.sqlite3"
# What hnswlib writes first: version, level offset, room, rows, bytes a row.
HEADER = struct.Struct("<iQQQQ")
HEADER_VERSION = 1
LENGTH_BYTES = 4
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
    """

    fault: str
    advice: str
    scope: str

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

    def __init__(self, client: Client, folder: Path) -> None:
        """Hold an open client of this folder."""
        self.fault = ""
        self.released: Callable[[], None] = lambda: None
        """Called when it is closed."""
        self._client = client
        self._folder = folder

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
        """Close the folder; what was written is on disk."""
        self._client.close()
        self.released()


class ChromaServer:
    """A server over HTTP; connected at the first call."""

    fault = ""

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
    sweep(folder)
    settings = Settings(anonymized_telemetry=False)
    try:
        client = chromadb.PersistentClient(folder, settings=settings)
        client.list_collections()
    except FAULTS as error:
        # Chroma keeps the half-open system, and would hand it out at the next try.
        SharedSystemClient._identifier_to_system.pop(str(folder), None)
        raise StorageUnavailable("Chroma cannot open the folder of the dense index") from error
    return ChromaFolder(cast("Client", client), folder)


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
