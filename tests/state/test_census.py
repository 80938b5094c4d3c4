"""A world is counted in SQL as its personas are listed one by one."""

from dataclasses import replace
from typing import Any

import pytest

from persona_mcp.state import interaction
from persona_mcp.state.census import Census, count_world
from persona_mcp.state.database import Database
from persona_mcp.state.emotion import EmotionalState
from persona_mcp.state.feelings import Feelings, keep_feelings
from persona_mcp.state.interaction import InteractionParams, InteractionState
from persona_mcp.state.persona_changes import remove_persona
from persona_mcp.state.personas import PersonaStore
from tests.state.rows import NOW, PARAMS, begin, spec

pytestmark = [pytest.mark.anyio, pytest.mark.databases]

FRESH = InteractionState(as_of=NOW)


async def counted(
    database: Database, world_id: str = "main", params: InteractionParams = PARAMS.interaction
) -> Census:
    return await database.read(count_world, world_id, NOW, params)


async def listed(database: Database, params: InteractionParams = PARAMS.interaction) -> int:
    found = await PersonaStore(database).with_feelings("main", NOW, PARAMS)
    return sum(interaction.available(felt.interaction, params) for _, felt in found)


def leave(database: Database, persona_id: str, **values: Any) -> None:
    """Let a persona have so much left after its last talk; times are from now."""
    felt = EmotionalState(0.0, 0.5, 0.1, 0.5, 0.5, NOW)
    for name in ("as_of", "cooldown_until"):
        if name in values:
            values[name] += NOW
    with database.writing() as connection:
        state = Feelings(felt, replace(FRESH, **values))
        keep_feelings(connection, "main", persona_id, state, (1, 1), new=True)


@pytest.mark.parametrize(
    ("left", "free"),
    [
        ({}, True),
        ({"energy": 10.0}, False),
        ({"energy": 10.001}, True),
        ({"energy": 5.0, "as_of": -299.0}, False),
        ({"energy": 5.0, "as_of": -301.0}, True),
        ({"energy": 180.0, "as_of": -99_999.0}, True),
        ({"time": 30.0}, False),
        ({"time": 30.001}, True),
        ({"time": 0.0, "as_of": -359.0}, False),
        ({"time": 0.0, "as_of": -361.0}, True),
        ({"time": 5000.0, "as_of": -99_999.0}, True),
        ({"cooldown_until": 0.5}, False),
        ({"cooldown_until": 0.0}, True),
        ({"cooldown_until": -0.5}, True),
        ({"as_of": 60.0, "cooldown_until": 30.0}, True),
        ({"as_of": 60.0, "cooldown_until": 90.0}, False),
    ],
)
async def test_who_is_free_is_counted_as_the_law_has_it(
    database: Database, world: str, left: dict[str, Any], free: bool
) -> None:
    leave(database, "mara", **left)

    found = await counted(database)

    assert (found.personas, found.available) == (2, 1 + free)
    assert await listed(database) == found.available


async def test_other_limits_are_counted_by(database: Database, world: str) -> None:
    strict = InteractionParams(energy_needed=19.0, time_needed=59.0, energy_seconds=10.0)
    leave(database, "mara", energy=18.0, as_of=-9.0)
    leave(database, "tobin", energy=18.0, as_of=-11.0)

    assert (await counted(database, params=strict)).available == 1


async def test_what_is_deleted_ended_or_elsewhere_does_not_count(
    database: Database, world: str
) -> None:
    store = PersonaStore(database)
    await store.ensure_world("other", "other", [spec("Vesna")], NOW)
    await begin(database)
    assert await counted(database) == Census(2, 2, 1)

    await database.write(remove_persona, "main", "mara", False, NOW)

    assert await counted(database) == Census(1, 1, 0)
    assert await counted(database, "other") == Census(1, 1, 0)
    assert await counted(database, "nowhere") == Census(0, 0, 0)
