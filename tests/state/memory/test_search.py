import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, select

from persona_mcp.config.index import open_index
from persona_mcp.config.settings import IndexSettings, Settings
from persona_mcp.state import tables
from persona_mcp.state.database import Database
from persona_mcp.state.embedding import Vector
from persona_mcp.state.errors import ModelError
from persona_mcp.state.index.indexer import Indexer, IndexerLimits
from persona_mcp.state.index.synced import SyncedIndex
from persona_mcp.state.index.vector_index import Hit, Kind
from persona_mcp.state.memory.held import HeldMemories
from persona_mcp.state.memory.memory import Sought
from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.memory.search import MemorySearch
from persona_mcp.state.memory.store import read_memories
from tests.doubles import FickleEmbedder, FixedClock
from tests.state.memory.test_memories import CASES, EVERYBODY
from tests.state.rows import NOW, PROCESS, nobody_is_gone, remember

pytestmark = pytest.mark.anyio

MOST = 100
Held = HeldMemories | None
LIMITS = IndexerLimits(batch=4, claim_s=30.0, poll_s=0.01, attempts=3)


@pytest.fixture
def embedder() -> FickleEmbedder:
    return FickleEmbedder()


@pytest.fixture(params=["exact", "chroma", "held"])
async def index(
    request: pytest.FixtureRequest, settings: Settings, database: Database, world: str
) -> AsyncIterator[SyncedIndex]:
    kind: Kind = "chroma" if request.param == "chroma" else "exact"
    its = IndexSettings(kind=kind)
    opened = await open_index(settings.model_copy(update={"index": its}), database, "double-64")
    assert opened.kind == kind
    synced = SyncedIndex(database, opened, "double-64", LIMITS.batch)
    yield synced
    await synced.aclose()


@pytest.fixture
def indexer(database: Database, index: SyncedIndex, embedder: FickleEmbedder) -> Indexer:
    return Indexer(database, index, embedder, LIMITS, PROCESS, nobody_is_gone, FixedClock(NOW + 1))


@pytest.fixture
def held(request: pytest.FixtureRequest) -> Held:
    return HeldMemories(MOST, MOST) if request.node.callspec.params["index"] == "held" else None


@pytest.fixture
def memories(
    database: Database, index: SyncedIndex, embedder: FickleEmbedder, held: Held
) -> MemorySearch:
    return MemorySearch(database, index, embedder, RetrievalParams(), held=held)


class HangingIndex:
    """An index that never answers."""

    async def search(self, world_id: str, vector: Vector, reader: str, limit: int) -> list[Hit]:
        await asyncio.Event().wait()
        return []


async def test_an_index_that_hangs_is_given_up_and_words_find_what_they_can(
    database: Database, embedder: FickleEmbedder
) -> None:
    memories = MemorySearch(database, HangingIndex(), embedder, RetrievalParams(), index_s=0.05)

    recall = await memories.search("main", "mara", "harbour", 10)

    assert recall.degraded.startswith("the dense index did not answer a search within 0.05 s")


async def test_what_is_held_is_searched_without_the_index(
    database: Database, embedder: FickleEmbedder, indexer: Indexer
) -> None:
    held = HeldMemories(2, MOST)
    memories = MemorySearch(
        database, HangingIndex(), embedder, RetrievalParams(), index_s=0.05, held=held
    )
    await remember(database, "m1", "The frozen harbour of that winter.")
    await remember(database, "m2", "A dog barked.", visibility="public", persona_id="tobin")
    await index_all(indexer)

    few = await memories.search("main", "mara", "frozen harbour", 10)
    await remember(database, "m3", "It was cold.")
    more = await memories.search("main", "mara", "frozen harbour", 10)

    assert few.degraded == ""
    assert [hit.memory.id for hit in few.hits] == ["m1", "m2"]
    assert few.hits[0].similarity > few.hits[1].similarity
    assert more.degraded.startswith("the dense index did not answer")


