from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

import pytest
from sqlalchemy import Connection, select

from persona_mcp.server.batch.counted_model import Counted
from persona_mcp.server.batch.run_dialogue import Talk
from persona_mcp.state import tables
from persona_mcp.state.batch.codec import outcome_json, read_outcome
from persona_mcp.state.batch.values import Outcome
from persona_mcp.state.database import Database
from persona_mcp.state.dialogue_spec import START
from persona_mcp.state.effects import read_arrow
from persona_mcp.state.errors import ModelError, NotFound
from persona_mcp.state.feelings import fold_feelings, stored_feelings
from persona_mcp.state.folding import delta, fold, fold_into, marks
from persona_mcp.state.inline_database import InlineDatabase
from persona_mcp.state.personas import PersonaStore, those
from persona_mcp.state.relationship_store import read_log
from persona_mcp.state.snapshots.rows import Rows, read_rows
from tests.doubles import Fails, ScriptedModel
from tests.small_worlds import ABC, cast, hold, host, job, lines, member
from tests.state.rows import PARAMS

pytestmark = pytest.mark.anyio

LAWS = host().laws.effects


@pytest.fixture
async def frozen() -> bytes:
    return await host().begin_world(cast(), START)


@pytest.fixture
async def two(frozen: bytes) -> AsyncIterator[list[Outcome]]:
    """Two dialogues of one wave; Ada is in both."""
    ours = host()
    yield [
        await hold(ours, job(0, "ada", "ben"), frozen),
        await hold(ours, job(1, "cleo", "ada", max_turns=5), frozen),
    ]


def rows_in(frozen: bytes) -> Rows:
    with InlineDatabase(frozen) as database, database.reading() as connection:
        return unmeasured(read_rows(connection, "main"))


def unmeasured(rows: Rows) -> Rows:
    exchanges = [{**row, "processing_s": None} for row in rows["exchanges"]]
    return {**rows, "exchanges": exchanges}


async def test_folding_a_dialogue_makes_the_world_as_it_was_right_after_it(frozen: bytes) -> None:
    ours, model = host(), Counted(ScriptedModel(*lines(6)))
    with InlineDatabase(frozen) as database:
        talk = Talk(ours, job(max_turns=6), database, model, print, lambda: False, None)
        outcome = await talk.held()
        after = database.freeze()

    assert outcome.status == "done"
    folded = rows_in(fold(frozen, [outcome], LAWS))
    assert folded == rows_in(after)
    assert folded["conversations"][0]["plan"]["cooldowns"]
    assert len(folded["turns"]) == 6


async def test_dialogues_add_up_in_order_of_number_whichever_ended_first(
    frozen: bytes, two: list[Outcome]
) -> None:
    in_order = fold(frozen, two, LAWS)

    assert fold(frozen, two[::-1], LAWS) == in_order
    assert rows_in(fold(fold(frozen, two[:1], LAWS), two[1:], LAWS)) == rows_in(in_order)


async def test_what_is_cached_after_a_fold_is_what_the_log_gives(
    frozen: bytes, two: list[Outcome]
) -> None:
    with InlineDatabase(fold(frozen, two, LAWS)) as database, database.reading() as connection:
        pairs = [(a, b) for a in ABC for b in ABC if a != b]
        arrows = {pair: read_arrow(connection, "main", *pair) for pair in pairs}
        for pair, arrow in arrows.items():
            assert read_log(connection, "main", *pair).fold(LAWS.relationships) == arrow
        for persona in those(connection, "main", ABC):
            felt = stored_feelings(connection, "main", persona.id)
            assert felt is not None
            assert fold_feelings(connection, "main", persona, LAWS) == felt
        assert arrows["ada", "ben"] and arrows["ada", "cleo"] and not arrows["ben", "cleo"]
        costs = connection.execute(
            select(tables.EnergySpent.seq, tables.EnergySpent.at)
            .where(tables.EnergySpent.persona_id == "ada")
            .order_by(tables.EnergySpent.seq)
        ).all()
    assert [row.seq for row in costs] == list(range(1, len(costs) + 1)) != []
    assert [row.at for row in costs] == sorted(row.at for row in costs)


async def test_an_outcome_that_was_read_from_a_file_folds_to_the_same_bytes(
    frozen: bytes, two: list[Outcome]
) -> None:
    read = [read_outcome(outcome_json(one)) for one in two]
    assert fold(frozen, read, LAWS) == fold(frozen, two, LAWS)


