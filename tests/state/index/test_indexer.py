import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sqlalchemy import delete, insert, update
from structlog.testing import capture_logs

from persona_mcp.config.database import open_database
from persona_mcp.config.settings import Settings
from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Vector, pack, unpack
from persona_mcp.state.errors import InvalidParams, ModelError, PersonaError
from persona_mcp.state.index.exact import ExactIndex
from persona_mcp.state.index.indexer import Indexer, IndexerLimits
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.index.vector_index import VectorIndex
from persona_mcp.state.index.work import Vectors
from persona_mcp.state.memory.changes import MemoryChanges
from tests.doubles import FickleEmbedder, FixedClock
from tests.state.rows import NOW, PROCESS, new_memory, nobody_is_gone, remember, rows_of

pytestmark = pytest.mark.anyio

M, O, V = tables.Memory, tables.OutboxEntry, tables.MemoryVector  # noqa: E741
MODEL = "double-64"
LIMITS = IndexerLimits(batch=4, claim_s=30.0, poll_s=0.01, attempts=3)
OTHER = "host-2"
GIVE_UP_S = 5.0
Make = Callable[..., Indexer]
DOWN = ModelError("the embedder did not answer")


@pytest.fixture
def embedder() -> FickleEmbedder:
    return FickleEmbedder()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW + 1)


def synced(database: Database, index: VectorIndex | None = None) -> SyncedIndex:
    index = index or ExactIndex(database, MODEL, 8)
    return SyncedIndex(database, index, MODEL, LIMITS.batch)


@pytest.fixture
def make(database: Database, world: str, embedder: FickleEmbedder, clock: FixedClock) -> Make:
    def made(
        index: VectorIndex | None = None,
        process: str = PROCESS,
        is_gone: Callable[[str], bool] = nobody_is_gone,
        database: Database = database,
    ) -> Indexer:
        return Indexer(database, synced(database, index), embedder, LIMITS, process, is_gone, clock)

    return made


async def embedded(database: Database) -> list[str]:
    return [row.memory_id for row in await rows_of(database, V, V.memory_id)]


async def waiting(database: Database) -> list[tuple[str, int, str | None]]:
    return [
        (row.memory_id, row.attempts, row.claimed_by) for row in await rows_of(database, O, O.seq)
    ]


async def work_off_all(indexer: Indexer) -> int:
    done = 0
    while number := await indexer.work_off():
        done += number
    return done


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        while not condition():
            await asyncio.sleep(0.002)


async def try_often(indexer: Indexer, times: int = 20) -> None:
    for _ in range(times):
        try:
            await indexer.work_off()
        except PersonaError:
            continue


async def test_the_outbox_is_worked_off_in_batches(
    database: Database, make: Make, embedder: FickleEmbedder
) -> None:
    for number in range(6):
        await remember(database, f"m{number}", f"The harbour froze {number} times.")
    indexer = make()
    assert await indexer.pending() == 6

    assert [await indexer.work_off() for _ in range(3)] == [4, 2, 0]

    assert await embedded(database) == [f"m{n}" for n in range(6)]
    assert await waiting(database) == []
    assert await indexer.pending() == 0
    (first, *_) = await rows_of(database, V, V.seq)
    assert (first.model_id, first.persona_id, first.version) == (MODEL, "mara", 1)
    wanted = await embedder.embed_query("[14 November 2023] Ann: The harbour froze 0 times.")
    np.testing.assert_allclose(unpack(first.vector), wanted, atol=1e-3)


async def test_rows_that_another_process_has_claimed_are_left_until_the_claim_ends(
    database: Database, make: Make, clock: FixedClock
) -> None:
    await remember(database, "m1", "The harbour froze.")
    with database.writing() as connection:
        claim = {"claimed_by": OTHER, "claimed_until": NOW + 20, "attempts": 1}
        connection.execute(update(O).values(claim))

    assert await make().work_off() == 0
    clock.advance(20)
    assert await make().work_off() == 1


