import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from persona_mcp.state.database import Database
from persona_mcp.state.memory.full_text import TERMS_USED, is_full_text_table, terms_of
from persona_mcp.state.memory.memories import search_words
from persona_mcp.state.tables import Memory
from tests.state.rows import remember

pytestmark = [pytest.mark.anyio, pytest.mark.databases]


async def search(database: Database, query: str, limit: int = 10) -> list[int]:
    with database.reading() as connection:
        found = search_words(connection, query, "main", "mara", limit)
    assert all(score > 0 for score in found.values())
    return list(found)


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("What happened to Bob's boat?", ["happened", "Bob", "boat"]),
        ("Bob\u2019S boat, the boat, BOAT", ["Bob", "BOAT"]),
        ('"frozen" AND (harbour OR NOT sea*) NEAR/3 -x ^y a:b', None),
        ("What is the", []),
        ("", []),
        ("?!… --", []),
        ("snake_case \x00 nul", ["snake", "case", "nul"]),
    ],
)
def test_the_words_of_a_query_are_what_carries_meaning(query: str, terms: list[str] | None) -> None:
    found = terms_of(query)

    assert terms is None or found == terms
    assert all(word.isalnum() for word in found)


def test_a_very_long_query_is_cut() -> None:
    assert len(terms_of(" ".join(f"word{n}" for n in range(10_000)))) == TERMS_USED


@pytest.mark.parametrize(
    "query",
    [
        'harbour"',
        "harbour AND",
        "NEAR(harbour",
        "harbour*",
        "indexed_text:harbour",
        "^harbour",
        "-harbour",
        "harbour OR 1=1; DROP TABLE memories",
        "{harbour}",
        "harbour " * 5000,
        "harbour " + "x" * 100_000,
        "harbour \x00",
    ],
)
async def test_operators_quotes_and_huge_queries_are_words(
    database: Database, world: str, query: str
) -> None:
    await remember(database, "m1", "The harbour froze.")

    assert await search(database, query) == [1]


@pytest.mark.parametrize("query", ["", " ", '"', "the", "''", "\x00", "*", "NOT"])
async def test_a_query_without_a_word_finds_nothing(
    database: Database, world: str, query: str
) -> None:
    await remember(database, "m1", "The harbour froze.")

    assert await search(database, query) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
async def test_no_query_is_an_error(database: Database, world: str, query: str) -> None:
    await search(database, query)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Straße", "straße"),
        ("STRASSE", "strasse"),
        ("Zoë came.", "zoe"),
        ("Zoë came.", "ZOË"),
        ("The boats were sailing.", "boat sail"),
        ("Δεν έχει πάγο", "ΠΆΓΟ"),
        ("İstanbul", "İstanbul"),
    ],
)
async def test_a_word_is_found_in_any_case_and_form(
    database: Database, world: str, text: str, query: str
) -> None:
    await remember(database, "m1", text)

    assert await search(database, query) == [1]


async def test_more_and_rarer_words_come_first_and_ties_by_age(
    database: Database, world: str
) -> None:
    for number, text in enumerate(
        ["the harbour", "our harbour", "frozen harbour of ice", "a boat", "a dog", "a cat"]
    ):
        await remember(database, f"m{number}", text)

    assert await search(database, "frozen ice harbour") == [3, 1, 2]
    assert await search(database, "frozen ice harbour", limit=1) == [3]


async def test_a_memory_that_is_changed_or_deleted_is_found_by_what_it_says_now(
    database: Database, world: str
) -> None:
    await remember(database, "m1", "The harbour froze.")
    await remember(database, "m2", "The harbour thawed.")

    with database.writing() as connection:
        changed = update(Memory).where(Memory.id == "m1").values(indexed_text="A mill burned.")
        connection.execute(changed)
        connection.execute(delete(Memory).where(Memory.id == "m2"))

    assert await search(database, "harbour") == []
    assert await search(database, "mill") == [1]


def test_fts5_has_tables_of_its_own() -> None:
    assert is_full_text_table("memory_words")
    assert is_full_text_table("memory_words_idx")
    assert not is_full_text_table("memories")