async def test_what_is_held_scores_as_it_does_by_the_index(
    database: Database, embedder: FickleEmbedder, index: SyncedIndex, indexer: Indexer
) -> None:
    for number, text in enumerate(("The harbour froze.", "Was it cold?", "Ships lay in the ice.")):
        await remember(database, f"m{number}", text, values={"turn_number": number})
        await remember(database, f"t{number}", text, persona_id="tobin", visibility="public")
    await index_all(indexer)
    by_index, by_held = (
        MemorySearch(database, index, embedder, RetrievalParams(), held=held)
        for held in (None, HeldMemories(MOST, MOST))
    )

    for query in ("Was the harbour cold?", "ice", "nothing of it", "?"):
        told = [(await one.search("main", "mara", query, 10)).hits for one in (by_index, by_held)]
        scores = [{hit.memory.id: hit.score for hit in hits} for hits in told]
        assert scores[1] == pytest.approx(scores[0], rel=1e-3)
        assert list(scores[1]) == list(scores[0])


async def index_all(indexer: Indexer) -> None:
    while await indexer.work_off():
        pass


async def found(memories: MemorySearch, query: str, reader: str = "mara", **more: Any) -> list[str]:
    recall = await memories.search("main", reader, query, more.pop("limit", 10), **more)
    assert recall.degraded == ""
    return [hit.memory.id for hit in recall.hits]


async def test_what_is_nearest_in_meaning_and_words_comes_first(
    database: Database, memories: MemorySearch, indexer: Indexer
) -> None:
    await remember(database, "m1", "The frozen harbour of that winter.")
    await remember(database, "m2", "A dog barked.")
    await remember(database, "m3", "The harbour in summer.")
    await index_all(indexer)

    recall = await memories.search("main", "mara", "What happened in the frozen harbour?", 10)

    assert [hit.memory.id for hit in recall.hits] == ["m1", "m3", "m2"]
    best = recall.hits[0]
    assert best.similarity == pytest.approx(best.parts["dense"])
    assert best.parts["lexical"] > 0
    assert recall.hits[-1].parts["lexical"] == 0.0
    assert await found(memories, "frozen harbour", limit=1) == ["m1"]


async def test_more_is_found_than_the_candidates_of_a_side_where_more_is_asked_for(
    database: Database, index: SyncedIndex, indexer: Indexer, embedder: FickleEmbedder
) -> None:
    for number in range(12):
        await remember(database, f"m{number:02}", "The frozen harbour of that winter.")
    await index_all(indexer)
    few = MemorySearch(database, index, embedder, RetrievalParams(candidates=2))

    assert await found(few, "harbour", limit=9) == [f"m{number:02}" for number in range(9)]


@pytest.mark.parametrize(
    ("personal", "told", "withheld"),
    [
        ("", "01", ""),
        ("0", "12", "0"),
        ("0234", "15", "0234"),
        ("1357", "02", "1"),
        ("01234567", "8", "01234567"),
        ("012345678", "", "012345678"),
    ],
)
async def test_what_is_withheld_is_named_and_others_take_its_place(
    database: Database, memories: MemorySearch, personal: str, told: str, withheld: str
) -> None:
    for number in range(9):
        await remember(database, f"m{number}", f"The harbour froze {number} times.")
    every = [hit.memory.id for hit in (await memories.search("main", "mara", "harbour", 9)).hits]

    def withhold(connection: Connection, ids: Sequence[str]) -> frozenset[str]:
        assert connection.in_transaction()
        return frozenset(ids).intersection(every[int(at)] for at in personal)

    found = await memories.search("main", "mara", "harbour", 2, withhold=withhold)

    assert [hit.memory.id for hit in found.hits] == [every[int(at)] for at in told]
    assert found.withheld == {every[int(at)] for at in withheld}


async def test_memories_of_turns_that_are_shown_are_left_out_and_others_take_their_place(
    database: Database, memories: MemorySearch, indexer: Indexer
) -> None:
    for number in range(6):
        values = {"turn_id": f"t{number}", "turn_number": number}
        await remember(database, f"m{number}", f"The harbour froze {number} times.", values=values)
    await remember(database, "told", "It was told of the harbour.", values={"turn_id": "t0"})
    await index_all(indexer)
    whole = (await memories.search("main", "mara", "harbour", 9)).hits

    some = (await memories.search("main", "mara", "harbour", 3, shown=["t0", "t4", "t99"])).hits

    wanted = [hit for hit in whole if hit.memory.turn_id not in {"t0", "t4"}]
    assert some == tuple(wanted[:3])
    assert len(wanted) == len(whole) - 3


