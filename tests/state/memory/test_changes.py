"""Stored memories changed, deleted and put in: each in one transaction, with work for the index."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import unpack
from persona_mcp.state.errors import Conflict, NotFound
from persona_mcp.state.index.exact import ExactIndex
from persona_mcp.state.index.indexer import Indexer, IndexerLimits
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.index.work import KEPT_S, hide
from persona_mcp.state.memory.changes import Change, MemoryChanges
from persona_mcp.state.memory.memories import search_words
from persona_mcp.state.memory.memory import NewMemory, WholeMemory
from persona_mcp.state.memory.store import MemoryStore
from persona_mcp.state.memory.uses import add_uses
from tests.doubles import WordEmbedder
from tests.state.rows import NOW, PROCESS, nobody_is_gone, remember, rows_of

pytestmark = pytest.mark.anyio

M, O, V = tables.Memory, tables.OutboxEntry, tables.MemoryVector  # noqa: E741
LATER = NOW + 60


@pytest.fixture
async def changes(database: Database, world: str) -> MemoryChanges:
    await remember(database, "m1", "The harbour froze.")
    return MemoryChanges(database)


@pytest.fixture
def indexer(database: Database) -> Indexer:
    index = SyncedIndex(database, ExactIndex(database, "double-64", 8), "double-64", 4)
    limits = IndexerLimits(batch=4, claim_s=30.0, poll_s=0.01, attempts=3)
    embedder = WordEmbedder()
    return Indexer(database, index, embedder, limits, PROCESS, nobody_is_gone, lambda: LATER)


async def work(database: Database) -> list[tuple[str, str, int]]:
    return [(r.memory_id, r.operation, r.version) for r in await rows_of(database, O, O.seq)]


async def found(database: Database, query: str) -> int:
    with database.reading() as connection:
        return len(search_words(connection, query, "main", "mara", 10))


async def read(database: Database, id: str = "m1") -> WholeMemory:
    return await MemoryStore(database).get("main", id)


async def test_a_changed_text_is_found_and_the_old_one_is_kept_as_a_revision(
    database: Database, changes: MemoryChanges, indexer: Indexer
) -> None:
    await indexer.work_off()
    (before,) = await rows_of(database, V)

    done = await changes.update("main", "m1", Change(content="The lake thawed."), None, LATER)

    assert done == (2, ("content",))
    whole = await read(database)
    assert whole.memory.indexed_text == "[14 November 2023] Ann: The lake thawed."
    assert (whole.memory.version, whole.memory.updated_at) == (2, LATER)
    (revision,) = whole.revisions
    assert (revision.version, revision.replaced_at) == (1, LATER)
    assert revision.before == {"content": "The harbour froze."}
    assert (await found(database, "lake"), await found(database, "harbour")) == (1, 0)
    assert await work(database) == [("m1", "upsert", 2)]
    await indexer.work_off()
    (after,) = await rows_of(database, V)
    assert (after.version, after.seq > before.seq) == (2, True)
    wanted = await WordEmbedder().embed_query(whole.memory.indexed_text)
    assert unpack(after.vector) == pytest.approx(wanted, abs=1e-3)


async def test_every_field_is_changed_and_kept(database: Database, changes: MemoryChanges) -> None:
    change = Change(
        content="It thawed.",
        memory_type="fact",
        importance=0.9,
        visibility="shared",
        related_personas=("tobin",),
        metadata={"a": [1]},
        pinned=True,
        archived=True,
    )

    version, changed = await changes.update("main", "m1", change, 1, LATER)

    assert (version, set(changed)) == (2, set(vars(change)))
    whole = await read(database)
    assert whole.memory.importance == 0.9
    assert (whole.importance_terms, whole.details) == ({}, {"a": [1]})
    assert (whole.memory.visibility, whole.memory.related_personas) == ("shared", ("tobin",))
    assert (whole.memory.pinned, whole.memory.archived_at) == (True, LATER)
    assert whole.revisions[0].before == {
        "content": "The harbour froze.",
        "memory_type": "conversation",
        "importance": 0.5,
        "importance_terms": {"base": 0.5},
        "visibility": "private",
        "related_personas": [],
        "metadata": {},
        "pinned": False,
        "archived": False,
    }


@pytest.mark.parametrize(
    "change",
    [
        Change(),
        Change(content="The harbour froze.", importance=0.5, pinned=False, archived=False),
        Change(related_personas=(), metadata={}),
    ],
)
async def test_a_change_to_what_is_already_so_is_none(
    database: Database, changes: MemoryChanges, change: Change
) -> None:
    assert await changes.update("main", "m1", change, None, LATER) == (1, ())

    whole = await read(database)
    assert (whole.memory.updated_at, whole.revisions) == (NOW, ())
    assert await work(database) == [("m1", "upsert", 1)]


async def test_hearsay_is_corrected_and_stays_hearsay(
    database: Database, changes: MemoryChanges
) -> None:
    await remember(database, "told", "Tom sold the boat.", memory_type="hearsay")

    with pytest.raises(Conflict, match="stays hearsay"):
        await changes.update("main", "told", Change(memory_type="fact"), None, NOW)
    same = Change(memory_type="hearsay", content="Tom lent the boat.")
    assert await changes.update("main", "told", same, None, NOW) == (2, ("content",))


async def test_true_is_not_taken_for_1(database: Database, changes: MemoryChanges) -> None:
    await changes.update("main", "m1", Change(metadata={"a": [1]}), None, LATER)

    assert await changes.update("main", "m1", Change(metadata={"a": [True]}), None, LATER) == (
        3,
        ("metadata",),
    )


async def test_a_change_of_another_version_is_refused(
    database: Database, changes: MemoryChanges
) -> None:
    with pytest.raises(Conflict, match="has version 1, not 2: it was changed meanwhile"):
        await changes.update("main", "m1", Change(pinned=True), 2, LATER)
    with pytest.raises(NotFound, match="memory 'm9'"):
        await changes.update("main", "m9", Change(pinned=True), None, LATER)

    assert not (await read(database)).memory.pinned


async def test_of_changes_at_once_to_one_version_one_is_made(
    database: Database, changes: MemoryChanges
) -> None:
    done = await asyncio.gather(
        *(
            changes.update("main", "m1", Change(content=f"It froze {n} times."), 1, LATER)
            for n in range(5)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(one, Conflict) for one in done) == 4
    whole = await read(database)
    assert (whole.memory.version, len(whole.revisions)) == (2, 1)


async def test_a_change_while_the_memory_is_embedded_is_embedded_after_it(
    database: Database, changes: MemoryChanges, indexer: Indexer
) -> None:
    with database.writing() as connection:  # as the worker does when it claims
        connection.execute(update(O).values(claimed_by=PROCESS, claimed_until=LATER + 9))

    await changes.update("main", "m1", Change(pinned=True), None, LATER)

    assert await indexer.work_off() == 1
    assert [(row.memory_id, row.version) for row in await rows_of(database, V)] == [("m1", 2)]


async def test_what_is_archived_is_not_found_until_it_is_restored(
    database: Database, changes: MemoryChanges
) -> None:
    deleted = await changes.delete("main", ["m1"], purge=False, dry_run=False, now=LATER)
    assert (deleted.deleted, await found(database, "harbour")) == (("m1",), 0)
    assert await changes.update("main", "m1", Change(content="It froze."), None, LATER) == (
        3,
        ("content",),
    )
    assert await work(database) == [("m1", "upsert", 1), ("m1", "delete", 2)]

    await changes.update("main", "m1", Change(archived=False), None, LATER)

    assert await found(database, "froze") == 1
    assert (await work(database))[-1] == ("m1", "upsert", 4)
    befores = [revision.before for revision in (await read(database)).revisions]
    assert befores == [{"archived": False}, {"content": "The harbour froze."}, {"archived": True}]


async def test_a_purge_takes_everything_of_a_memory_and_nothing_of_others(
    database: Database, changes: MemoryChanges, indexer: Indexer
) -> None:
    await remember(database, "m2", "The harbour thawed.")
    while await indexer.work_off():
        pass
    for id in ("m1", "m2"):
        await changes.update("main", id, Change(importance=0.9), None, LATER)
    await database.write(add_uses, "main", ["m1", "m2"], "c1", "x1", NOW)

    deleted = await changes.delete("main", ["m9", "m1", "m1"], purge=True, dry_run=False, now=LATER)

    assert (deleted.deleted, deleted.archived, deleted.not_found) == (("m1",), (), ("m9",))
    for table in (
        tables.MemoryWitness,
        tables.MemoryUse,
        tables.MemoryRevision,
        tables.MemoryVector,
    ):
        rows: list[Any] = await rows_of(database, table)
        assert {row.memory_id for row in rows} == {"m2"}, table
    assert [row.id for row in await rows_of(database, M)] == ["m2"]
    assert await work(database) == [("m2", "upsert", 2), ("m1", "delete", 2)]
    assert await found(database, "harbour") == 1
    with pytest.raises(NotFound):
        await read(database)


@pytest.mark.parametrize("purge", [True, False])
async def test_a_dry_run_tells_what_would_be_deleted_and_deletes_nothing(
    database: Database, changes: MemoryChanges, purge: bool
) -> None:
    await remember(database, "old", "Long ago.", values={"archived_at": NOW})
    before = [await rows_of(database, M, M.seq), await work(database)]
    ids = ["old", "m1", "m9"]

    would = await changes.delete("main", ids, purge, dry_run=True, now=LATER)

    assert [await rows_of(database, M, M.seq), await work(database)] == before
    assert would == await changes.delete("main", ids, purge, dry_run=False, now=LATER)
    gone = ("old", "m1") if purge else ("m1",)
    assert (would.deleted, would.archived) == (gone, () if purge else ("old",))


async def test_work_for_an_index_that_nobody_opens_is_not_kept_for_ever(
    database: Database, changes: MemoryChanges
) -> None:
    await database.write(hide, "main", {"m1": 1}, NOW)
    await database.write(hide, "main", {"m2": 1}, NOW + KEPT_S)
    await database.write(hide, "main", {"m3": 1}, NOW + KEPT_S + 1)

    assert [id for id, operation, _ in await work(database) if operation == "delete"] == [
        "m2",
        "m3",
    ]


def document(words: int = 40, parts: int = 3) -> list[NewMemory]:
    return [
        NewMemory(
            id=f"d{number}",
            persona_id="mara",
            content=f"Part {number}.",
            importance=0.4,
            importance_terms={},
            memory_type="fact",
            details={"title": "Logbook", "chunk_words": words},
            heading="Logbook > Winter",
        )
        for number in range(parts)
    ]


async def test_a_document_is_put_in_whole_once(database: Database, changes: MemoryChanges) -> None:
    would = await changes.put_in("main", document(), dry_run=True, now=LATER)
    assert len(await rows_of(database, M)) == 1

    first = await changes.put_in("main", document(), dry_run=False, now=LATER)
    again = await changes.put_in("main", document(), dry_run=False, now=LATER)

    assert would == first
    assert (first.stored, first.known) == (("d0", "d1", "d2"), ())
    assert (again.stored, again.known) == ((), ("d0", "d1", "d2"))
    assert (await read(database, "d1")).memory.indexed_text == "Logbook > Winter: Part 1."
    assert await found(database, "logbook") == 3
    assert len(await work(database)) == 4


async def test_parts_that_were_purged_are_put_in_again_and_archived_ones_stay_so(
    database: Database, changes: MemoryChanges
) -> None:
    await changes.put_in("main", document(), dry_run=False, now=LATER)
    await changes.delete("main", ["d0"], purge=True, dry_run=False, now=LATER)
    await changes.delete("main", ["d1"], purge=False, dry_run=False, now=LATER)
    await changes.update("main", "d2", Change(metadata={}), None, LATER)

    again = await changes.put_in("main", document(), dry_run=False, now=LATER)

    assert (again.stored, again.known, again.archived) == (("d0",), ("d1", "d2"), ("d1",))


async def test_a_document_is_not_put_in_beside_itself_in_parts_of_another_length(
    database: Database, changes: MemoryChanges
) -> None:
    await changes.put_in("main", document(), dry_run=False, now=LATER)

    with pytest.raises(Conflict, match="in parts of 40 words; give chunk_words 40, or purge"):
        await changes.put_in("main", document(80, 4), dry_run=False, now=LATER)

    assert len(await rows_of(database, M)) == 4


async def test_a_document_of_many_parts_is_one_transaction(
    database: Database, changes: MemoryChanges
) -> None:
    done = await asyncio.gather(
        *(changes.put_in("main", document(parts=1200), False, LATER) for _ in range(2))
    )

    assert sorted(len(one.stored) for one in done) == [0, 1200]
    assert len(await rows_of(database, M)) == 1201
    ids = [f"d{n}" for n in range(1200)]
    gone = await changes.delete("main", ids, purge=True, dry_run=False, now=LATER)
    assert len(gone.deleted) == 1200
    assert len(await rows_of(database, M)) == 1
