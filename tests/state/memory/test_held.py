import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, event, insert, update

from persona_mcp.state.database import Database
from persona_mcp.state.embedding import pack
from persona_mcp.state.index.exact import ExactIndex
from persona_mcp.state.index.indexer import Indexer, IndexerLimits
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.memory.asked import Asked
from persona_mcp.state.memory.held import FAR, IDLE_S, HeldMemories
from persona_mcp.state.memory.memory import ANYTHING
from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.memory.retrieval import Pool, rank
from persona_mcp.state.memory.search import MemorySearch, of_held
from persona_mcp.state.memory.store import Source, add_memories
from persona_mcp.state.personas import PersonaStore
from persona_mcp.state.tables import Memory, MemoryVector
from persona_mcp.state.worlds import remove_world
from tests.doubles import FickleEmbedder, FixedClock
from tests.state.rows import NOW, PROCESS, fill, new_memory, nobody_is_gone, remember, spec

pytestmark = [pytest.mark.anyio, pytest.mark.databases]

LIMITS = IndexerLimits(batch=4, claim_s=30.0, poll_s=0.01, attempts=3)
TEXTS = ("The harbour froze.", "A dog barked at the ice.", "Was it cold?", "Bread, and a lantern.")


@pytest.fixture
def embedder() -> FickleEmbedder:
    return FickleEmbedder()


@pytest.fixture
def index(database: Database, embedder: FickleEmbedder) -> SyncedIndex:
    exact = ExactIndex(database, embedder.model_id, 8)
    return SyncedIndex(database, exact, embedder.model_id, LIMITS.batch)


@pytest.fixture
def indexer(database: Database, index: SyncedIndex, embedder: FickleEmbedder) -> Indexer:
    return Indexer(database, index, embedder, LIMITS, PROCESS, nobody_is_gone, FixedClock(NOW + 1))


def ids_of(pool: Pool) -> list[str]:
    return [pool.ids[row] for row in pool.rows]


class Reader:
    """Asks what is held for Mara."""

    def __init__(
        self, database: Database, embedder: FickleEmbedder, held: HeldMemories | None = None
    ) -> None:
        self.held = held or HeldMemories(100, 100)
        self._database = database
        self._embedder = embedder

    async def asked(self, text: str = "the frozen harbour", **more: Any) -> Asked:
        values: dict[str, Any] = {
            "world_id": "main",
            "reader": "mara",
            "text": text,
            "vector": await self._embedder.embed_query(text),
            "degraded": "",
            "model_id": self._embedder.model_id,
            "limit": 10,
            "shown": (),
            "sought": ANYTHING,
            "withhold": None,
            "params": RetrievalParams(),
        }
        return Asked(**{**values, **more})

    async def taken(self, text: str = "the frozen harbour", **more: Any) -> Pool | None:
        asked = await self.asked(text, **more)
        assert asked.vector is not None
        return await self._database.read(self.held.pool, asked, asked.vector)

    async def found(self, text: str = "the frozen harbour", **more: Any) -> dict[str, Any]:
        """Return cosine and score of the words by id, and whether it may be returned."""
        pool = await self.taken(text, **more)
        assert pool is not None
        dense = (None if math.isnan(one) else one for one in pool.dense.tolist())
        its = zip(dense, pool.lexical.tolist(), pool.wanted.tolist(), strict=True)
        return dict(zip(ids_of(pool), its, strict=True))


@pytest.fixture
def reader(database: Database, embedder: FickleEmbedder, world: str) -> Reader:
    return Reader(database, embedder)


async def test_what_is_added_is_found_by_its_words_and_then_by_its_meaning(
    database: Database, reader: Reader, indexer: Indexer
) -> None:
    before = await reader.found()
    await remember(database, "m1", "The harbour froze.")
    by_words = await reader.found()
    while await indexer.work_off():
        pass
    by_meaning = await reader.found()

    assert before == {}
    ((dense, lexical, wanted),) = by_words.values()
    assert (dense, wanted) == (None, True)
    assert lexical > 0
    assert by_meaning["m1"][0] > 0
    assert by_meaning["m1"][1:] == (lexical, True)


async def test_who_knows_nothing_yet_is_held_too(reader: Reader) -> None:
    first, again = await reader.taken(), await reader.taken()

    assert first is not None
    assert again is not None
    assert again.turns.names is first.turns.names