async def test_rows_that_a_dead_process_has_claimed_are_free(
    database: Database, make: Make
) -> None:
    await remember(database, "m1", "The harbour froze.")
    with database.writing() as connection:
        connection.execute(update(O).values(claimed_by=OTHER, claimed_until=NOW + 1000))

    assert await make(is_gone=lambda owner: owner == OTHER).work_off() == 1
    assert await embedded(database) == ["m1"]


async def test_two_processes_share_the_outbox(
    settings: Settings, database: Database, make: Make
) -> None:
    for number in range(20):
        await remember(database, f"m{number:02}", f"The harbour froze {number} times.")
    second = open_database(settings)
    other = make(ExactIndex(second, MODEL, 8), OTHER, database=second)

    await asyncio.gather(work_off_all(make()), work_off_all(other))

    await second.aclose()
    assert await embedded(database) == [f"m{n:02}" for n in range(20)]
    assert await waiting(database) == []


async def test_two_that_have_one_worker_work_off_embed_each_memory_once(
    database: Database, make: Make, embedder: FickleEmbedder
) -> None:
    indexer = make()
    await remember(database, "m1", "The harbour froze.")

    done = await asyncio.gather(indexer.work_off(), indexer.work_off())

    assert sorted(done) == [0, 1]
    assert len(embedder.embedded) == 1
    assert await waiting(database) == []


