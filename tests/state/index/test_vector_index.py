"""One suite for both kinds of index; then what only one of them does."""

import asyncio
import random
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, insert, update

from persona_mcp.config.database import open_database, ready_database
from persona_mcp.config.settings import Settings
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Vector, pack, unpack
from persona_mcp.state.errors import StorageUnavailable
from persona_mcp.state.index.chroma import ChromaIndex, collection_name
from persona_mcp.state.index.chroma_home import WRITING, damage, open_chroma
from persona_mcp.state.index.exact import ExactIndex
from persona_mcp.state.index.folder_seal import SEAL
from persona_mcp.state.index.vector_index import (
    Hit,
    VectorEntry,
    VectorIndex,
)
from persona_mcp.state.tables import Memory, MemoryVector, World

pytestmark = pytest.mark.anyio

MODEL = "test-model-4"
EAST, NORTH, UP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
NORTH_EAST = (0.6, 0.8, 0.0)


def entry(
    id: str,
    vector: Sequence[float],
    persona: str = "mara",
    visibility: str = "private",
    version: int = 1,
) -> VectorEntry:
    """Make an entry as SQL would give it back: through float16."""
    stored = unpack(pack(np.asarray(vector, dtype=np.float32)))
    return VectorEntry(id, persona, visibility, version, stored)


async def write_rows(
    database: Database, entries: Sequence[VectorEntry], world_id: str = "main"
) -> None:
    """Write memories and vectors as the stores do: a rewritten vector gets a new seq."""
    memories, vectors = [], []
    for one in entries:
        key = {"world_id": world_id, "persona_id": one.persona_id, "version": one.version}
        memories.append(
            key
            | {"id": one.memory_id, "visibility": one.visibility, "content": "", "details": {}}
            | {"indexed_text": "", "memory_type": "fact", "importance": 0.5, "importance_terms": {}}
            | {"related_personas": [], "created_at": 0.0, "updated_at": 0.0}
        )
        vectors.append(
            key | {"memory_id": one.memory_id, "model_id": MODEL, "vector": pack(one.vector)}
        )
    ids = [one.memory_id for one in entries]
    with database.writing() as connection:
        connection.execute(delete(Memory).where(Memory.world_id == world_id, Memory.id.in_(ids)))
        connection.execute(insert(Memory), memories)
        connection.execute(insert(MemoryVector), vectors)


@dataclass
class Store:
    """SQL and the index on it, written in that order."""

    database: Database
    index: VectorIndex

    async def put(self, *entries: VectorEntry, world_id: str = "main") -> None:
        await write_rows(self.database, entries, world_id)
        await self.index.upsert(world_id, entries)

    async def remove(self, *ids: str, world_id: str = "main") -> None:
        with self.database.writing() as connection:
            connection.execute(
                delete(Memory).where(Memory.world_id == world_id, Memory.id.in_(ids))
            )
        await self.index.delete(world_id, ids)

    async def found(
        self,
        vector: Sequence[float],
        reader: str = "mara",
        limit: int = 10,
        world_id: str = "main",
    ) -> list[str]:
        query = np.asarray(vector, dtype=np.float32)
        return [hit.memory_id for hit in await self.index.search(world_id, query, reader, limit)]

    async def set(self, id: str, **values: object) -> None:
        with self.database.writing() as connection:
            connection.execute(update(Memory).where(Memory.id == id).values(**values))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, _env_file=None)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = await ready_database(settings)
    with opened.writing() as connection:
        connection.execute(delete(World))
        worlds = [{"id": id, "name": id, "created_at": 0.0} for id in ("main", "other")]
        connection.execute(insert(World), worlds)
    yield opened
    await opened.aclose()


@pytest.fixture
async def exact(database: Database) -> AsyncIterator[Store]:
    index = ExactIndex(database, MODEL, 64)
    yield Store(database, index)
    await index.aclose()


