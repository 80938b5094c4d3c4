"""The dense index in Chroma: one collection a world, on a folder that one process opens at a time.

Importing this module takes over a second: do it in a thread, where Chroma is used.
"""

import asyncio
import hashlib
import re
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import chromadb
from chromadb.api.client import Client
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError
from langchain_chroma import Chroma

from persona_mcp.state.embedding import Vector
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.vector_index import OPEN, Hit, Kind, VectorEntry, ranked

T = TypeVar("T")

SPACE: Any = {"hnsw": {"space": "cosine", "ef_search": 200}}
"""Twice the usual width of the search: costs nothing measurable, finds 99.8 % of the nearest 50."""
NAME_CHARS = 120
HASH_CHARS = 16
WRITING = "writing"
"""A file in the folder while something is written; found at opening, that write was cut off."""

# What hnswlib writes first: version, level offset, room, rows, bytes a row.
HEADER = struct.Struct("<iQQQQ")
HEADER_VERSION = 1
LENGTH_BYTES = 4
PERSISTED = """SELECT id FROM segments JOIN max_seq_id ON max_seq_id.segment_id = segments.id
WHERE scope = 'VECTOR'"""


def collection_name(world_id: str, model_id: str) -> str:
    """Name a world's collection by Chroma's rules: `w-main.minilm-l6-int8-384`.

    What the rules do not allow is replaced, and a hash of the whole name put behind it.
    """
    wanted = f"w-{world_id}.{model_id}"
    allowed = re.sub(r"[^A-Za-z0-9._-]", "-", wanted)[:NAME_CHARS]
    if allowed == wanted and wanted[-1].isalnum():
        return wanted
    return f"{allowed}.{hashlib.sha256(wanted.encode()).hexdigest()[:HASH_CHARS]}"


@dataclass(frozen=True)
class Shelf:
    """A world's collection, as LangChain reads it and as Chroma writes it.

    LangChain's store only writes vectors that it had computed itself.
    """

    store: Chroma
    collection: chromadb.Collection