def values(**more: Any) -> Callable[[Connection], Any]:
    return lambda connection: connection.execute(
        update(Memory).where(Memory.id == "m1").values(**more)
    )


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (values(indexed_text="The bridge fell.", content="The bridge fell."), False),
        (values(active=False), False),
        (values(archived_at=NOW), False),
        (lambda connection: connection.execute(delete(Memory).where(Memory.id == "m1")), False),
        (values(importance=0.1, pinned=True), True),
    ],
    ids=["rewritten", "switched off", "archived", "deleted", "weighed anew"],
)
async def test_what_is_changed_is_seen_by_the_next_search(
    database: Database, reader: Reader, change: Callable[[Connection], Any], left: bool
) -> None:
    await remember(database, "m1", "The harbour froze.")
    assert "m1" in await reader.found()

    await database.write(change)

    assert ("m1" in await reader.found()) == left


async def test_what_another_opens_and_closes_again_comes_and_goes(
    database: Database, reader: Reader
) -> None:
    await remember(database, "m1", "The harbour froze.", persona_id="tobin", witnesses=("tobin",))

    seen = [set(await reader.found())]
    for visibility in ("public", "private", "public"):
        await database.write(values(visibility=visibility))
        seen.append(set(await reader.found()))

    assert seen == [set(), {"m1"}, set(), {"m1"}]


async def test_what_is_shared_by_name_is_held_for_who_is_named_alone(
    database: Database, reader: Reader
) -> None:
    for name in ("mara", "eve"):
        await remember(
            database,
            f"for {name}",
            "The harbour froze.",
            persona_id="tobin",
            witnesses=("tobin",),
            related=(name,),
            visibility="shared",
        )

    assert set(await reader.found()) == {"for mara"}


async def test_a_change_of_what_only_its_owner_knows_has_nobody_else_read_all_again(
    database: Database, reader: Reader
) -> None:
    await remember(database, "t1", "The harbour froze.", persona_id="tobin", witnesses=("tobin",))
    known = fill(database, 1, content="The harbour.", indexed_text="The harbour.")
    first = await reader.taken()
    await database.write(
        lambda connection: connection.execute(
            update(Memory).where(Memory.id == "t1").values(active=False)
        )
    )
    new = fill(database, 1, first=1, content="The ice.", indexed_text="The ice.")

    again = await reader.taken("ice")

    assert first is not None
    assert again is not None
    assert again.turns.names is first.turns.names
    assert [ids_of(first), ids_of(again)] == [known, new]


async def test_a_memory_that_is_embedded_anew_is_compared_by_its_new_vector(
    database: Database, reader: Reader, indexer: Indexer, embedder: FickleEmbedder
) -> None:
    await remember(database, "m1", "The harbour froze.")
    while await indexer.work_off():
        pass
    before = await reader.found()
    other = await embedder.embed_query("lantern")

    def embed_anew(connection: Connection) -> None:
        its = MemoryVector.memory_id == "m1"
        row = dict(
            connection.execute(delete(MemoryVector).where(its).returning(MemoryVector))
            .one()
            ._mapping
        )
        del row["seq"]
        connection.execute(insert(MemoryVector).values({**row, "vector": pack(other)}))

    await database.write(embed_anew)

    assert before["m1"][0] > 0.1
    assert (await reader.found("lantern"))["m1"][0] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("others", "anew"), [(FAR, False), (FAR + 1, True)])
async def test_all_is_read_anew_rather_than_many_vectors_of_others_looked_through(
    database: Database, reader: Reader, others: int, anew: bool
) -> None:
    await remember(database, "t1", "The harbour froze.", persona_id="tobin", witnesses=("tobin",))
    first = await reader.taken()
    row = {"world_id": "main", "memory_id": "t1", "persona_id": "tobin", "version": 1}
    vectors = [{**row, "model_id": f"other-{one}", "vector": b""} for one in range(others)]
    await database.write(lambda connection: connection.execute(insert(MemoryVector), vectors))

    again = await reader.taken()

    assert first is not None
    assert again is not None
    assert (again.turns.names is not first.turns.names) == anew


async def test_a_world_that_is_made_anew_under_its_old_name_begins_empty(
    database: Database, reader: Reader
) -> None:
    await PersonaStore(database).ensure_world("other", "Other", [spec("Mara")], NOW)
    await remember(database, "o1", "The harbour froze.", world_id="other")
    assert set(await reader.found(world_id="other")) == {"o1"}

    await database.write(remove_world, "other", NOW)
    await PersonaStore(database).ensure_world("other", "Other", [spec("Mara")], NOW + 1)
    await remember(database, "o2", "The harbour thawed.", world_id="other")

    assert set(await reader.found("harbour", world_id="other")) == {"o2"}