@pytest.fixture
async def chroma(database: Database, tmp_path: Path) -> AsyncIterator[Store]:
    index = ChromaIndex(await asyncio.to_thread(open_chroma, tmp_path / "chroma"), MODEL)
    yield Store(database, index)
    await index.aclose()


@pytest.fixture(params=["exact", "chroma"])
def store(request: pytest.FixtureRequest, exact: Store, chroma: Store) -> Store:
    return exact if request.param == "exact" else chroma


async def test_each_index_says_which_kind_it_is(exact: Store, chroma: Store) -> None:
    assert (exact.index.kind, chroma.index.kind) == ("exact", "chroma")


async def test_the_nearest_comes_first_with_its_cosine(store: Store) -> None:
    await store.put(entry("a", UP), entry("b", NORTH_EAST), entry("c", EAST))

    hits = await store.index.search("main", np.asarray(EAST, dtype=np.float32), "mara", 10)

    assert [hit.memory_id for hit in hits] == ["c", "b", "a"]
    assert [hit.similarity for hit in hits] == pytest.approx([1.0, 0.6, 0.0], abs=1e-3)


async def test_the_length_of_a_vector_does_not_count(store: Store) -> None:
    await store.put(entry("short", (0.1, 0.0, 0.0)), entry("long", (0.0, 0.0, 9.0)))

    hits = await store.index.search("main", np.asarray(EAST, dtype=np.float32) * 5, "mara", 10)

    assert [hit.memory_id for hit in hits] == ["short", "long"]
    assert hits[0].similarity == pytest.approx(1.0, abs=1e-5)


async def test_similarity_stays_within_0_and_1(store: Store) -> None:
    await store.put(entry("same", EAST), entry("opposite", (-1.0, 0.0, 0.0)))

    hits = await store.index.search("main", np.asarray(EAST, dtype=np.float32), "mara", 10)

    assert hits == [Hit("same", 1.0), Hit("opposite", 0.0)]


async def test_ties_are_in_the_order_of_ids(store: Store) -> None:
    await store.put(*(entry(id, NORTH_EAST) for id in ("d", "b", "c", "a")))

    assert await store.found(NORTH_EAST) == ["a", "b", "c", "d"]


async def test_at_most_limit_are_found(store: Store) -> None:
    await store.put(entry("a", EAST), entry("b", NORTH_EAST), entry("c", NORTH))

    assert await store.found(EAST, limit=2) == ["a", "b"]


async def test_what_is_private_is_found_by_its_owner_alone(store: Store) -> None:
    await store.put(entry("hers", EAST, "mara"), entry("his", EAST, "tom"))

    assert await store.found(EAST, "mara") == ["hers"]
    assert await store.found(EAST, "tom") == ["his"]
    assert await store.found(EAST, "nobody") == []


async def test_what_is_shared_or_public_is_a_candidate_for_others(store: Store) -> None:
    await store.put(
        entry("private", EAST), entry("shared", EAST, visibility="shared"), entry("mine", UP, "tom")
    )
    await store.put(entry("public", EAST, visibility="public"))

    assert await store.found(EAST, "tom") == ["public", "shared", "mine"]
    assert await store.found(EAST, "mara") == ["private", "public", "shared"]


async def test_many_open_memories_of_the_reader_do_not_hide_those_of_others(store: Store) -> None:
    await store.put(*(entry(f"m{i}", EAST, visibility="public") for i in range(9)))
    await store.put(entry("his", NORTH_EAST, "tom", "public"))

    assert await store.found(EAST, "mara", limit=10) == [*(f"m{i}" for i in range(9)), "his"]


async def test_a_newer_version_replaces_an_older_one(store: Store) -> None:
    await store.put(entry("a", EAST), entry("b", NORTH_EAST))

    await store.put(entry("a", UP, version=2))

    assert await store.found(EAST) == ["b", "a"]
    assert await store.index.versions("main") == {"a": 2, "b": 1}