class ChromaIndex:
    """Keeps vectors in Chroma; every call runs in a thread."""

    kind: Kind = "chroma"

    def __init__(
        self,
        client: Client,
        folder: Path,
        model_id: str,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        """Use an open client.

        Args:
            client: What `open_chroma` gave.
            folder: Where it is.
            model_id: Of the embedder.
            released: Called when the folder is closed.
        """
        self._client = client
        self._folder = folder
        self._model_id = model_id
        self._released = released
        self._shelves: dict[str, Shelf] = {}
        self._writing = asyncio.Lock()
        self._closed = False

    async def upsert(self, world_id: str, entries: Sequence[VectorEntry]) -> None:
        """Write entries; an older version never overwrites a newer one, repeating changes nothing.

        Raises:
            StorageUnavailable: Chroma did not answer.
        """
        if entries:
            async with self._writing:
                await self._in_thread(lambda: self._upsert(world_id, entries))

    async def delete(self, world_id: str, memory_ids: Sequence[str]) -> None:
        """Forget memories; unknown ids are left alone.

        Raises:
            StorageUnavailable: Chroma did not answer.
        """
        if memory_ids:
            async with self._writing:
                await self._in_thread(lambda: self._delete(world_id, memory_ids))

    async def search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        """Find the reader's own memories and those open to others, best first, ties by id.

        Raises:
            StorageUnavailable: Chroma did not answer, or holds vectors of another length.
        """
        return await self._in_thread(lambda: self._search(world_id, vector, reader, limit))

    async def versions(self, world_id: str) -> dict[str, int]:
        """Give the version of each memory that it holds, by id.

        Raises:
            StorageUnavailable: Chroma did not answer.
        """
        return await self._in_thread(lambda: versions(self._shelf(world_id)))

    async def drop(self, world_id: str) -> None:
        """Forget a world; unknown worlds are left alone.

        Raises:
            StorageUnavailable: Chroma did not answer.
        """
        async with self._writing:
            await self._in_thread(lambda: self._drop(world_id))

    async def aclose(self) -> None:
        """Close the folder; what was written is on disk."""
        async with self._writing:
            if not self._closed:
                self._closed = True
                self._shelves.clear()
                await asyncio.to_thread(self._client.close)
                self._released()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise StorageUnavailable("the dense index is closed; start the program again")
        try:
            return await asyncio.to_thread(call)
        except (ChromaError, ValueError, RuntimeError, OSError) as error:
            raise StorageUnavailable(
                "the dense index (Chroma) did not answer; `persona memory reindex` rebuilds it"
            ) from error

    def _shelf(self, world_id: str) -> Shelf:
        shelf = self._shelves.get(world_id)
        if shelf is None:
            name = collection_name(world_id, self._model_id)
            store = Chroma(
                collection_name=name, client=self._client, collection_configuration=SPACE
            )
            collection = self._client.get_collection(name, embedding_function=None)
            shelf = self._shelves[world_id] = Shelf(store, collection)
        return shelf

    def _upsert(self, world_id: str, entries: Sequence[VectorEntry]) -> None:
        newest = {e.memory_id: e for e in sorted(entries, key=lambda entry: entry.version)}
        ids, most = list(newest), self._client.get_max_batch_size()
        shelf = self._shelf(world_id)
        with self._marked():
            for start in range(0, len(ids), most):
                chunk = ids[start : start + most]
                there = versions(shelf, chunk)
                write(shelf, [newest[i] for i in chunk if newest[i].version >= there.get(i, 0)])

    def _delete(self, world_id: str, memory_ids: Sequence[str]) -> None:
        ids, most = list(dict.fromkeys(memory_ids)), self._client.get_max_batch_size()
        shelf = self._shelf(world_id)
        with self._marked():
            for start in range(0, len(ids), most):
                shelf.store.delete(ids[start : start + most])

    def _search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        readable: Any = {"$or": [{"persona": reader}, {"visibility": {"$in": list(OPEN)}}]}
        store = self._shelf(world_id).store
        found = store.similarity_search_by_vector_with_relevance_scores(
            vector.tolist(), k=limit, filter=readable
        )
        # What LangChain calls relevance here is Chroma's distance: 1 - cosine.
        return ranked({str(document.id): 1.0 - distance for document, distance in found}, limit)

    def _drop(self, world_id: str) -> None:
        self._shelves.pop(world_id, None)
        with self._marked():
            try:
                self._client.delete_collection(collection_name(world_id, self._model_id))
            except NotFoundError:
                return

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """Leave a trace if the process dies meanwhile: Chroma crashes on half-written files."""
        marker = self._folder / WRITING
        marker.touch()
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)


def versions(shelf: Shelf, ids: list[str] | None = None) -> dict[str, int]:
    """Read the version of these memories, or of all."""
    kept = shelf.store.get(ids=ids, include=["metadatas"])
    return {
        id: int(metadata["version"])
        for id, metadata in zip(kept["ids"], kept["metadatas"], strict=True)
    }


def write(shelf: Shelf, entries: Sequence[VectorEntry]) -> None:
    """Write entries, at most as many as Chroma takes at once."""
    if not entries:
        return
    shelf.collection.upsert(
        ids=[entry.memory_id for entry in entries],
        embeddings=cast("Any", [entry.vector for entry in entries]),
        # Their words are in SQL; LangChain passes over rows without a text.
        documents=[""] * len(entries),
        metadatas=[
            {"persona": e.persona_id, "visibility": e.visibility, "version": e.version}
            for e in entries
        ],
    )


def open_chroma(folder: Path) -> Client:
    """Open the folder, or make it; blocks.

    Raises:
        StorageUnavailable: It is damaged.
    """
    if fault := damage(folder):
        raise StorageUnavailable(f"in the folder of the dense index, {fault}")
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
    record = folder / "chroma.sqlite3"
    if not folder.is_dir():
        return "there is a file in its place" if folder.exists() else None
    if (folder / WRITING).exists():
        return "a write was cut off"
    if not record.exists():
        return "the record is missing" if any(folder.iterdir()) else None
    try:
        read_only = f"{record.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(read_only, uri=True)) as connection:
            segments = [id for (id,) in connection.execute(PERSISTED)]
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