async def test_the_turns_around_one_that_is_found_come_with_it(
    database: Database, reader: Reader
) -> None:
    for number, text in enumerate(("One.", "Two.", "The harbour froze.", "Four.", "Five.")):
        await remember(database, f"m{number}", text, values={"turn_number": number})
    await database.write(values(archived_at=NOW))

    found = await reader.found()

    assert {id: wanted for id, (_, _, wanted) in found.items()} == {
        "m1": False,
        "m2": True,
        "m3": True,
    }


async def test_who_may_know_more_than_is_held_is_left_to_the_index(
    database: Database, embedder: FickleEmbedder, world: str
) -> None:
    reader = Reader(database, embedder, HeldMemories(2, 100))
    fill(database, 2, persona_id="eve")
    two = await reader.taken(reader="eve")
    fill(database, 1, first=2, persona_id="eve")

    three = await reader.taken(reader="eve")

    assert two is not None
    assert three is None


async def test_what_was_unused_for_a_while_makes_room_and_what_is_used_does_not(
    database: Database, embedder: FickleEmbedder, world: str
) -> None:
    now = 0.0
    reader = Reader(database, embedder, HeldMemories(50, 100, lambda: now))
    for name in ("mara", "tobin", "eve"):
        fill(database, 30, persona_id=name)

    assert await reader.taken(reader="mara") is not None
    assert await reader.taken(reader="tobin") is not None
    now = IDLE_S - 1
    assert await reader.taken(reader="tobin") is not None
    assert await reader.taken(reader="eve") is None
    now = IDLE_S
    assert await reader.taken(reader="eve") is not None
    assert await reader.taken(reader="mara") is None


async def test_nobody_makes_room_for_what_has_none_anyway(
    database: Database, embedder: FickleEmbedder, world: str
) -> None:
    now = 0.0
    reader = Reader(database, embedder, HeldMemories(1000, 100, lambda: now))
    fill(database, 30, persona_id="mara")
    fill(database, 100, persona_id="tobin")
    first = await reader.taken(reader="mara")
    now = IDLE_S

    assert await reader.taken(reader="tobin") is None
    again = await reader.taken(reader="mara")

    assert first is not None
    assert again is not None
    assert again.turns.names is first.turns.names


async def test_what_grows_has_no_more_room_than_there_is(
    database: Database, embedder: FickleEmbedder, world: str
) -> None:
    now = 0.0
    reader = Reader(database, embedder, HeldMemories(50, 100, lambda: now))
    for name in ("mara", "tobin"):
        fill(database, 30, persona_id=name)
        assert await reader.taken(reader=name) is not None

    fill(database, 20, first=30, persona_id="mara")

    assert await reader.taken(reader="mara") is None
    assert await reader.taken(reader="tobin") is not None
    now = IDLE_S
    assert await reader.taken(reader="mara") is not None
    assert await reader.taken(reader="tobin") is None


async def test_two_that_are_read_at_once_do_not_both_get_room_that_one_has(
    database: Database, embedder: FickleEmbedder, world: str
) -> None:
    reader = Reader(database, embedder, HeldMemories(60, 100))
    for name in ("mara", "tobin"):
        fill(database, 60, persona_id=name)
    asked = {name: await reader.asked(reader=name) for name in ("mara", "tobin")}

    def pool(connection: Connection, name: str) -> Pool | None:
        vector = asked[name].vector
        assert vector is not None
        return reader.held.pool(connection, asked[name], vector)

    meanwhile: list[Pool | None] = []

    def read_another(*of: Any) -> None:
        if "LEFT OUTER JOIN memory_vectors" in of[2] and not meanwhile:
            meanwhile.append(None)
            with database.reading() as other:
                meanwhile[0] = pool(other, "tobin")

    event.listen(database.engine, "before_cursor_execute", read_another)
    with database.reading() as connection:
        found = pool(connection, "mara")
    again = {name: await reader.taken(reader=name) for name in ("mara", "tobin")}

    assert found is not None
    assert meanwhile[0] is not None
    assert [name for name, taken in again.items() if taken is not None] == ["tobin"]


async def test_what_was_taken_is_ranked_as_it_was_though_more_is_held_since(
    database: Database, reader: Reader
) -> None:
    known = fill(database, 9, content="The harbour froze.", indexed_text="The harbour froze.")
    taken = await reader.taken()
    assert taken is not None
    before = list(rank("the frozen harbour", taken, RetrievalParams()))
    fill(database, 50, first=9, content="A harbour.", indexed_text="A harbour.")
    grown = await reader.taken()

    assert grown is not None
    assert grown.ids is taken.ids
    assert list(rank("the frozen harbour", taken, RetrievalParams())) == before
    assert [one.id for one in before] == known