async def test_a_dialogue_that_failed_folds_what_was_said_before(frozen: bytes) -> None:
    broken = Fails(ModelError("the model went away"), after="But then I")
    outcome = await hold(host(), job(), frozen, ScriptedModel(*lines(2), broken))

    folded = rows_in(fold(frozen, [outcome], LAWS))

    turns = sorted(folded["turns"], key=lambda turn: int(turn["number"]))
    assert [turn["content"] for turn in turns] == list(lines(2))
    assert [row["status"] for row in folded["exchanges"]].count("failed") == 1
    assert len(folded["relationship_events"]) == 2 + 2 * 2  # two ties, and each turn moves both


async def test_folding_a_dialogue_twice_changes_nothing(frozen: bytes, two: list[Outcome]) -> None:
    once = fold(frozen, two, LAWS)
    assert rows_in(fold(once, two, LAWS)) == rows_in(once)


async def test_rows_have_no_caches_and_nothing_that_was_there_before(
    frozen: bytes, two: list[Outcome]
) -> None:
    rows = two[0].rows
    assert {"relationship_states", "persona_states", "personas"}.isdisjoint(rows)
    assert {row["from_id"] for row in rows["relationship_events"]} == {"ada", "ben"}
    assert all(row["exchange_id"] for row in rows["relationship_events"])
    assert [row["place"] for row in rows["memories"]] == list(range(1, len(rows["memories"]) + 1))
    with InlineDatabase(frozen) as database, database.reading() as connection:
        assert not any(delta(connection, marks(connection)).values())


@pytest.fixture
async def folder(database: Database) -> Database:
    """A world of a data folder, with Ada, Ben and Cleo."""
    specs = [member(id).spec for id in ABC]
    await PersonaStore(database).ensure_world("main", "main", specs, START)
    return database


async def kept(database: Database, outcomes: list[Outcome], model_id: str) -> list[str]:
    return await database.write(fold_into, "main", outcomes, PARAMS, model_id, START + 9e6)


def everything(connection: Connection) -> tuple[Rows, list[Any]]:
    work = connection.execute(select(tables.OutboxEntry)).all()
    return read_rows(connection, "main"), [tuple(row) for row in work]


async def test_a_dialogue_becomes_part_of_a_data_folder_once(
    folder: Database, two: list[Outcome]
) -> None:
    assert await kept(folder, two, "double-64") == [one.job.id for one in two]
    once = await folder.read(everything)

    assert await kept(folder, two, "double-64") == []
    assert await folder.read(everything) == once
    rows, work = once
    assert [turn["content"] for turn in rows["turns"] if turn["number"] == 1]
    assert len(rows["turns"]) == 4 + 5
    summaries = 2 * 2
    assert len(rows["memory_vectors"]) == len(rows["memories"]) == 2 * (4 + 5) + summaries
    assert work == []


async def test_memories_without_a_vector_of_the_folders_embedder_are_asked_for(
    folder: Database, two: list[Outcome]
) -> None:
    await kept(folder, two[:1], "another-384")

    rows, work = await folder.read(everything)
    assert len(work) == len(rows["memories"]) == 2 * 4 + 2


async def test_a_dialogue_of_somebody_who_is_not_there_changes_nothing(
    folder: Database, two: list[Outcome]
) -> None:
    stranger = replace(two[0], rows=renamed(two[0].rows, "ben", "nobody"))
    before = await folder.read(everything)

    with pytest.raises(NotFound, match="nobody"):
        await kept(folder, [stranger], "double-64")

    assert await folder.read(everything) == before


def renamed(rows: Rows, old: str, new: str) -> Rows:
    return {
        name: [{k: new if v == old else v for k, v in row.items()} for row in its]
        for name, its in rows.items()
    }


async def test_an_arrow_that_is_later_in_the_folder_is_never_set_back(
    folder: Database, two: list[Outcome]
) -> None:
    late = replace(two[0], rows=moved(two[0].rows, 1e6))
    await kept(folder, [late], "double-64")
    there = await folder.read(read_arrow, "main", "ada", "ben")

    early = [replace(two[1], rows=renamed(two[1].rows, "cleo", "ben"))]
    await kept(folder, early, "double-64")

    after = await folder.read(read_arrow, "main", "ada", "ben")
    assert there and after
    assert after.as_of == there.as_of
    assert asdict(after) != asdict(there)


def moved(rows: Rows, seconds: float) -> Rows:
    effects = ("relationship_events", "mood_impulses", "energy_spent")
    return {
        name: [{**row, "at": row["at"] + seconds} for row in its] if name in effects else its
        for name, its in rows.items()
    }
