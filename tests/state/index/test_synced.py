"""The dense index in step with SQL: what others wrote is found, and what is wrong is mended."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest
from sqlalchemy import delete, insert, update
from structlog.testing import capture_logs

from persona_mcp.config.index import open_index
from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Vector, pack
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.index.exact import ExactIndex
from persona_mcp.state.index.fresh_vectors import FreshVectors
from persona_mcp.state.index.synced import BEHIND, SyncedIndex
from persona_mcp.state.index.vector_index import Hit, Kind, VectorEntry, VectorIndex
from persona_mcp.state.memory.changes import Change, MemoryChanges, purge_memories
from persona_mcp.state.personas import PersonaStore
from tests.doubles import FickleEmbedder
from tests.state.rows import NOW, remember, rows_of

pytestmark = pytest.mark.anyio

M, O, V = tables.Memory, tables.OutboxEntry, tables.MemoryVector  # noqa: E741
MODEL = "double-64"
BATCH = 4
EAST, NORTH, NORTH_EAST = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.6, 0.8, 0.0))
Write = Callable[[str], Awaitable[None]]


@pytest.fixture
def embedder() -> FickleEmbedder:
    return FickleEmbedder()


@pytest.fixture
def write(database: Database, world: str, embedder: FickleEmbedder) -> Write:
    """Store a memory and its vector, as any process may."""

    async def wrote(id: str) -> None:
        await remember(database, id, f"The harbour froze, {id}.")
        vector = pack(await embedder.embed_query(id))
        with database.writing() as connection:
            connection.execute(
                insert(V).values(
                    world_id="main",
                    memory_id=id,
                    persona_id="mara",
                    model_id=MODEL,
                    version=1,
                    vector=vector,
                )
            )

    return wrote


def synced(database: Database, index: VectorIndex) -> SyncedIndex:
    return SyncedIndex(database, index, MODEL, BATCH)


def entry(
    id: str,
    vector: tuple[float, ...],
    persona: str = "mara",
    visibility: str = "private",
    version: int = 1,
) -> VectorEntry:
    return VectorEntry(id, persona, visibility, version, np.asarray(vector, dtype=np.float32))


async def test_what_others_have_written_is_fresh_until_the_index_takes_a_batch_of_it(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    index = synced(database, chroma)
    found: list[tuple[int, int]] = []
    for number in range(10):
        await write(f"m{number}")
        fresh = await index.catch_up("main")
        found.append((len(fresh), len(await chroma.versions("main"))))

    assert found == [(0, 1), (1, 1), (2, 1), (3, 1), (0, 5), (1, 5), (2, 5), (3, 5), (0, 9), (1, 9)]


async def test_what_is_embedded_anew_is_fresh_once_and_replaces_what_the_index_has(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    index = synced(database, chroma)
    await write("m1")
    await index.catch_up("main")
    for version in (2, 3):
        with database.writing() as connection:
            connection.execute(update(V).values(version=version, seq=V.seq + 1))

        fresh = await index.catch_up("main")

        assert [(entry.memory_id, entry.version) for entry in fresh] == [("m1", version)]
    assert await index.reconcile("main") == (0, 0)
    assert await chroma.versions("main") == {"m1": 3}
    assert list(await index.catch_up("main")) == []


async def test_searches_at_once_look_at_each_vector_once(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    index = synced(database, chroma)
    await index.catch_up("main")
    for number in range(9):
        await write(f"m{number}")

    found = await asyncio.gather(*(index.catch_up("main") for _ in range(5)))

    assert [[entry.memory_id for entry in fresh] for fresh in found] == [["m8"]] * 5
    assert len(await chroma.versions("main")) == 8


async def test_chroma_is_mended_both_ways(
    database: Database, write: Write, chroma: VectorIndex, embedder: FickleEmbedder
) -> None:
    index = synced(database, chroma)
    for number in range(6):
        await write(f"m{number}")
    assert await index.reconcile("main") == (6, 0)
    await chroma.delete("main", ["m1", "m2"])
    strange = VectorEntry("strange", "mara", "private", 1, await embedder.embed_query("harbour"))
    await chroma.upsert("main", [strange])

    assert await index.reconcile("main") == (2, 1)

    assert await chroma.versions("main") == {f"m{n}": 1 for n in range(6)}
    assert await index.reconcile("main") == (0, 0)


async def test_an_exact_index_has_everything_at_once(database: Database, write: Write) -> None:
    index = synced(database, ExactIndex(database, MODEL, 8))
    await write("m1")

    assert list(await index.catch_up("main")) == []
    assert await index.reconcile("main") == (0, 0)


async def test_a_search_finds_what_is_fresh_and_what_the_index_has(
    database: Database, write: Write, chroma: VectorIndex, embedder: FickleEmbedder
) -> None:
    index = synced(database, chroma)
    for number in range(BATCH + 2):
        await write(f"m{number}")
        await index.catch_up("main")

    hits = await index.search("main", await embedder.embed_query("m5"), "mara", 10)

    assert len(await chroma.versions("main")) == BATCH + 1
    assert hits[0].memory_id == "m5"
    assert sorted(hit.memory_id for hit in hits) == [f"m{n}" for n in range(BATCH + 2)]


async def test_an_index_is_made_anew_from_sql(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    index = synced(database, chroma)
    for number in range(BATCH + 2):
        await write(f"m{number}")

    await index.rebuild("main")

    assert len(await chroma.versions("main")) == BATCH + 2
    assert list(await index.catch_up("main")) == []


async def test_an_index_that_lacks_more_than_a_batch_is_filled_while_exact_scoring_answers(
    database: Database, write: Write, chroma: VectorIndex, embedder: FickleEmbedder
) -> None:
    index = synced(database, chroma)
    for number in range(BATCH + 2):
        await write(f"m{number}")

    assert list(await index.catch_up("main")) == []
    assert index.trouble.startswith(f"{BEHIND}; it is rebuilt in the background")
    hits = await index.search("main", await embedder.embed_query("m5"), "mara", 10)
    assert await index.reconcile("main") == (0, 0)

    assert hits[0].memory_id == "m5"
    assert index.trouble == ""
    assert len(await chroma.versions("main")) == len(hits) == BATCH + 2
    again = await index.search("main", await embedder.embed_query("m5"), "mara", 10)
    assert [hit.memory_id for hit in again] == [hit.memory_id for hit in hits]


async def test_filling_that_was_stopped_goes_on_the_next_time(
    database: Database, write: Write, settings: Settings, chroma: VectorIndex
) -> None:
    for number in range(3 * BATCH):
        await write(f"m{number:02}")
    first = synced(database, chroma)
    await first.catch_up("main")
    await first.aclose()

    opened = await open_index(
        settings.model_copy(update={"index": IndexSettings(kind="chroma")}), database, MODEL
    )
    second = synced(database, opened)
    await second.reconcile("main")

    assert len(await opened.versions("main")) == 3 * BATCH
    await second.aclose()


async def test_an_index_that_fails_while_it_is_filled_is_tried_again(
    database: Database, write: Write, embedder: FickleEmbedder
) -> None:
    broken = Broken()
    index = synced(database, broken)
    for number in range(BATCH + 2):
        await write(f"m{number}")
    vector = await embedder.embed_query("m5")
    await index.search("main", vector, "mara", 10)

    broken.down = True
    with pytest.raises(StorageUnavailable):
        await index.reconcile("main")
    with pytest.raises(StorageUnavailable):
        await index.search("main", vector, "mara", 10)
    broken.down = False

    hits = await index.search("main", vector, "mara", 10)
    assert hits[0].memory_id == "m5"


async def test_our_own_index_that_fails_is_made_anew_once_and_scored_exactly_meanwhile(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    vector = np.ones(64, dtype=np.float32)
    for number in range(BATCH + 2):
        await write(f"m{number}")
    failing = Failing(chroma)
    index = synced(database, failing)
    await index.reconcile("main")
    expected = await index.search("main", vector, "mara", 10)

    failing.down = True
    with capture_logs() as logs:
        meanwhile = [await index.search("main", vector, "mara", 10) for _ in range(2)]
        failing.down = False
        await index.reconcile("main")
        after = await index.search("main", vector, "mara", 10)
        failing.down = True
        again = await index.search("main", vector, "mara", 10)

    assert len(expected) == BATCH + 2
    for hits in (*meanwhile, after, again):
        assert [hit.memory_id for hit in hits] == [hit.memory_id for hit in expected]
    assert failing.dropped == ["main"]
    assert sum("made anew" in entry["event"] for entry in logs) == 1


class Failing:
    """An index of this process whose searches fail when they are told to."""

    kind: Kind = "chroma"
    fault = ""
    is_own = True
    down = False

    def __init__(self, index: VectorIndex) -> None:
        self._index = index
        self.dropped: list[str] = []

    async def search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        if self.down:
            raise StorageUnavailable("its files are damaged")
        return await self._index.search(world_id, vector, reader, limit)

    async def drop(self, world_id: str) -> None:
        self.dropped.append(world_id)
        await self._index.drop(world_id)

    async def check(self) -> None:
        await self._index.check()

    async def upsert(self, world_id: str, entries: Sequence[VectorEntry]) -> None:
        await self._index.upsert(world_id, entries)

    async def delete(self, world_id: str, memory_ids: Sequence[str]) -> None:
        await self._index.delete(world_id, memory_ids)

    async def versions(self, world_id: str) -> dict[str, int]:
        return await self._index.versions(world_id)

    async def worlds(self) -> set[str]:
        return await self._index.worlds()

    async def aclose(self) -> None:
        await self._index.aclose()


class Broken:
    """An index that takes everything, keeps nothing, and fails when it is told to."""

    kind: Kind = "chroma"
    fault = ""
    is_own = False
    down = False

    async def check(self) -> None:
        if self.down:
            raise StorageUnavailable("it is down")

    async def upsert(self, world_id: str, entries: Sequence[VectorEntry]) -> None:
        await self.check()

    async def delete(self, world_id: str, memory_ids: Sequence[str]) -> None:
        await self.check()

    async def search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        await self.check()
        return []

    async def versions(self, world_id: str) -> dict[str, int]:
        await self.check()
        return {}

    async def drop(self, world_id: str) -> None:
        await self.check()

    async def worlds(self) -> set[str]:
        await self.check()
        return set()

    async def aclose(self) -> None:
        pass


async def rows_left(database: Database) -> list[str]:
    return [row.memory_id for row in await rows_of(database, O, O.seq) if row.operation == "delete"]


async def test_what_is_archived_or_purged_leaves_the_index_and_what_is_fresh(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    index, changes = synced(database, chroma), MemoryChanges(database)
    for number in range(BATCH):
        await write(f"m{number}")
    await index.reconcile("main")
    await write("fresh")
    await write("kept")
    assert len(await index.catch_up("main")) == 2

    await changes.delete("main", ["m0", "fresh"], purge=True, dry_run=False, now=NOW)
    await changes.delete("main", ["m1"], purge=False, dry_run=False, now=NOW)
    assert await rows_left(database) == ["fresh", "m0", "m1"]

    assert await index.forget() == 3
    assert [entry.memory_id for entry in await index.catch_up("main")] == ["kept"]
    assert await index.reconcile("main") == (0, 0)
    assert await chroma.versions("main") == {"m2": 1, "m3": 1, "kept": 1}
    assert await rows_left(database) == []
    assert await index.forget() == 0


async def test_what_was_deleted_in_a_process_that_was_cut_off_is_forgotten_by_the_next(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    await write("m1")
    await write("m2")
    await synced(database, chroma).reconcile("main")
    await MemoryChanges(database).delete("main", ["m1"], purge=True, dry_run=False, now=NOW)
    await synced(database, ExactIndex(database, MODEL, 8)).forget()  # of a process beside it
    assert await rows_left(database) == ["m1"]

    await synced(database, chroma).forget()

    assert await chroma.versions("main") == {"m2": 1}


async def test_a_memory_that_is_there_again_is_not_forgotten(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    index, changes = synced(database, chroma), MemoryChanges(database)
    for number in range(BATCH + 2):
        await write(f"m{number}")
    await index.reconcile("main")
    for number in (*range(BATCH + 2), 0, 0):
        await changes.update("main", f"m{number}", Change(archived=True), None, NOW)
        await changes.update("main", f"m{number}", Change(archived=False), None, NOW)

    assert await index.forget() == BATCH + 4

    assert await chroma.versions("main") == {f"m{n}": 1 for n in range(BATCH + 2)}


async def test_a_memory_that_was_purged_and_stored_again_is_held_as_it_is_now(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    index = synced(database, chroma)
    await write("m1")
    await chroma.upsert("main", [entry("m1", (1.0,) * 64, "mara", "public", 7)])
    await MemoryChanges(database).delete("main", ["m1"], purge=True, dry_run=False, now=NOW)
    await write("m1")

    await index.forget()

    assert await chroma.versions("main") == {"m1": 1}
    found = await chroma.search("main", np.ones(64, dtype=np.float32), "tobin", 5)
    assert found == []


async def test_an_archived_memory_is_no_more_held_after_a_comparison(
    database: Database, write: Write, chroma: VectorIndex
) -> None:
    index = synced(database, chroma)
    await write("m1")
    await write("m2")
    await index.reconcile("main")
    with database.writing() as connection:
        connection.execute(update(M).where(M.id == "m1").values(archived_at=NOW))

    assert await index.reconcile("main") == (0, 1)
    assert await chroma.versions("main") == {"m2": 1}


async def test_a_world_that_is_deleted_leaves_no_vector_in_sql_nor_in_the_index(
    settings: Settings, database: Database, write: Write, chroma: VectorIndex
) -> None:
    await PersonaStore(database).ensure_world("other", "other", [], NOW)
    index = synced(database, chroma)
    await write("m1")
    await index.reconcile("main")
    await chroma.upsert("other", [entry("m2", EAST, visibility="public")])
    folder = settings.data_dir / "chroma"
    assert sum(path.is_dir() for path in folder.iterdir()) == 3

    with database.writing() as connection:
        connection.execute(delete(tables.World).where(tables.World.id == "main"))
    await index.forget()

    assert await chroma.worlds() == {"other"}
    assert await rows_of(database, V) == await rows_of(database, O) == []
    with database.writing() as connection:
        connection.execute(delete(tables.World))
    await index.forget()
    assert await chroma.worlds() == set()
    assert [path for path in folder.iterdir() if path.is_dir()] == []


async def test_a_persona_whose_memories_are_purged_leaves_no_vector_behind(
    settings: Settings, database: Database, write: Write, chroma: VectorIndex
) -> None:
    index = synced(database, chroma)
    for number in range(3):
        await write(f"m{number}")
    await index.reconcile("main")

    with database.writing() as connection:
        purge_memories(connection, "main", ["m0", "m1", "m2"], NOW)
    await index.forget()

    assert await rows_of(database, V) == []
    folder = settings.data_dir / "chroma"
    assert [path for path in folder.iterdir() if path.is_dir()] == []


def fresh_of(*entries: VectorEntry) -> FreshVectors:
    fresh = FreshVectors(0)
    fresh.add(entries, 1)
    return fresh


def test_fresh_vectors_are_ranked_among_what_the_index_found_under_the_same_rule() -> None:
    hits = [Hit("old", 0.9), Hit("b", 0.8), Hit("far", 0.1)]
    fresh = fresh_of(
        entry("old", NORTH, version=2),
        entry("c", NORTH_EAST),
        entry("others", EAST, persona="tom"),
        entry("open", EAST, persona="tom", visibility="public"),
    )
    east = np.asarray(EAST, dtype=np.float32) * 3

    found = fresh.among(hits, east, "mara", 4)

    assert [hit.memory_id for hit in found] == ["open", "b", "c", "far"]
    assert found[2].similarity == pytest.approx(0.6, abs=1e-3)
    assert FreshVectors(0).among(hits, east, "mara", 4) == hits


def test_fresh_vectors_are_found_as_they_are_now_whenever_they_came_or_went() -> None:
    east = np.asarray(EAST, dtype=np.float32)
    fresh = fresh_of(entry("a", EAST), entry("b", NORTH))

    def found() -> list[tuple[str, float]]:
        hits = fresh.among([], east, "mara", 4)
        return [(hit.memory_id, round(hit.similarity, 3)) for hit in hits]

    assert found() == [("a", 1.0), ("b", 0.0)]
    fresh.add([entry("c", NORTH_EAST)], 2)
    assert found() == [("a", 1.0), ("c", 0.6), ("b", 0.0)]
    fresh.add([entry("a", NORTH, version=2), entry("d", EAST)], 3)
    assert found() == [("d", 1.0), ("c", 0.6), ("a", 0.0), ("b", 0.0)]
    fresh.forget("c")
    fresh.forget("nobody")
    assert found() == [("d", 1.0), ("a", 0.0), ("b", 0.0)]
    assert (fresh.seen, len(fresh)) == (3, 3)


def test_fresh_vectors_of_another_length_are_refused() -> None:
    short = entry("a", (1.0, 0.0))
    east = np.asarray(EAST, dtype=np.float32)
    for fresh in (fresh_of(short), fresh_of(short, entry("b", EAST))):
        with pytest.raises(StorageUnavailable, match="reindex --embed"):
            fresh.among([], east, "mara", 4)