async def test_an_older_version_never_overwrites_a_newer_one(store: Store) -> None:
    await store.put(entry("a", EAST, version=2), entry("b", NORTH_EAST))

    await store.index.upsert("main", [entry("a", UP, version=1)])

    assert await store.found(EAST) == ["a", "b"]
    assert (await store.index.versions("main"))["a"] == 2


async def test_visibility_that_changes_with_a_new_version_is_followed(store: Store) -> None:
    await store.put(entry("a", EAST))
    assert await store.found(EAST, "tom") == []

    await store.put(entry("a", EAST, visibility="public", version=2))
    assert await store.found(EAST, "tom") == ["a"]

    await store.put(entry("a", EAST, visibility="private", version=3))
    assert await store.found(EAST, "tom") == []


async def test_an_upsert_that_is_repeated_changes_nothing(store: Store) -> None:
    entries = [entry("a", EAST), entry("b", NORTH)]
    await store.put(*entries)

    await store.index.upsert("main", entries)

    assert await store.found(EAST) == ["a", "b"]
    assert await store.index.versions("main") == {"a": 1, "b": 1}


async def test_what_is_deleted_is_not_found(store: Store) -> None:
    await store.put(entry("a", EAST), entry("b", NORTH_EAST), entry("c", NORTH))
    assert await store.found(EAST) == ["a", "b", "c"]

    await store.remove("a", "c", "unknown")

    assert await store.found(EAST) == ["b"]
    assert await store.index.versions("main") == {"b": 1}


async def test_what_is_deleted_can_come_back(store: Store) -> None:
    await store.put(entry("a", EAST))
    await store.remove("a")

    await store.put(entry("a", EAST))

    assert await store.found(EAST) == ["a"]


async def test_an_empty_index_finds_nothing(store: Store) -> None:
    assert await store.found(EAST) == []
    assert await store.index.versions("main") == {}


async def test_nothing_may_be_asked_of_nothing(store: Store) -> None:
    await store.index.upsert("main", [])
    await store.index.delete("main", [])
    await store.index.delete("main", ["unknown"])
    await store.index.drop("unknown")

    assert await store.index.versions("main") == {}


async def test_worlds_are_kept_apart(store: Store) -> None:
    await store.put(entry("a", EAST), world_id="main")
    await store.put(entry("a", NORTH, version=3), entry("b", EAST), world_id="other")

    assert await store.found(EAST, world_id="main") == ["a"]
    assert await store.found(EAST, world_id="other") == ["b", "a"]
    assert await store.index.versions("main") == {"a": 1}
    assert await store.index.versions("other") == {"a": 3, "b": 1}


async def test_a_dropped_world_can_be_filled_again(store: Store) -> None:
    entries = [entry("a", EAST), entry("b", NORTH)]
    await store.put(*entries)
    await store.put(entry("c", EAST), world_id="other")
    assert await store.found(EAST) == ["a", "b"]

    await store.index.drop("main")
    await store.index.upsert("main", entries)

    assert await store.found(EAST) == ["a", "b"]
    assert await store.found(EAST, world_id="other") == ["c"]


async def test_an_index_knows_its_worlds(store: Store) -> None:
    assert await store.index.worlds() == set()

    await store.put(entry("a", EAST), entry("b", NORTH, "tom", "public"))
    await store.put(entry("c", EAST), world_id="other")
    assert await store.index.worlds() == {"main", "other"}

    await store.remove("a", "b")
    assert await store.index.worlds() == {"other"}


async def test_searches_and_writes_may_run_at_once(store: Store) -> None:
    await store.put(entry("a", EAST))

    found = await asyncio.gather(
        *(store.found(EAST, limit=1) for _ in range(10)),
        *(store.put(entry(f"n{i}", NORTH)) for i in range(5)),
    )

    assert found[:10] == [["a"]] * 10
    assert len(await store.found(EAST)) == 6


async def test_vectors_of_another_length_are_an_error_that_says_what_to_do(store: Store) -> None:
    await store.put(entry("a", EAST))

    with pytest.raises(StorageUnavailable, match="persona memory reindex"):
        await store.found((1.0, 0.0))