async def test_an_embedder_that_does_not_answer_uses_no_attempt_up(
    database: Database, make: Make, embedder: FickleEmbedder
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await remember(database, "m2", "The harbour thawed.")
    embedder.fault = DOWN
    indexer = make()
    for _ in range(LIMITS.attempts + 2):
        with pytest.raises(ModelError):
            await indexer.work_off()

    assert await waiting(database) == [("m1", 0, None), ("m2", 0, None)]
    assert {row.last_error for row in await rows_of(database, O)} == {DOWN.message}
    embedder.fault = None
    assert await indexer.work_off() == 2


@pytest.mark.parametrize(
    "fault",
    [
        InvalidParams("not a text"),
        ModelError("it refused", status=400),
        ModelError("big", status=413),
    ],
)
async def test_a_row_that_cannot_be_embedded_is_given_up_and_holds_up_no_other(
    database: Database, make: Make, embedder: FickleEmbedder, fault: PersonaError
) -> None:
    for id, content in (("m1", "fine"), ("m2", "poison"), ("m3", "fine"), ("m4", "fine")):
        await remember(database, id, content)
    embedder.poison, embedder.fault = "poison", fault
    indexer = make()

    await try_often(indexer)
    await remember(database, "m5", "fine")
    await try_often(indexer)

    assert await embedded(database) == ["m1", "m3", "m4", "m5"]
    assert await waiting(database) == [("m2", LIMITS.attempts, None)]
    assert await indexer.pending() == 0


async def test_a_defect_in_the_embedder_is_logged_and_its_row_is_given_up(
    database: Database, make: Make, embedder: FickleEmbedder
) -> None:
    await remember(database, "m1", "poison")
    await remember(database, "m2", "fine")
    embedder.poison, embedder.fault = "poison", RuntimeError("a bug")
    indexer = make()

    with capture_logs() as logs:
        worker = asyncio.create_task(indexer.run())
        async with asyncio.timeout(GIVE_UP_S):
            while await waiting(database) != [("m1", LIMITS.attempts, None)]:
                await asyncio.sleep(0.005)
        worker.cancel()
        await asyncio.wait([worker])

    assert await embedded(database) == ["m2"]
    (row,) = await rows_of(database, O)
    assert row.last_error == "RuntimeError"
    assert {entry["event"] for entry in logs} == {"outbox failed"}


async def test_the_worker_waits_for_an_embedder_that_is_down(
    database: Database, make: Make, embedder: FickleEmbedder
) -> None:
    await remember(database, "m1", "The harbour froze.")
    embedder.fault = DOWN
    indexer = make()

    with capture_logs() as logs:
        worker = asyncio.create_task(indexer.run())
        await until(lambda: len(logs) >= 2)
        embedder.fault = None
        await until(lambda: embedder.embedded != [])
        await remember(database, "m2", "The harbour thawed.")
        indexer.wake()
        await until(lambda: len(embedder.embedded) == 2)
        worker.cancel()
        await asyncio.wait([worker])

    assert {(entry["event"], entry.get("code")) for entry in logs} == {
        ("outbox waits", "llm_error")
    }


async def test_a_doubled_row_of_the_outbox_does_no_harm(database: Database, make: Make) -> None:
    await remember(database, "m1", "The harbour froze.")
    with database.writing() as connection:
        again = {"memory_id": "m1", "operation": "upsert", "version": 1, "created_at": NOW}
        connection.execute(insert(O).values(world_id="main", **again))

    assert await make().work_off() == 2

    assert await embedded(database) == ["m1"]
    assert await waiting(database) == []


async def test_a_memory_that_is_gone_before_it_is_embedded_leaves_no_vector(
    database: Database, make: Make
) -> None:
    await remember(database, "m1", "The harbour froze.")
    with database.writing() as connection:
        connection.execute(delete(M))

    assert await make().work_off() == 1
    assert await embedded(database) == []
    assert await waiting(database) == []


@pytest.mark.parametrize("change", [delete(M), update(M).values(version=2)])
async def test_a_memory_that_changes_while_it_is_embedded_gets_no_old_vector(
    database: Database, make: Make, embedder: FickleEmbedder, change: object
) -> None:
    await remember(database, "m1", "The harbour froze.")
    embed = embedder.embed_documents

    class Slow(FickleEmbedder):
        async def embed_documents(self, texts: Sequence[str]) -> Vector:
            with database.writing() as connection:
                connection.execute(change)  # type: ignore[call-overload]
            return await embed(texts)

    indexer = Indexer(
        database,
        synced(database),
        Slow(),
        LIMITS,
        PROCESS,
        nobody_is_gone,
        FixedClock(NOW + 1),
    )

    assert await indexer.work_off() == 1
    assert await embedded(database) == []


async def test_the_same_id_in_two_worlds_is_two_memories(database: Database, make: Make) -> None:
    with database.writing() as connection:
        other = {"id": "other", "name": "other", "created_at": NOW}
        connection.execute(insert(tables.World).values(other))
    await remember(database, "m1", "The harbour froze.")
    await remember(database, "m1", "A dog barked.", world_id="other")
    await remember(database, "m2", "A cat slept.", world_id="other")

    assert await make().work_off() == 3

    rows = await rows_of(database, V, V.world_id, V.memory_id)
    assert [(r.world_id, r.memory_id) for r in rows] == [
        ("main", "m1"),
        ("other", "m1"),
        ("other", "m2"),
    ]


async def test_a_reindex_that_was_stopped_goes_on_where_it_stopped(
    database: Database, make: Make, embedder: FickleEmbedder
) -> None:
    for number in range(10):
        await remember(database, f"m{number}", f"The harbour froze {number} times.")
    indexer = make()
    told: list[tuple[int, int]] = []

    def stop(done: int, of: int) -> None:
        told.append((done, of))
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await indexer.reindex("main", stop)
    first = list(embedder.embedded)
    count = await indexer.reindex("main", lambda done, of: told.append((done, of)))

    assert count == 10
    assert told == [(0, 10), (4, 10), (0, 6), (4, 6), (6, 6)]
    assert (len(first), len(embedder.embedded)) == (4, 10)
    assert await waiting(database) == []


async def test_a_reindex_takes_up_what_was_given_up(
    database: Database, make: Make, embedder: FickleEmbedder
) -> None:
    await remember(database, "m1", "poison")
    embedder.poison, embedder.fault = "poison", InvalidParams("not a text")
    indexer = make()
    await try_often(indexer)
    embedder.fault = None

    assert await indexer.reindex("main", lambda *_: None) == 1
    assert await waiting(database) == []


async def test_an_index_that_does_not_answer_does_not_stop_the_embedding(
    database: Database, make: Make, chroma: VectorIndex
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await chroma.aclose()
    indexer = make(chroma)

    with capture_logs() as logs:
        worker = asyncio.create_task(indexer.run())
        async with asyncio.timeout(GIVE_UP_S):
            while await indexer.pending():
                await asyncio.sleep(0.002)
        indexer.stop()
        await worker

    assert await embedded(database) == ["m1"]
    assert "the dense index is closed" in str(logs)


async def test_the_index_follows_what_another_process_embeds_though_nobody_searches_it(
    database: Database, make: Make, chroma: VectorIndex, embedder: FickleEmbedder
) -> None:
    others = [f"m{number}" for number in range(LIMITS.batch)]
    text = new_memory("m1", "The harbour thawed.").indexed_text(NOW)
    (vector,) = await embedder.embed_documents([text])
    with_it = Vectors(MODEL, {text: pack(vector)})
    indexer = make(chroma)

    async def until_it_has(expected: Sequence[str]) -> None:
        async with asyncio.timeout(GIVE_UP_S):
            while set(await chroma.versions("main")) != set(expected):
                await asyncio.sleep(0.002)

    worker = asyncio.create_task(indexer.run())
    await remember(database, "ours", "The harbour froze.")
    await until_it_has(["ours"])
    for id in others:
        await remember(database, id, "The harbour thawed.", vectors=with_it)
    await until_it_has(["ours", *others])
    indexer.stop()
    await worker

    assert await waiting(database) == []


async def test_work_to_forget_is_left_by_the_embedding_and_by_a_reindex(
    database: Database, make: Make, chroma: VectorIndex
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await remember(database, "m2", "The harbour thawed.")
    beside = make()
    await work_off_all(beside)
    await MemoryChanges(database).delete("main", ["m1"], purge=False, dry_run=False, now=NOW)

    assert (await beside.pending(), await beside.work_off()) == (0, 0)
    assert await beside.reindex("main", lambda *_: None) == 1

    assert [(id, claimed) for id, _, claimed in await waiting(database)] == [("m1", None)]


async def test_a_reindex_can_compute_every_vector_anew(
    database: Database, make: Make, chroma: VectorIndex, embedder: FickleEmbedder
) -> None:
    for number in range(5):
        await remember(database, f"m{number}", "The harbour froze.")
    indexer = make(chroma)
    await work_off_all(indexer)
    before = [row.seq for row in await rows_of(database, V)]
    await chroma.delete("main", ["m1"])

    again = await indexer.reindex("main", lambda *_: None)
    kept = [row.seq for row in await rows_of(database, V)]
    anew = await indexer.reindex("main", lambda *_: None, embed=True)

    assert (again, anew, kept) == (5, 5, before)
    assert min(row.seq for row in await rows_of(database, V)) > max(before)
    assert len(embedder.embedded) == 10
    assert len(await chroma.versions("main")) == 5


async def test_a_reindex_leaves_the_work_that_is_written_meanwhile(
    database: Database, make: Make
) -> None:
    await remember(database, "m1", "The harbour froze.")
    newer = {"memory_id": "m1", "operation": "upsert", "version": 2, "created_at": NOW}
    embedder_started = asyncio.Event()

    class Meanwhile(FickleEmbedder):
        async def embed_documents(self, texts: Sequence[str]) -> Vector:
            embedder_started.set()
            with database.writing() as connection:
                connection.execute(insert(O).values(world_id="main", **newer))
            return await super().embed_documents(texts)

    indexer = Indexer(
        database,
        synced(database),
        Meanwhile(),
        LIMITS,
        PROCESS,
        nobody_is_gone,
        FixedClock(NOW + 1),
    )

    await indexer.reindex("main", lambda *_: None)

    assert embedder_started.is_set()
    assert [row.version for row in await rows_of(database, O)] == [2]
