"""Pruning in SQL: what is planned is what goes, in one transaction, and an undo brings it back."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, delete, insert, select, update

from persona_mcp.config.database import open_sqlite
from persona_mcp.config.settings import Settings
from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import pack
from persona_mcp.state.errors import NotFound
from persona_mcp.state.index.exact import ExactIndex
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.index.vector_index import VectorIndex
from persona_mcp.state.memory.changes import Change, MemoryChanges
from persona_mcp.state.memory.decay_store import DecayStore
from persona_mcp.state.memory.memories import search_words
from persona_mcp.state.memory.params import PruningParams, RetentionParams
from persona_mcp.state.memory.prune_store import PruneStore
from persona_mcp.state.memory.uses import add_uses
from persona_mcp.state.memory.words import statistics
from tests.state.rows import NOW, fill, remember, rows_of

pytestmark = pytest.mark.anyio

M = tables.Memory
HOUR_S = 3600.0
SMALL = PruningParams(target=20, start=25, hard_limit=30)
MODEL = "double-64"


@pytest.fixture
def store(database: Database, world: str) -> PruneStore:
    return PruneStore(database, RetentionParams(), SMALL)


async def archived(database: Database) -> dict[str, tuple[float, str | None]]:
    rows = await rows_of(database, M, M.id)
    return {r.id: (r.archived_at, r.prune_id) for r in rows if r.archived_at is not None}


async def test_a_run_archives_what_was_recommended_and_writes_it_down(
    database: Database, store: PruneStore
) -> None:
    ids = fill(database, 28)
    fill(database, 40, persona_id="tobin")
    plan = await store.plan("main", "mara", NOW, forced=False)

    did, run = await store.prune("main", "mara", NOW, forced=False)

    assert plan.ids == did.ids == ids[:7]
    assert run is not None
    assert (run.before, run.archived, run.faded) == (28, 7, 0)
    assert await archived(database) == dict.fromkeys(ids[:7], (NOW, run.id))
    (audit,) = await rows_of(database, tables.PruneRun)
    assert (audit.id, audit.memory_ids, audit.origin) == (run.id, ids[:7], "asked")
    assert audit.scores == sorted(audit.scores)
    assert audit.params["pruning"]["target"] == 20
    assert audit.importance_archived == pytest.approx(did.importance.mean())
    assert audit.importance_archived < audit.importance_kept


class Interrupted(Database):
    """Has something done between what is read and what is then written."""

    def __init__(self, settings: Settings, between: Callable[[Connection], Any]) -> None:
        super().__init__(open_sqlite(settings))
        self.between = between

    async def write(self, *given: Any, **named: Any) -> Any:
        await super().write(self.between)
        return await super().write(*given, **named)


@pytest.mark.parametrize(
    "since",
    [{"archived_at": NOW - 1}, {"importance": 0.9}, {"pinned": True}, {"active": False}],
)
async def test_what_changes_while_it_is_planned_is_planned_anew(
    settings: Settings, database: Database, world: str, since: dict[str, Any]
) -> None:
    ids = fill(database, 28)
    change = update(M).where(M.id == ids[0]).values(since)

    with closing(Interrupted(settings, lambda connection: connection.execute(change))) as slow:
        store = PruneStore(slow, RetentionParams(), SMALL)
        plan, run = await store.prune("main", "mara", NOW, forced=False)

    assert run is not None
    assert plan.ids == [id for id in ids if id != ids[0]][: run.archived]
    by_run = {row.id for row in await rows_of(database, M) if row.prune_id == run.id}
    assert by_run == set(plan.ids)


async def test_what_is_used_or_leaves_while_it_is_planned_is_seen(
    settings: Settings, database: Database, world: str
) -> None:
    ids = fill(database, 28)

    def use(connection: Connection) -> None:
        add_uses(connection, "main", ids[:1], "c1", "x1", NOW)
        connection.execute(delete(M).where(M.id == ids[-1]))

    with closing(Interrupted(settings, use)) as slow:
        store = PruneStore(slow, RetentionParams(), SMALL)
        plan, _ = await store.prune("main", "mara", NOW, forced=False)

    assert plan.before == 27
    assert plan.ids == ids[1:7]


async def test_what_changes_elsewhere_leaves_the_plan_as_it_was(
    settings: Settings, database: Database, world: str
) -> None:
    ids = fill(database, 28)
    change = update(M).where(M.id == ids[-1]).values(importance=0.1)

    with closing(Interrupted(settings, lambda connection: connection.execute(change))) as slow:
        store = PruneStore(slow, RetentionParams(), SMALL)
        plan, _ = await store.prune("main", "mara", NOW, forced=False)

    assert plan.ids == ids[:7]


async def test_below_the_start_and_within_the_hour_only_force_prunes(
    database: Database, store: PruneStore
) -> None:
    fill(database, 24)
    assert (await store.prune("main", "mara", NOW, forced=False))[1] is None
    fill(database, 20, first=24)
    assert (await store.prune("main", "mara", NOW, forced=False))[1] is not None

    plan, run = await store.prune("main", "mara", NOW + HOUR_S - 1, forced=False)
    assert (run, plan.paused_s, plan.archived) == (None, 1.0, 0)
    plan, run = await store.prune("main", "mara", NOW + HOUR_S - 1, forced=True)
    assert (run is not None, plan.archived) == (True, 8)
    plan, run = await store.prune("main", "mara", NOW + 3 * HOUR_S, forced=False)
    assert (run is not None, plan.paused_s) == (True, 0.0)


async def test_a_run_of_a_time_to_come_begins_no_pause(
    database: Database, store: PruneStore
) -> None:
    fill(database, 44)
    assert (await store.prune("main", "mara", NOW + 720 * HOUR_S, forced=False))[1] is not None
    fill(database, 20, first=44)

    plan, run = await store.prune("main", "mara", NOW, forced=False)
    again, _ = await store.prune("main", "mara", NOW + 1, forced=False)

    assert (run is not None, plan.paused_s) == (True, 0.0)
    assert again.paused_s == HOUR_S - 1


async def test_use_protects_and_counts_once_a_conversation(
    database: Database, store: PruneStore
) -> None:
    ids = fill(database, 28)
    with database.writing() as connection:
        for number in range(3):
            long_ago = NOW - 20 * 86_400.0
            add_uses(connection, "main", ids[:1], "c1", f"x{number}", long_ago + number)
        for number in range(5):
            add_uses(connection, "main", ids[1:2], f"c{number}", f"y{number}", long_ago)
        add_uses(connection, "main", ids[2:3], "c1", "z", NOW - 86_400.0)

    plan = await store.plan("main", "mara", NOW, forced=False)

    columns = plan.weighed.columns
    row = columns.ids.tolist().index(ids[0].encode())
    assert (columns.accesses[row], columns.used_at[row]) == (1.0, NOW - 20 * 86_400.0)
    assert {*ids[1:3]}.isdisjoint(plan.ids)
    assert len(plan.ids) == 7


async def test_an_undo_restores_the_set_exactly_and_once(
    database: Database, store: PruneStore
) -> None:
    fill(database, 40)
    before = await rows_of(database, M, M.id)
    _, run = await store.prune("main", "mara", NOW, forced=False)
    assert run is not None

    undone = await store.undo("main", run.id, NOW + 60)

    assert (undone.archived, undone.restored, undone.memories, undone.again) == (10, 10, 40, False)
    assert await rows_of(database, M, M.id) == before
    again = await store.undo("main", run.id, NOW + 90)
    assert (again.restored, again.again, again.memories) == (0, True, 40)
    (audit,) = await rows_of(database, tables.PruneRun)
    assert (audit.undone_at, audit.restored) == (NOW + 60, 10)
    _, next_run = await store.prune("main", "mara", NOW + 61, forced=False)
    assert next_run is not None
    with pytest.raises(NotFound, match="prune run 'nowhere'"):
        await store.undo("main", "nowhere", NOW)


async def test_an_undo_has_embedded_what_was_written_anew_or_never_was(
    database: Database, store: PruneStore
) -> None:
    first, second, third, *_ = fill(database, 28)
    with database.writing() as connection:
        its = {"world_id": "main", "persona_id": "mara", "model_id": MODEL, "version": 1}
        vector = pack(np.ones(4, dtype=np.float32))
        rows = [{**its, "memory_id": id, "vector": vector} for id in (first, second)]
        connection.execute(insert(tables.MemoryVector), rows)
    _, run = await store.prune("main", "mara", NOW, forced=False)
    assert run is not None
    change = Change(content="A volcano, at midnight.")
    await MemoryChanges(database).update("main", first, change, None, NOW + 1)
    with database.writing() as connection:
        connection.execute(delete(tables.OutboxEntry))

    await store.undo("main", run.id, NOW + 2)

    waiting = await rows_of(database, tables.OutboxEntry, tables.OutboxEntry.seq)
    wanted = {row.memory_id: (row.operation, row.version) for row in waiting}
    assert wanted[first] == ("upsert", 2)
    assert wanted[third] == ("upsert", 1)
    assert second not in wanted
    kept = {r.memory_id: r.version for r in await rows_of(database, tables.MemoryVector)}
    assert kept == {first: 1, second: 1}


async def test_an_undo_leaves_alone_what_others_disposed_since(
    database: Database, store: PruneStore
) -> None:
    ids = fill(database, 28)
    _, run = await store.prune("main", "mara", NOW, forced=False)
    assert run is not None
    with database.writing() as connection:
        mine = update(M).where(M.id == ids[0])
        connection.execute(mine.values(archived_at=None, prune_id=None))
        connection.execute(update(M).where(M.id == ids[1]).values(archived_at=NOW + 5))
        connection.execute(delete(M).where(M.id == ids[2]))

    undone = await store.undo("main", run.id, NOW + 60)

    assert (undone.archived, undone.restored) == (7, 4)
    assert list(await archived(database)) == [ids[1]]


@pytest.mark.sqlite
async def test_a_run_that_fails_leaves_nothing_behind(
    database: Database, store: PruneStore
) -> None:
    fill(database, 28)
    with database.writing() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON prune_runs BEGIN SELECT RAISE(FAIL, 'full'); END"
        )

    with pytest.raises(Exception, match="full"):
        await store.prune("main", "mara", NOW, forced=False)

    assert await archived(database) == {}


async def test_a_share_goes_without_limits_but_with_every_protection(
    database: Database, store: PruneStore
) -> None:
    ids = fill(database, 12)
    fill(database, 4, first=12, pinned=True)

    run = await store.prune_share("main", "mara", 0.5, NOW)

    assert run is not None
    assert list(await archived(database)) == ids[:8]
    assert (await store.prune_share("main", "mara", 1.0, NOW) or run).archived == 4
    assert await store.prune_share("main", "mara", 1.0, NOW) is None
    assert await store.prune_share("main", "tobin", 0.5, NOW) is None


async def test_runs_are_summed_up_from_their_audit(database: Database, store: PruneStore) -> None:
    none = await store.stats("main")
    assert (none.runs, none.archived, none.last_of_all, none.last_runs) == (0, 0, None, {})
    fill(database, 28)
    fill(database, 28, persona_id="tobin")
    _, run = await store.prune("main", "mara", NOW, forced=False)
    await store.prune("main", "tobin", NOW + 1, forced=False, origin="all")
    assert run is not None
    await store.undo("main", run.id, NOW + 2)

    found = await store.stats("main")

    assert (found.runs, found.archived, found.personas, found.undone) == (2, 14, 2, 1)
    assert (found.last_of_all, found.faded, found.upkeep_runs) == (NOW + 1, 0, 0)
    assert found.last_runs == {"mara": NOW, "tobin": NOW + 1}
    assert found.average_s > 0


async def test_archived_memories_leave_every_search_and_come_back(
    database: Database, store: PruneStore, chroma: VectorIndex
) -> None:
    ids = [f"m{number:02}" for number in range(28)]
    for number, id in enumerate(ids):
        old = {"created_at": NOW - 1e7, "importance": 0.2 + number / 100}
        await remember(database, id, f"The harbour froze, {id}.", values=old)
    angles = np.linspace(0.0, 1.0, 28)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    with database.writing() as connection:
        its = {"world_id": "main", "persona_id": "mara", "model_id": MODEL, "version": 1}
        connection.execute(
            insert(tables.MemoryVector),
            [
                {**its, "memory_id": id, "vector": pack(vector)}
                for id, vector in zip(ids, vectors, strict=True)
            ],
        )
    waiting = SyncedIndex(database, chroma, MODEL, 64)
    exact = SyncedIndex(database, ExactIndex(database, MODEL, 8), MODEL, 4)

    async def nearest() -> list[list[str]]:
        found = [await index.search("main", vectors[0], "mara", 3) for index in (waiting, exact)]
        return [[hit.memory_id for hit in hits] for hits in found]

    def words(connection: Connection) -> set[str]:
        found = search_words(connection, "harbour", "main", "mara", 50)
        return set(connection.scalars(select(M.id).where(M.seq.in_(found))))

    assert await nearest() == [ids[:3]] * 2
    _, run = await store.prune("main", "mara", NOW, forced=False)
    assert run is not None
    assert await waiting.forget() == 7
    assert await nearest() == [ids[7:10]] * 2
    assert await database.read(words) == set(ids[7:])
    assert await waiting.reconcile("main") == (0, 0)
    assert sorted(await chroma.versions("main")) == ids[7:]
    fresh = SyncedIndex(database, chroma, MODEL, 64)
    assert await fresh.reconcile("main") == (0, 0)

    await store.undo("main", run.id, NOW + 1)

    assert await nearest() == [ids[:3]] * 2
    assert await database.read(words) == set(ids)
    await waiting.reconcile("main")
    assert sorted(await chroma.versions("main")) == ids


async def test_the_words_of_archived_memories_do_not_upset_the_statistics(
    database: Database, world: str
) -> None:
    for number in range(4):
        gone = {"archived_at": NOW if number else None}
        await remember(database, f"m{number}", "The harbour froze.", values=gone)

    found = await database.read(statistics, "harbour", "main", "mara")

    assert found.memories == found.having["harbour"] == 4


async def importance_of(database: Database) -> dict[str, float]:
    return {row.id: row.importance for row in await rows_of(database, M, M.id)}


async def test_forced_fading_lowers_what_it_may_and_can_be_taken_back(
    database: Database, world: str
) -> None:
    decay = DecayStore(database)
    given: dict[str, dict[str, Any]] = {
        "a": {"importance": 0.5},
        "b": {"importance": 0.105},
        "c": {"importance": 0.05},
        "d": {"importance": 0.8},
        "e": {"importance": 0.5, "pinned": True},
        "f": {"importance": 0.5, "archived_at": NOW},
    }
    for id, values in given.items():
        await remember(database, id, "x", values=values)
    await remember(database, "t", "x", persona_id="tobin", values={"importance": 0.4})
    before = await importance_of(database)
    whom = ["mara", "tobin"]

    dry = await decay.force("main", "d1", whom, 0.1, NOW, dry=True)
    assert (dry.id, dry.personas, dry.processed, dry.decayed) == (None, 2, 6, 3)
    assert await importance_of(database) == before
    done = await decay.force("main", "d1", whom, 0.1, NOW, dry=False)

    assert done.id is not None
    assert (done.processed, done.decayed) == (6, 3)
    changed = {"a": 0.5 * 0.9, "b": 0.1, "t": 0.4 * 0.9}
    assert await importance_of(database) == before | changed
    with database.writing() as connection:
        connection.execute(update(M).where(M.id == "a").values(importance=0.3))
    undone = await decay.undo("main", done.id, NOW + 1)
    assert (undone.personas, undone.decayed, undone.restored, undone.again) == (2, 3, 2, False)
    assert await importance_of(database) == before | {"a": 0.3}
    assert (await decay.undo("main", done.id, NOW + 2)).again
    assert await importance_of(database) == before | {"a": 0.3}
    with pytest.raises(NotFound, match="forced fading 'nowhere'"):
        await decay.undo("main", "nowhere", NOW)


async def test_forced_fading_without_anything_to_lower_writes_nothing(
    database: Database, world: str
) -> None:
    done = await DecayStore(database).force("main", "d1", ["mara"], 0.5, NOW, dry=False)

    assert (done.id, done.decayed) == (None, 0)
    assert await rows_of(database, tables.DecayRun) == []