async def test_both_find_the_same_top_10_of_random_vectors(exact: Store, chroma: Store) -> None:
    random = np.random.default_rng(7)
    entries = [
        entry(f"m{i:03}", vector, f"p{i % 3}", ("private", "shared", "public")[i % 5 % 3])
        for i, vector in enumerate(random.normal(size=(500, 32)))
    ]
    await chroma.put(*entries)

    for query in random.normal(size=(20, 32)):
        expected = await exact.found(query, "p1")
        assert len(expected) == 10
        assert await chroma.found(query, "p1") == expected


async def test_exact_sees_what_another_process_writes(exact: Store, settings: Settings) -> None:
    await exact.put(entry("a", NORTH_EAST))
    assert await exact.found(EAST) == ["a"]
    other = open_database(settings)

    await write_rows(other, [entry("b", EAST), entry("c", EAST, "tom", "public")])
    await write_rows(other, [entry("d", EAST, "tom")])
    after_adding = await exact.found(EAST)
    with other.writing() as connection:
        connection.execute(delete(MemoryVector).where(MemoryVector.memory_id == "b"))
    after_deleting = await exact.found(EAST)
    await other.aclose()

    assert after_adding == ["b", "c", "a"]
    assert after_deleting == ["c", "a"]


async def test_exact_does_not_find_what_is_archived_or_switched_off(exact: Store) -> None:
    await exact.put(*(entry(id, EAST) for id in ("archived", "inactive", "kept")))
    assert len(await exact.found(EAST)) == 3

    await exact.set("archived", archived_at=1.0)
    await exact.set("inactive", active=False)
    assert await exact.found(EAST) == ["kept"]
    assert await exact.index.versions("main") == {"kept": 1}

    await exact.set("archived", archived_at=None)
    assert await exact.found(EAST) == ["archived", "kept"]


async def test_exact_looks_on_behind_rows_that_cannot_be_found(exact: Store) -> None:
    gone = [entry(f"gone{i:04}", EAST) for i in range(700)]
    await exact.put(*gone, entry("kept", NORTH_EAST), entry("last", NORTH))
    with exact.database.writing() as connection:
        archived = update(Memory).where(Memory.id.startswith("gone")).values(archived_at=1.0)
        connection.execute(archived)

    assert await exact.found(EAST, limit=2) == ["kept", "last"]


async def test_exact_adds_to_what_it_holds(exact: Store) -> None:
    for i in range(40):
        await exact.put(entry(f"m{i:02}", EAST if i % 2 else NORTH, visibility="shared"))
        assert len(await exact.found(EAST, limit=100)) == i + 1

    assert await exact.found(EAST, limit=3) == ["m01", "m03", "m05"]


async def test_exact_finds_the_same_when_its_shards_have_to_go(exact: Store) -> None:
    narrow = Store(exact.database, ExactIndex(exact.database, MODEL, 1))
    await exact.put(entry("a", EAST), entry("b", EAST, "tom"), entry("c", UP, "tom", "public"))

    for _ in range(2):
        assert await narrow.found(EAST, "mara") == ["a", "c"]
        assert await narrow.found(EAST, "tom") == ["b", "c"]


async def test_exact_scores_a_large_shard(exact: Store) -> None:
    random = np.random.default_rng(7)
    vectors: Vector = random.normal(size=(4_000, 8)).astype(np.float32)
    await exact.put(*(entry(f"m{i:04}", vector) for i, vector in enumerate(vectors)))

    assert (await exact.found(vectors[123]))[0] == "m0123"


async def test_exact_ranks_a_vector_without_direction_last(exact: Store) -> None:
    await exact.put(entry("zero", (0.0, 0.0, 0.0)), entry("near", NORTH_EAST))

    assert await exact.found(EAST) == ["near", "zero"]


