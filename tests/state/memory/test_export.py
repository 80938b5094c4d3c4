"""Memories written out: whole, page by page, and harmless in a spreadsheet."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_mcp.state.database import Database
from persona_mcp.state.errors import InvalidParams
from persona_mcp.state.memory.export import FORMULA, cell_of, csv_line, read_page, written
from tests.state.rows import NOW, remember

RECORDS: list[dict[str, Any]] = [
    {"id": "m1", "content": 'It froze,\n"twice"; größer.', "importance": -0.5, "metadata": {}},
    {"id": "m2", "content": "=SUM(A1:A9)", "importance": 1, "metadata": {"a": [True, None]}},
    {"id": "m3", "content": "x", "importance": 0.25, "metadata": {}},
]
MUCH = 10**6


def test_each_form_can_be_read_again() -> None:
    whole = json.loads(written(RECORDS, "json", True, MUCH)[0])
    lines = [json.loads(line) for line in written(RECORDS, "jsonl", True, MUCH)[0].splitlines()]
    rows = list(csv.DictReader(io.StringIO(written(RECORDS, "csv", True, MUCH)[0], newline="")))

    assert whole == lines == RECORDS
    assert [row["content"] for row in rows] == [RECORDS[0]["content"], "'=SUM(A1:A9)", "x"]
    assert [float(row["importance"]) for row in rows] == [-0.5, 1, 0.25]
    assert [json.loads(row["metadata"]) for row in rows] == [r["metadata"] for r in RECORDS]


@pytest.mark.parametrize(("format", "empty"), [("json", "[]"), ("jsonl", ""), ("csv", "")])
def test_nothing_is_written_of_nothing(format: Any, empty: str) -> None:
    assert written([], format, True, MUCH) == (empty, 0)


@pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
def test_a_page_ends_with_the_memory_that_passes_its_limit(format: Any) -> None:
    one = len(written(RECORDS, format, False, 1)[0].encode())
    assert [written(RECORDS, format, True, most)[1] for most in (1, one + 1, MUCH)] == [1, 2, 3]


def test_the_first_page_of_csv_alone_names_the_columns() -> None:
    pages = [
        written(RECORDS[:1], "csv", True, MUCH)[0],
        written(RECORDS[1:], "csv", False, MUCH)[0],
    ]

    assert "".join(pages) == written(RECORDS, "csv", True, MUCH)[0]
    assert pages[0].startswith("id,content,importance,metadata\r\n")


@given(st.text())
def test_no_cell_of_text_begins_as_a_formula_does_and_none_is_lost(text: str) -> None:
    cell = str(cell_of(text))

    assert not cell.startswith(FORMULA)
    assert cell.removeprefix("'") == text.removeprefix("'")
    (row,) = csv.reader(io.StringIO(csv_line([text]), newline=""), strict=True)
    assert row == [cell]


@pytest.mark.anyio
@pytest.mark.parametrize("after", ["gone-for-good", "his"])
async def test_a_page_behind_a_memory_that_the_persona_has_not_is_refused(
    database: Database, world: str, after: str
) -> None:
    await remember(database, "hers", "It froze.")
    await remember(database, "his", "Of another.", persona_id="tobin")

    with pytest.raises(InvalidParams) as caught:
        await read_page(database, "main", "mara", True, after, 2)

    assert caught.value.data["field"] == "cursor"


@pytest.mark.anyio
async def test_pages_have_every_memory_of_the_persona_once(database: Database, world: str) -> None:
    for number in range(5):
        await remember(database, f"m{number}", f"It froze {number} times.")
    await remember(database, "gone", "Archived.", values={"archived_at": NOW})
    await remember(database, "off", "Switched off.", values={"active": False})
    await remember(database, "his", "Of another.", persona_id="tobin")

    seen: list[str] = []
    after: str | None = None
    while True:
        page = await read_page(database, "main", "mara", False, after, 2)
        seen += [record["id"] for record in page.records]
        assert page.total == 5
        if not page.more:
            break
        after = page.ids[-1]

    assert seen == [f"m{n}" for n in range(5)]
    every = await read_page(database, "main", "mara", True, None, 100)
    assert [record["id"] for record in every.records] == [*seen, "gone"]
    assert every.records[0] == {
        "id": "m0",
        "persona_id": "mara",
        "content": "It froze 0 times.",
        "memory_type": "conversation",
        "speaker_id": "ann",
        "importance": 0.5,
        "importance_terms": {"base": 0.5},
        "emotional_valence": 0.0,
        "visibility": "private",
        "related_personas": [],
        "witnesses": ["ann", "mara"],
        "pinned": False,
        "metadata": {},
        "conversation_id": "c1",
        "source_turn": "turn-of-m0",
        "accessed_count": 0,
        "version": 1,
        "created_at": "2023-11-14T22:13:20.000Z",
        "updated_at": "2023-11-14T22:13:20.000Z",
        "archived_at": None,
    }
    assert every.records[-1]["archived_at"] == "2023-11-14T22:13:20.000Z"
