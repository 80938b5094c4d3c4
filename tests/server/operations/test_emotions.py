"""How a persona feels, from outside."""

from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import Conflict, InvalidParams, NoCurrentPersona, NotFound
from persona_mcp.state.feelings import fold_feelings, stored_feelings
from persona_mcp.state.moments import rfc3339
from tests.calls import call, dump, rows, say
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio

VALUES = {"mood", "energy_level", "stress_level", "curiosity", "social_battery"}


async def look(service: Service, **more: Any) -> dict[str, Any]:
    found = await call(service, "emotional_get_state", **{"persona_id": "aria", **more})
    state: dict[str, Any] = found["emotional_state"]
    return state


async def put(service: Service, **values: Any) -> dict[str, Any]:
    return await call(service, "emotional_update_state", **{"persona_id": "Aria", **values})


async def test_a_new_persona_rests_at_its_baseline(service: Service) -> None:
    found = await look(service)

    assert set(found) == {*VALUES, "last_updated", "baseline", "label"}
    assert {name: found[name] for name in VALUES} == found["baseline"]
    aria = await service.personas.resolve("main", "aria")
    assert found["last_updated"] == rfc3339(aria.created_at)


async def test_a_talk_moves_it(service: Service, model: ScriptedModel) -> None:
    model.add("Then I shall sing it for you.")
    await say(service, "Thank you so much, that was kind of you.")

    found = await look(service)

    assert found["social_battery"] < found["baseline"]["social_battery"]
    assert found["label"]
    (impulse,) = await rows(service.database, tables.MoodImpulse)
    assert found["last_updated"] == rfc3339(impulse["at"])


async def test_what_is_set_stands_and_the_rest_stays(service: Service) -> None:
    before = await look(service)

    done = await put(service, mood=-1, stress_level=1.0, why="The lute was stolen.")

    assert (done["success"], done["message"]) == (True, "mood, stress_level of aria set")
    state = done["updated_state"]
    assert (state["mood"], state["stress_level"], state["label"]) == (-1.0, 1.0, "upset")
    assert state["curiosity"] == pytest.approx(before["curiosity"])
    assert state["baseline"] == before["baseline"]
    (impulse,) = await rows(service.database, tables.MoodImpulse)
    assert impulse["why"] == "The lute was stolen."
    assert impulse["absolute"] == {"mood": -1.0, "stress_level": 1.0}
    assert (await look(service))["mood"] == pytest.approx(-1.0, abs=1e-3)


async def test_the_cache_is_the_fold_of_what_was_set_and_said(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Hm.", "Hm.")
    await put(service, mood=0.3)
    await say(service, "You fool.")
    await put(service, curiosity=0.0, social_battery=1.0)
    await say(service, "Thank you.")
    await call(service, "relationship_update", persona1_id="aria", persona2_id="kira")

    aria = await service.personas.resolve("main", "aria")
    with service.database.reading() as connection:
        folded = fold_feelings(connection, "main", aria, service.laws.effects)
        assert stored_feelings(connection, "main", "aria") == folded


async def test_a_request_is_done_once_and_answered_as_the_first_time(service: Service) -> None:
    first = await put(service, mood=0.5, request_id="r1")
    await put(service, mood=-0.5, request_id="r2")
    before = await dump(service.database)

    assert await put(service, mood=0.5, request_id="r1") == first
    for other in ({"mood": 0.6}, {"mood": 0.5, "why": "x"}, {"mood": 0.5, "persona_id": "kira"}):
        with pytest.raises(Conflict, match="request_id 'r1' was used for another call"):
            await put(service, **other, request_id="r1")

    assert await dump(service.database) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mood", 1.01),
        ("mood", float("nan")),
        ("mood", "happy"),
        ("mood", False),
        ("energy_level", -0.01),
        ("stress_level", 1.01),
        ("curiosity", float("inf")),
        ("social_battery", -1),
        ("why", "x" * 501),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(
    service: Service, field: str, value: Any
) -> None:
    before = await dump(service.database)

    with pytest.raises(InvalidParams) as refused:
        await put(service, **{field: value})

    assert refused.value.data["field"] == field
    assert await dump(service.database) == before


async def test_at_least_one_value_is_needed(service: Service) -> None:
    for nothing in ({}, {"mood": None}, {"why": "Just so."}):
        with pytest.raises(InvalidParams, match="at least one of mood, energy_level"):
            await put(service, **nothing)


async def test_somebody_has_to_be_meant(service: Service) -> None:
    for name in ("emotional_get_state", "emotional_update_state"):
        with pytest.raises(NoCurrentPersona):
            await call(service, name, **({"mood": 0.1} if "update" in name else {}))
        with pytest.raises(NotFound, match="persona 'nobody' not found"):
            given = {"mood": 0.1} if "update" in name else {}
            await call(service, name, persona_id="nobody", **given)
