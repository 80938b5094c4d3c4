"""Turns of a dialogue in its small world: begun, failed, told."""

import pytest

from persona_mcp.config.database import empty_database
from persona_mcp.state import small_turns, tables
from persona_mcp.state.dialogue import Plan
from persona_mcp.state.inline_database import InlineDatabase
from tests.calls import rows
from tests.small_worlds import cast, host

pytestmark = pytest.mark.anyio

PLAN = Plan(
    token_budget=1000,
    max_duration=600.0,
    max_turns=4,
    seed=7,
    first_speaker="ada",
    starts_at=1000.0,
)


async def world() -> bytes:
    return await host().begin_world(cast(), 1000.0)


async def test_a_turn_that_failed_keeps_its_error_and_what_was_said_of_it() -> None:
    with InlineDatabase(await world()) as database:
        await database.write(small_turns.begin_talk, "c1", ["ada", "ben"], "music", PLAN)
        made = await database.write(small_turns.begin_turn, "c1", 1, 1000.0)
        problem = {"code": "model_error", "message": "no model answers"}

        await database.write(small_turns.fail_turn, made, problem, "Well, ", 1005.0)

        found = (await rows(database, tables.Exchange))[0]
        assert (found["status"], found["error"], found["partial"]) == ("failed", problem, "Well, ")
        assert await database.read(small_turns.said_since, "c1", 0) == []
        assert await database.read(small_turns.duration_of, "c1") == 0.0
        assert await database.read(small_turns.exit_reason, "c1") == ""


async def test_a_turn_has_the_same_id_in_every_world_and_another_one_for_each_number() -> None:
    ids = []
    for _ in range(2):
        with InlineDatabase(await world()) as database:
            await database.write(small_turns.begin_talk, "c1", ["ada", "ben"], "music", PLAN)
            ids.append(
                [await database.write(small_turns.begin_turn, "c1", n, 1000.0) for n in (1, 2)]
            )

    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


async def test_how_each_sees_the_other_is_as_the_ties_of_the_cast_say() -> None:
    with InlineDatabase(await world()) as database:
        laws = host().laws.effects
        seen = await database.read(small_turns.views, ["ada", "ben", "cleo"], 1000.0, laws)

    assert set(seen) == {("ada", "ben"), ("ben", "ada")}
    assert seen["ada", "ben"]["affinity"] > 0 > seen["ben", "ada"]["affinity"]


async def test_a_new_world_has_the_newest_schema() -> None:
    with InlineDatabase(empty_database()) as database:
        assert await rows(database, tables.Persona) == []