async def test_a_search_that_is_told_why_goes_by_words_alone_and_embeds_nothing(
    database: Database, memories: MemorySearch, indexer: Indexer, embedder: FickleEmbedder
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await index_all(indexer)
    embedder.fault = AssertionError("asked for an embedding")

    recall = await memories.search("main", "mara", "harbour", 10, degraded="it is down")

    assert [(hit.memory.id, hit.similarity) for hit in recall.hits] == [("m1", 0.0)]
    assert recall.degraded == "it is down"


async def test_a_memory_is_found_by_its_words_until_it_has_a_vector(
    database: Database, memories: MemorySearch
) -> None:
    await remember(database, "m1", "The harbour froze.")

    recall = await memories.search("main", "mara", "harbour", 10)

    assert [(hit.memory.id, hit.similarity) for hit in recall.hits] == [("m1", 0.0)]
    assert recall.degraded == ""


async def test_an_archived_turn_is_found_no_more_and_still_tells_what_stands_beside_it(
    database: Database, memories: MemorySearch, indexer: Indexer
) -> None:
    asked = {"turn_number": 1, "archived_at": NOW}
    await remember(database, "asked", "Where is the frozen harbour?", values=asked)
    await remember(database, "said", "It is up in the north.", values={"turn_number": 2})
    await remember(database, "else", "It is out in the west.", values={"turn_number": 9})
    await index_all(indexer)

    assert await found(memories, "frozen harbour") == ["said", "else"]
    recall = await memories.search("main", "mara", "frozen harbour", 10)
    parts = {hit.memory.id: hit.parts["previous"] for hit in recall.hits}
    assert parts["said"] > parts["else"] == 0.0


@pytest.mark.parametrize("case", CASES)
async def test_what_a_reader_may_not_know_is_never_found(
    database: Database, memories: MemorySearch, indexer: Indexer, case: str
) -> None:
    values, _, recallable = CASES[case]
    await remember(database, "m1", "The harbour froze.", **values)
    await index_all(indexer)

    readers = {reader for reader in EVERYBODY if await found(memories, "harbour froze", reader)}

    assert readers == recallable


async def test_a_secret_stays_with_its_owner_whatever_is_asked(
    database: Database, memories: MemorySearch, indexer: Indexer
) -> None:
    await remember(database, "secret", "The password is swordfish.", witnesses=("ann",))
    for number in range(5):
        await remember(database, f"t{number}", "I like fish.", persona_id="tobin")
    await index_all(indexer)

    for query in ("swordfish", "password", "The password is swordfish.", '" OR "swordfish'):
        assert "secret" not in await found(memories, query, "tobin")
        assert "secret" in await found(memories, query, "mara")


async def test_only_the_wanted_type_and_importance_are_found(
    database: Database, memories: MemorySearch, indexer: Indexer
) -> None:
    await remember(database, "m1", "The harbour froze.", importance=0.3)
    await remember(database, "m2", "The harbour thawed.", importance=0.6)
    await remember(database, "m3", "The harbour sang.", importance=0.9, memory_type="thought")
    await index_all(indexer)

    async def sought(**more: Any) -> list[str]:
        return sorted(await found(memories, "harbour", sought=Sought(**more)))

    assert await sought(min_importance=0.6) == ["m2", "m3"]
    assert await sought(memory_type="thought") == ["m3"]
    assert await sought(memory_type="thought", min_importance=1.0) == []


@pytest.mark.parametrize("query", ["harbour", "something else"])
async def test_the_few_that_are_sought_are_found_among_many_that_are_nearer(
    database: Database, memories: MemorySearch, indexer: Indexer, query: str
) -> None:
    for number in range(60):
        await remember(database, f"near{number}", "harbour harbour harbour", importance=0.1)
    await remember(database, "far", "The frozen harbour of that long winter.", importance=0.9)
    await index_all(indexer)

    assert await found(memories, query, sought=Sought(min_importance=0.6)) == ["far"]


@pytest.mark.parametrize(
    ("sought", "ids"),
    [
        (Sought(), ["own", "public", "shared"]),
        (Sought(shared=False), ["own", "public"]),
        (Sought(public=False), ["own", "shared"]),
        (Sought(shared=False, public=False), ["own"]),
    ],
)
async def test_others_memories_are_left_out_by_how_they_are_open(
    database: Database, memories: MemorySearch, indexer: Indexer, sought: Sought, ids: list[str]
) -> None:
    await remember(database, "own", "The harbour froze.", persona_id="tobin", visibility="public")
    await remember(database, "public", "The harbour thawed.", visibility="public")
    await remember(database, "shared", "The harbour sang.", visibility="shared", related=("tobin",))
    await remember(database, "secret", "The harbour slept.")
    await index_all(indexer)

    assert sorted(await found(memories, "harbour", "tobin", sought=sought)) == ids


async def test_a_narrowed_search_without_the_embedder_is_by_words_alone(
    database: Database, memories: MemorySearch, embedder: FickleEmbedder
) -> None:
    await remember(database, "m1", "The harbour froze.", importance=0.9)
    embedder.fault = ModelError("the embedder did not answer")

    recall = await memories.search("main", "mara", "harbour", 10, Sought(min_importance=0.6))

    assert [hit.memory.id for hit in recall.hits] == ["m1"]
    assert recall.degraded == "the embedder did not answer"


async def test_ties_are_broken_by_id(
    database: Database, memories: MemorySearch, indexer: Indexer
) -> None:
    for id in ("mc", "ma", "mb"):
        await remember(database, id, "The harbour froze.")
    await index_all(indexer)

    assert await found(memories, "harbour froze") == ["ma", "mb", "mc"]
    assert await found(memories, "harbour froze", limit=2) == ["ma", "mb"]


async def test_without_the_embedder_words_alone_are_searched_and_it_is_said(
    database: Database, memories: MemorySearch, indexer: Indexer, embedder: FickleEmbedder
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await remember(database, "m2", "A dog barked.")
    await index_all(indexer)
    embedder.fault = ModelError("the embedder did not answer")

    recall = await memories.search("main", "mara", "harbour", 10)

    assert [(hit.memory.id, hit.similarity) for hit in recall.hits] == [("m1", 0.0)]
    assert recall.degraded == "the embedder did not answer"


@pytest.mark.parametrize("index", ["chroma"], indirect=True)
async def test_without_the_index_words_alone_are_searched_and_it_is_said(
    database: Database, memories: MemorySearch, indexer: Indexer, index: SyncedIndex
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await index_all(indexer)
    await index.aclose()

    recall = await memories.search("main", "mara", "harbour", 10)

    assert [hit.memory.id for hit in recall.hits] == ["m1"]
    assert "dense index" in recall.degraded


class LongerEmbedder(FickleEmbedder):
    """Its vectors of questions have become longer than those that it made before."""

    async def embed_query(self, text: str) -> Vector:
        vector = await super().embed_query(text)
        return np.concatenate([vector, vector])


async def test_where_vectors_are_of_another_length_words_alone_are_searched_and_it_is_said(
    database: Database, indexer: Indexer, index: SyncedIndex, held: Held
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await index_all(indexer)
    memories = MemorySearch(database, index, LongerEmbedder(), RetrievalParams(), held=held)

    recall = await memories.search("main", "mara", "harbour", 10)

    assert [hit.memory.id for hit in recall.hits] == ["m1"]
    assert "length" in recall.degraded


@pytest.mark.parametrize("query", ["", "?", "harbour " * 20_000, "\x00", '"*'])
async def test_any_text_can_be_asked(
    database: Database, memories: MemorySearch, indexer: Indexer, query: str
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await index_all(indexer)

    assert await found(memories, query) == ["m1"]


async def test_a_search_in_an_empty_world_finds_nothing(memories: MemorySearch) -> None:
    assert await found(memories, "harbour") == []


async def test_what_is_found_is_the_memory_as_it_is_stored(
    database: Database, memories: MemorySearch
) -> None:
    await remember(database, "m1", "The harbour froze.", related=("tobin",))

    (hit,) = (await memories.search("main", "mara", "harbour", 1)).hits

    with database.reading() as connection:
        assert [hit.memory] == read_memories(connection, "main", ["m1"])
        assert connection.scalar(select(tables.Memory.related_personas)) == ["tobin"]
