"""The dense index in Chroma, in a folder or in a server (`state/index/chroma_home.py`).

A collection for each persona, and one for what a world has open to others: in one for all, a search
would read through everyone's rows to leave most of them out.

Importing this module takes over a second: do it in a thread, where Chroma is used.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import chromadb
from chromadb.errors import NotFoundError
from langchain_chroma import Chroma

from persona_mcp.state.embedding import Vector
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.index.chroma_home import FAULTS, ChromaHome
from persona_mcp.state.index.vector_index import Hit, Kind, VectorEntry, ranked
from persona_mcp.state.memory.memory import OPEN

R = TypeVar("R")
T = TypeVar("T")

SPACE: Any = {"hnsw": {"space": "cosine", "ef_search": 200}}
"""Twice the usual width of the search: costs nothing measurable, finds 99.8 % of the nearest 50."""
NAME_CHARS = 120
HASH_CHARS = 16
PAGE = 100
"""Collections that a server lists at once."""


def collection_name(world_id: str, model_id: str, owner: str | None, scope: str = "") -> str:
    """Name a collection by Chroma's rules: `w-main.minilm-l6-int8-384.p-aria`, or `... .open`.

    What the rules do not allow is replaced, and a hash of the whole name put behind it. In a server
    that others use too, the scope stands in front.
    """
    wanted = f"w-{world_id}.{model_id}.{'open' if owner is None else f'p-{owner}'}"
    wanted = f"{scope}.{wanted}" if scope else wanted
    allowed = re.sub(r"[^A-Za-z0-9._-]", "-", wanted)[:NAME_CHARS]
    if allowed == wanted and wanted[-1].isalnum():
        return wanted
    return f"{allowed}.{hashlib.sha256(wanted.encode()).hexdigest()[:HASH_CHARS]}"


@dataclass(frozen=True)
class Shelf:
    """A collection, as LangChain reads it and as Chroma writes it.

    LangChain's store only writes vectors that it had computed itself.
    """

    store: Chroma
    collection: chromadb.Collection


class ChromaIndex:
    """Keeps vectors in Chroma; every call runs in a thread."""

    kind: Kind = "chroma"

    def __init__(self, home: ChromaHome, model_id: str) -> None:
        """Keep vectors of one embedder.

        Args:
            home: Where Chroma is.
            model_id: Of the embedder.
        """
        self._home = home
        self._model_id = model_id
        self._shelves: dict[str, dict[str | None, Shelf]] = {}
        """By world and owner; None for what is open to others."""
        self._writing = asyncio.Lock()
        self._closed = False

    @property
    def fault(self) -> str:
        """Why it was begun anew, and so lacks what SQL has; empty if it was not."""
        return self._home.fault

    @property
    def is_own(self) -> bool:
        """Whether it is this process's alone."""
        return self._home.is_own

    async def upsert(self, world_id: str, entries: Sequence[VectorEntry]) -> None:
        """Write entries; an older version never overwrites a newer one, repeating changes nothing.

        Raises:
            StorageUnavailable: Chroma did not answer.
        """
        if entries:
            await self._to_its_end(lambda: self._upsert(world_id, entries))

    async def delete(self, world_id: str, memory_ids: Sequence[str]) -> None:
        """Forget memories; unknown ids are left alone.

        Raises:
            StorageUnavailable: Chroma did not answer.
        """
        if memory_ids:
            await self._to_its_end(lambda: self._delete(world_id, memory_ids))

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
        return await self._in_thread(lambda: self._versions(world_id))

    async def worlds(self) -> set[str]:
        """Give the worlds of which the folder holds anything, by whatever embedder.

        Raises:
            StorageUnavailable: Chroma did not answer.
        """
        return await self._in_thread(
            lambda: {str(of["world"]) for _, of in self._named() if "world" in of}
        )

    async def drop(self, world_id: str) -> None:
        """Forget a world; unknown worlds are left alone.

        Raises:
            StorageUnavailable: Chroma did not answer.
        """
        await self._to_its_end(lambda: self._drop(world_id))

    async def check(self) -> None:
        """See whether it answers.

        Raises:
            StorageUnavailable: It does not.
        """
        await self._in_thread(lambda: self._home.client().heartbeat())

    async def aclose(self) -> None:
        """Close the folder; what was written is on disk."""
        async with self._writing:
            if not self._closed:
                self._closed = True
                self._shelves.clear()
                await asyncio.to_thread(self._home.close)

    async def _to_its_end(self, call: Callable[[], None]) -> None:
        """Write; a caller that is stopped waits for the end, or the folder is closed under it."""
        async with self._writing:
            writing = asyncio.ensure_future(self._in_thread(call))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait([writing])
                raise

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise StorageUnavailable("the dense index is closed; start the program again")
        try:
            return await asyncio.to_thread(call)
        except FAULTS as error:
            self._shelves.clear()
            raise StorageUnavailable(self._home.advice) from error

    def _of(self, world_id: str) -> dict[str | None, Shelf]:
        """Return the shelves of a world; those in the folder are looked for once."""
        if world_id not in self._shelves:
            found = {}
            for _, of in self._named():
                if (of.get("world"), of.get("model")) == (world_id, self._model_id):
                    owner = None if of.get("owner") is None else str(of["owner"])
                    found[owner] = self._shelf(world_id, owner)
            self._shelves.setdefault(world_id, found)
        return self._shelves[world_id]

    def _metadata(self, world_id: str, owner: str | None) -> dict[str, str]:
        its = {
            "world": world_id,
            "model": self._model_id,
            "owner": owner,
            "scope": self._home.scope,
        }
        return {key: value for key, value in its.items() if value}

    def _named(self) -> list[tuple[str, Mapping[str, Any]]]:
        """List our collections, of every world and embedder: their names, and whose they are."""
        client, named = self._home.client(), list[tuple[str, Mapping[str, Any]]]()
        start = 0
        while page := client.list_collections(limit=PAGE, offset=start):
            named += [(one.name, one.metadata or {}) for one in page]
            start += len(page)
        return [(name, of) for name, of in named if of.get("scope", "") == self._home.scope]

    def _of_others(self, world_id: str) -> list[chromadb.Collection]:
        """Return the collections of a world that other embedders' vectors are in."""
        return [
            self._home.client().get_collection(name, embedding_function=None)
            for name, of in self._named()
            if of.get("world") == world_id and of.get("model") != self._model_id
        ]

    def _open(self, world_id: str, owner: str | None) -> Shelf:
        """Return a shelf; make it if it is not there."""
        shelves = self._of(world_id)
        if owner not in shelves:
            # Searches read it meanwhile: it is replaced, never changed.
            shelves = {**shelves, owner: self._shelf(world_id, owner)}
            self._shelves[world_id] = shelves
        return shelves[owner]

    def _shelf(self, world_id: str, owner: str | None) -> Shelf:
        name = collection_name(world_id, self._model_id, owner, self._home.scope)
        store = Chroma(
            collection_name=name,
            client=self._home.client(),
            collection_configuration=SPACE,
            collection_metadata=self._metadata(world_id, owner),
        )
        return Shelf(store, self._home.client().get_collection(name, embedding_function=None))

    def _versions(self, world_id: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for owner, shelf in self._of(world_id).items():
            if owner is not None:
                found |= versions(shelf)
        return found

    def _upsert(self, world_id: str, entries: Sequence[VectorEntry]) -> None:
        newest = {e.memory_id: e for e in sorted(entries, key=lambda entry: entry.version)}
        owners: dict[str, list[VectorEntry]] = {}
        for entry in newest.values():
            owners.setdefault(entry.persona_id, []).append(entry)
        with self._home.writing():
            for owner, its in owners.items():
                self._write(world_id, owner, its)

    def _write(self, world_id: str, owner: str, entries: Sequence[VectorEntry]) -> None:
        """Write the entries of an owner; its own shelf comes last, and tells what is complete."""
        own = self._open(world_id, owner)
        for chunk in self._chunks(entries):
            there = versions(own, [entry.memory_id for entry in chunk])
            new = [entry for entry in chunk if entry.version >= there.get(entry.memory_id, 0)]
            shared = [entry for entry in new if entry.visibility in OPEN]
            if shared:
                write(self._open(world_id, None), shared)
            if None in self._of(world_id):
                closed = [entry.memory_id for entry in new if entry.visibility not in OPEN]
                forget(self._open(world_id, None).collection, closed)
            write(own, new)

    def _delete(self, world_id: str, memory_ids: Sequence[str]) -> None:
        shelves = self._of(world_id)
        owners = sorted(shelves, key=lambda owner: owner is not None)
        collections = [shelves[owner].collection for owner in owners]
        collections += self._of_others(world_id)
        with self._home.writing():
            for chunk in self._chunks(list(dict.fromkeys(memory_ids))):
                for collection in collections:
                    forget(collection, chunk)
            # The vectors in a file are only marked as deleted; without rows, the file can go.
            gone = {one.name for one in collections if not one.count()}
            self._shelves[world_id] = {
                owner: shelf
                for owner, shelf in shelves.items()
                if shelf.collection.name not in gone
            }
            self._remove(gone)

    def _chunks(self, rows: Sequence[R]) -> Iterator[Sequence[R]]:
        most = self._home.client().get_max_batch_size()
        return (rows[start : start + most] for start in range(0, len(rows), most))

    def _search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        shelves = self._of(world_id)
        cosines: dict[str, float] = {}
        for owner in (None, reader):
            if owner in shelves:
                try:
                    # Not through LangChain, which makes a document of each hit: half of a search.
                    found = shelves[owner].collection.query(
                        query_embeddings=cast("Any", [vector]),
                        n_results=limit,
                        include=["distances"],
                    )
                except NotFoundError:  # the last memory in it was deleted meanwhile
                    continue
                (ids,), (distances,) = found["ids"], found["distances"] or [[]]
                cosines |= {id: 1.0 - far for id, far in zip(ids, distances, strict=True)}
        return ranked(cosines, limit)

    def _drop(self, world_id: str) -> None:
        with self._home.writing():
            self._shelves.pop(world_id, None)
            self._remove({name for name, of in self._named() if of.get("world") == world_id})

    def _remove(self, names: set[str]) -> None:
        """Delete collections, and the files with their vectors, which Chroma leaves behind."""
        for name in sorted(names):
            self._home.client().delete_collection(name)
        if names:
            self._home.sweep()


def versions(shelf: Shelf, ids: list[str] | None = None) -> dict[str, int]:
    """Read the version of these memories, or of all."""
    kept = shelf.store.get(ids=ids, include=["metadatas"])
    return {
        id: int(metadata["version"])
        for id, metadata in zip(kept["ids"], kept["metadatas"], strict=True)
    }


def forget(collection: chromadb.Collection, ids: Sequence[str]) -> None:
    """Delete those of these memories that are there."""
    if ids and (there := collection.get(ids=list(ids), include=[])["ids"]):
        collection.delete(ids=there)


def write(shelf: Shelf, entries: Sequence[VectorEntry]) -> None:
    """Write entries, at most as many as Chroma takes at once."""
    if not entries:
        return
    shelf.collection.upsert(
        ids=[entry.memory_id for entry in entries],
        embeddings=cast("Any", [entry.vector for entry in entries]),
        # Their words are in SQL; LangChain passes over rows without a text.
        documents=[""] * len(entries),
        metadatas=[{"version": entry.version} for entry in entries],
    )