async def test_exact_refuses_stored_vectors_of_mixed_length(exact: Store) -> None:
    await exact.put(entry("a", EAST))
    assert await exact.found(EAST) == ["a"]

    await exact.put(entry("b", (1.0, 0.0)))

    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="reindex --embed"):
            await exact.found(EAST)
    await exact.index.drop("main")
    with pytest.raises(StorageUnavailable, match="reindex --embed"):
        await exact.found(EAST)


async def test_chroma_keeps_the_newest_of_one_batch(chroma: Store) -> None:
    await chroma.index.upsert(
        "main", [entry("a", EAST, version=1), entry("a", UP, version=3), entry("b", EAST)]
    )

    assert await chroma.index.versions("main") == {"a": 3, "b": 1}


async def test_chroma_keeps_what_was_written_when_it_is_closed(
    chroma: Store, tmp_path: Path
) -> None:
    await chroma.put(entry("a", EAST))
    await chroma.index.aclose()
    await chroma.index.aclose()

    again = ChromaIndex(open_chroma(tmp_path / "chroma"), MODEL)
    kept = await again.versions("main")
    await again.aclose()

    assert kept == {"a": 1}


async def test_chroma_ends_a_write_whose_caller_is_stopped(chroma: Store, tmp_path: Path) -> None:
    entries = [entry(f"m{i:04}", (1.0, i / 500)) for i in range(500)]
    writing = asyncio.create_task(chroma.index.upsert("main", entries))
    await asyncio.sleep(0)  # it has begun

    writing.cancel()
    await asyncio.wait([writing])

    assert writing.cancelled()
    assert len(await chroma.index.versions("main")) == 500
    assert not (tmp_path / "chroma" / WRITING).exists()


async def test_chroma_refuses_work_when_it_is_closed(chroma: Store) -> None:
    await chroma.index.aclose()

    with pytest.raises(StorageUnavailable, match="closed"):
        await chroma.found(EAST)


async def test_chroma_takes_more_than_it_takes_at_once(chroma: Store) -> None:
    entries = [entry(f"m{i:04}", (1.0, i / 6000)) for i in range(6000)]

    await chroma.index.upsert("main", entries)
    await chroma.index.delete("main", [one.memory_id for one in entries[1:]])

    assert await chroma.index.versions("main") == {"m0000": 1}


def files_of_vectors(folder: Path) -> int:
    return sum(path.is_dir() for path in folder.iterdir())


async def test_chroma_keeps_no_file_of_a_persona_whose_memories_are_all_deleted(
    chroma: Store, tmp_path: Path
) -> None:
    await chroma.put(
        entry("a", EAST), entry("b", UP, visibility="public"), entry("c", NORTH, "tom")
    )
    await chroma.found(EAST)
    assert files_of_vectors(tmp_path / "chroma") == 3

    await chroma.remove("a", "b")

    assert files_of_vectors(tmp_path / "chroma") == 1
    assert await chroma.found(EAST) == []
    assert await chroma.found(EAST, "tom") == ["c"]
    await chroma.put(entry("a", EAST))
    assert await chroma.found(EAST) == ["a"]


async def test_chroma_keeps_no_file_of_a_world_that_is_dropped(
    chroma: Store, tmp_path: Path
) -> None:
    await chroma.put(entry("a", EAST), entry("b", UP, "tom", "public"))
    (tmp_path / "chroma" / "notes").mkdir()

    await chroma.index.drop("main")

    assert [path.name for path in (tmp_path / "chroma").iterdir() if path.is_dir()] == ["notes"]
    assert await chroma.index.worlds() == set()


async def test_chroma_deletes_what_another_embedder_has_embedded_too(
    chroma: Store, tmp_path: Path
) -> None:
    await chroma.put(entry("a", EAST), entry("b", EAST))
    other = ChromaIndex(chroma.index._home, "model-2")  # type: ignore[attr-defined]
    await other.upsert("main", [entry("a", NORTH), entry("b", NORTH)])

    await chroma.remove("a")
    assert await other.versions("main") == {"b": 1}

    await chroma.index.drop("main")
    assert await other.worlds() == set()
    assert files_of_vectors(tmp_path / "chroma") == 0