async def test_a_search_that_began_before_something_was_deleted_has_nothing_read_twice(
    database: Database, reader: Reader, indexer: Indexer, embedder: FickleEmbedder
) -> None:
    known = fill(database, 1, content="The harbour.", indexed_text="The harbour.")
    await remember(database, "t1", "The ice.", persona_id="tobin", witnesses=("tobin",))
    while await indexer.work_off():
        pass
    asked = await reader.asked()
    assert asked.vector is not None
    with database.reading() as older:
        reader.held.pool(older, asked, asked.vector)
        await database.write(
            lambda connection: connection.execute(delete(Memory).where(Memory.id == "t1"))
        )
        new = fill(database, 1, first=1, content="A harbour.", indexed_text="A harbour.")
        await reader.taken()
        reader.held.pool(older, asked, asked.vector)

    taken = await reader.taken()

    assert taken is not None
    assert sorted(ids_of(taken)) == [*known, *new]


async def test_a_search_that_began_before_another_may_meet_what_it_cannot_read(
    database: Database, reader: Reader, embedder: FickleEmbedder
) -> None:
    one = fill(database, 1, content="The harbour.", indexed_text="The harbour.")
    asked = await reader.asked()
    assert asked.vector is not None
    with database.reading() as older:
        before = reader.held.pool(older, asked, asked.vector)
        two = fill(database, 1, first=1, content="A harbour.", indexed_text="A harbour.")
        newer = await reader.taken()
        again = reader.held.pool(older, asked, asked.vector)
        recall = of_held(older, asked, asked.vector, reader.held)

    assert before is not None
    assert newer is not None
    assert again is not None
    assert recall is not None
    assert [set(ids_of(its)) for its in (before, newer, again)] == [
        {*one},
        {*one, *two},
        {*one, *two},
    ]
    assert [hit.memory.id for hit in recall.hits] == one


async def test_many_searches_at_once_find_the_same(
    database: Database,
    embedder: FickleEmbedder,
    reader: Reader,
    index: SyncedIndex,
    indexer: Indexer,
) -> None:
    for number, text in enumerate(TEXTS * 4):
        await remember(database, f"m{number}", f"{text} {number}")
    while await indexer.work_off():
        pass
    search = MemorySearch(database, index, embedder, RetrievalParams(), held=reader.held)

    recalls = await asyncio.gather(*(search.search("main", "mara", "ice", 5) for _ in range(20)))

    assert {tuple(hit.memory.id for hit in recall.hits) for recall in recalls} == {
        tuple(hit.memory.id for hit in recalls[0].hits)
    }
    assert len(recalls[0].hits) == 5


CHANGES = st.tuples(
    st.sampled_from(["add", "embed", "search"] * 3 + ["rewrite", "archive", "delete", "open"]),
    st.integers(0, 9),
    st.sampled_from(TEXTS),
)


@pytest.mark.sqlite
@given(st.lists(CHANGES, max_size=20))
@example([("add", 0, TEXTS[0]), ("search", 0, TEXTS[0]), ("embed", 0, ""), ("search", 0, TEXTS[0])])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_whatever_happens_what_is_held_is_what_would_be_read_anew(
    database: Database,
    world: str,
    embedder: FickleEmbedder,
    indexer: Indexer,
    changes: list[tuple[str, int, str]],
) -> None:
    with database.writing() as connection:
        connection.execute(delete(Memory))
    reader = Reader(database, embedder)
    made: list[str] = []
    for kind, number, text in changes:
        which = made[number % len(made)] if made else ""
        match kind:
            case "add":
                made.append(f"m{len(made)}")
                owner = ("mara", "tobin")[number % 2]
                new = new_memory(made[-1], text, persona_id=owner, witnesses=(owner,))
                source = Source("c1", "x1", {f"turn-of-{made[-1]}": number})
                # Nothing but an insert: a change has all read anew.
                with database.writing() as connection:
                    add_memories(connection, "main", [new], NOW, source)
            case "embed":
                await indexer.work_off()
            case "rewrite":
                await changed(database, which, content=text, indexed_text=text)
            case "archive":
                await changed(database, which, archived_at=NOW if number % 2 else None)
            case "open":
                await changed(database, which, visibility=("public", "private")[number % 2])
            case "delete":
                with database.writing() as connection:
                    connection.execute(delete(Memory).where(Memory.id == which))
            case "search":
                await reader.found(text)

    for text in TEXTS:
        fresh = Reader(database, embedder)
        told, read = await reader.found(text), await fresh.found(text)
        assert told.keys() == read.keys()
        assert all(told[id] == pytest.approx(read[id]) for id in read)


async def changed(database: Database, id: str, **more: Any) -> None:
    with database.writing() as connection:
        connection.execute(update(Memory).where(Memory.id == id).values(**more))