async def test_what_a_deletion_could_not_remove_goes_when_the_folder_is_opened(
    chroma: Store, tmp_path: Path
) -> None:
    await chroma.put(entry("a", EAST))
    await chroma.index.aclose()
    left = tmp_path / "chroma" / str(uuid.uuid4())
    left.mkdir()

    again = ChromaIndex(open_chroma(tmp_path / "chroma"), MODEL)

    assert not left.exists()
    assert await again.versions("main") == {"a": 1}
    await again.aclose()


async def test_a_search_and_the_deletion_of_all_that_it_would_find_may_run_at_once(
    chroma: Store,
) -> None:
    for number in range(5):
        await chroma.put(entry(f"m{number}", EAST))

        found, _ = await asyncio.gather(chroma.found(EAST), chroma.remove(f"m{number}"))

        assert found in ([], [f"m{number}"])


async def test_a_collection_that_goes_while_it_is_searched_has_nothing(chroma: Store) -> None:
    await chroma.put(entry("a", EAST), entry("b", EAST, "tom", "public"))
    assert await chroma.found(EAST) == ["a", "b"]

    client = chroma.index._home.client()  # type: ignore[attr-defined]
    client.delete_collection(collection_name("main", MODEL, "mara"))

    assert await chroma.found(EAST) == ["b"]


def test_collections_are_named_after_world_model_and_owner() -> None:
    world = ("main", "minilm-l6-int8-384")

    assert collection_name(*world, "aria") == "w-main.minilm-l6-int8-384.p-aria"
    assert collection_name(*world, None) == "w-main.minilm-l6-int8-384.open"
    assert collection_name(*world, "open") == "w-main.minilm-l6-int8-384.p-open"
    assert collection_name(*world, "aria", "x") == "x.w-main.minilm-l6-int8-384.p-aria"


@pytest.mark.parametrize("world_id", ["w" * 600, "größe", "a b", "a/b", "main"])
@pytest.mark.parametrize("owner", ["Zoë-", "mara", None])
def test_names_that_chroma_refuses_are_replaced_and_stay_different(
    world_id: str, owner: str | None
) -> None:
    name = collection_name(world_id, "model-", owner)

    assert name != collection_name(world_id + "2", "model-", owner)
    assert name != collection_name(world_id, "model-", "other-")
    assert 3 <= len(name) <= 512
    assert name[0].isalnum()
    assert name[-1].isalnum()
    assert name.isascii()


async def test_chroma_gives_no_more_to_others_what_is_private_now(chroma: Store) -> None:
    await chroma.put(entry("a", EAST, visibility="public"), entry("b", NORTH, visibility="shared"))
    assert await chroma.found(EAST, "tom") == ["a", "b"]

    await chroma.put(entry("a", EAST, version=2))

    assert await chroma.found(EAST, "tom") == ["b"]
    assert await chroma.found(EAST, "mara") == ["a", "b"]
    hits = await chroma.index.search("main", np.asarray(EAST, dtype=np.float32), "tom", 10)
    assert [hit.memory_id for hit in hits] == ["b"]


async def test_chroma_finds_every_shelf_again(tmp_path: Path) -> None:
    for again in range(2):
        index = ChromaIndex(open_chroma(tmp_path / "chroma"), MODEL)
        if not again:
            await index.upsert("main", [entry("a", EAST), entry("b", UP, "tom", "public")])
            await index.upsert("other", [entry("c", EAST)])
        found = [
            [hit.memory_id for hit in await index.search("main", np.asarray(EAST), reader, 10)]
            for reader in ("mara", "tom", "ann")
        ]

        assert found == [["a", "b"], ["b"], ["b"]]
        assert await index.versions("main") == {"a": 1, "b": 1}
        await index.aclose()


async def full_folder(path: Path) -> Path:
    """Write so many rows that Chroma puts its graph on disk; return the segment's folder."""
    index = ChromaIndex(open_chroma(path), MODEL)
    await index.upsert("main", [entry(f"m{i:04}", (1.0, i / 1000)) for i in range(1100)])
    await index.aclose()
    assert damage(path) is None
    return next(inside for inside in path.iterdir() if inside.is_dir())


FILES = (
    *("data_level0.bin", "length.bin", "header.bin", "link_lists.bin"),
    "index_metadata.pickle",
)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwritten(file: Path) -> None:
    file.write_bytes(random.Random(1).randbytes(file.stat().st_size))


@pytest.mark.parametrize("spoil", [cut, overwritten, Path.unlink])
@pytest.mark.parametrize("file", FILES)
async def test_a_file_that_was_changed_while_the_folder_was_closed_is_noticed(
    tmp_path: Path, file: str, spoil: Callable[[Path], None]
) -> None:
    segment = await full_folder(tmp_path / "chroma")

    spoil(segment / file)

    assert str(damage(tmp_path / "chroma")).startswith("a file ")
    with pytest.raises(StorageUnavailable, match="in the folder of the dense index, a file "):
        open_chroma(tmp_path / "chroma")


@pytest.mark.parametrize("spoil", [cut, overwritten, Path.unlink])
@pytest.mark.parametrize("file", FILES)
async def test_a_file_that_has_lost_its_shape_is_noticed_after_a_crash_too(
    tmp_path: Path, file: str, spoil: Callable[[Path], None]
) -> None:
    segment = await full_folder(tmp_path / "chroma")
    (tmp_path / "chroma" / SEAL).unlink()
    assert damage(tmp_path / "chroma") is None
    if (file, spoil) == ("length.bin", overwritten):
        pytest.skip("any numbers are lengths")

    spoil(segment / file)

    assert damage(tmp_path / "chroma") == "vectors are missing or damaged"


async def test_a_folder_is_sealed_while_it_is_closed_alone(tmp_path: Path) -> None:
    await full_folder(tmp_path / "chroma")
    seal = tmp_path / "chroma" / SEAL
    assert seal.exists()

    index = ChromaIndex(open_chroma(tmp_path / "chroma"), MODEL)
    assert not seal.exists()
    await index.upsert("main", [entry("new", (0.5, 0.5))])
    await index.aclose()

    assert seal.exists()
    assert damage(tmp_path / "chroma") is None


async def test_a_record_that_was_emptied_is_noticed(tmp_path: Path) -> None:
    await full_folder(tmp_path / "chroma")

    (tmp_path / "chroma" / "chroma.sqlite3").write_bytes(b"")

    assert damage(tmp_path / "chroma") == "a file was changed"


async def test_a_folder_that_was_copied_is_as_good_as_it_was(tmp_path: Path) -> None:
    await full_folder(tmp_path / "chroma")

    shutil.copytree(tmp_path / "chroma", tmp_path / "copy", copy_function=shutil.copyfile)

    assert damage(tmp_path / "copy") is None
    for told in ("{", "[]", '{"chroma.sqlite3": 5}'):
        (tmp_path / "copy" / SEAL).write_text(told)
        assert damage(tmp_path / "copy") == "the seal cannot be read"


async def test_a_write_that_was_cut_off_is_noticed(tmp_path: Path) -> None:
    await full_folder(tmp_path / "chroma")

    (tmp_path / "chroma" / WRITING).touch()

    assert damage(tmp_path / "chroma") == "a write was cut off"


async def test_a_missing_record_is_noticed(tmp_path: Path) -> None:
    await full_folder(tmp_path / "chroma")

    (tmp_path / "chroma" / "chroma.sqlite3").unlink()

    assert damage(tmp_path / "chroma") == "the record is missing"


def test_a_folder_that_is_not_there_or_empty_is_not_damaged(tmp_path: Path) -> None:
    assert damage(tmp_path / "nothing") is None
    assert damage(tmp_path) is None
