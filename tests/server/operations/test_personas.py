"""Personas from outside: list, get, create."""

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound
from tests.calls import call, dump, rows, say, watched
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio


async def test_a_new_world_has_the_bundled_personas(service: Service) -> None:
    found = await call(service, "persona_list")

    assert [(p["id"], p["name"], p["available"]) for p in found["personas"]] == [
        ("aria", "Aria", True),
        ("kira", "Kira", True),
        ("noor", "Noor", True),
    ]
    assert (found["total_count"], found["available_count"], found["next_cursor"]) == (3, 3, None)
    assert found["personas"][0]["social_energy"] == 150
    assert found["personas"][0]["available_in"] == 0


async def test_a_list_is_read_in_pages(service: Service) -> None:
    first = await call(service, "persona_list", limit=2)
    second = await call(service, "persona_list", limit=2, cursor=first["next_cursor"])

    assert [p["id"] for p in first["personas"]] == ["aria", "kira"]
    assert [p["id"] for p in second["personas"]] == ["noor"]
    assert first["total_count"] == second["total_count"] == 3
    assert second["next_cursor"] is None


async def test_a_list_of_200_personas_takes_two_queries(service: Service) -> None:
    for number in range(197):
        await call(service, "persona_create", name=f"Nr {number}")

    with watched(service.database) as statements:
        found = await call(service, "persona_list", limit=200)

    assert (len(found["personas"]), found["total_count"]) == (200, 200)
    assert len(statements) <= 2, statements


async def test_a_list_is_narrowed_by_tag_and_by_availability(service: Service) -> None:
    modern = await call(service, "persona_list", tag="modern")
    free = await call(service, "persona_list", available=True)
    busy = await call(service, "persona_list", available=False)

    assert [p["id"] for p in modern["personas"]] == ["noor"]
    assert free["total_count"] == 3
    assert (busy["personas"], busy["total_count"]) == ([], 0)


async def test_a_list_shows_what_talking_has_cost(service: Service, model: ScriptedModel) -> None:
    model.add("Good evening.")
    await say(service, "Good evening.")

    found = await call(service, "persona_list")

    assert 149 < found["personas"][0]["social_energy"] < 150


async def test_a_persona_is_shown_with_all_its_fields(service: Service) -> None:
    found = (await call(service, "persona_get", persona_id="KIRA"))["persona"]

    assert (found["id"], found["name"], found["version"]) == ("kira", "Kira", 1)
    assert found["personality_traits"]["analytical"] == 95
    assert found["topic_preferences"]["gossip"] == 20
    assert found["examples"][0]["user"] == "Good evening. Who are you?"
    assert found["created_at"].endswith("Z")


async def test_an_unknown_persona_is_not_found_and_near_names_are_suggested(
    service: Service,
) -> None:
    with pytest.raises(NotFound) as missing:
        await call(service, "persona_get", persona_id="Nor")

    assert missing.value.data == {"kind": "persona", "id": "Nor", "suggestions": ["Noor"]}


async def test_a_persona_that_was_made_can_be_talked_to_at_once(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Mind the step.")

    made = await call(
        service,
        "persona_create",
        name="  Jens Ødegård ",
        description="You are a lighthouse keeper.",
        personality_traits={"openness": 0.9, "humour": "dry", "patient": 80},
        topic_preferences={"weather": 90},
        social_rank="Peasant",
        tags=["sea"],
    )
    reply = await say(service, "Hello?", persona_id="jens ødegård")

    assert made == {
        "persona_id": "jens-degard",
        "name": "Jens Ødegård",
        "created": True,
        "version": 1,
    }
    assert reply["response"] == "Mind the step."
    assert "You are Jens Ødegård, a peasant. You are a lighthouse keeper." in (
        model.history[0].system
    )


async def test_a_name_that_is_taken_is_refused_in_any_case(service: Service) -> None:
    before = await dump(service.database)

    with pytest.raises(Conflict) as taken:
        await call(service, "persona_create", name="ARIA")

    assert taken.value.data == {"field": "name", "given": "ARIA"}
    assert await dump(service.database) == before


async def test_two_names_that_make_the_same_id_get_two_ids(service: Service) -> None:
    one = await call(service, "persona_create", name="Mara!")
    two = await call(service, "persona_create", name="Mara?")

    assert [one["persona_id"], two["persona_id"]] == ["mara", "mara-2"]


async def test_a_fault_deep_inside_is_named_by_its_path(service: Service) -> None:
    with pytest.raises(InvalidParams) as refused:
        await call(
            service,
            "persona_create",
            name="Mara",
            topic_preferences={"music": 5000},
            examples=[{"user": "Hi"}],
            personality_traits={"scale": 7},
            exit_lines={"sleepy": ["Good night."]},
        )

    fields = {fault["field"] for fault in refused.value.data["errors"]}
    assert {"topic_preferences.music", "examples.0.reply", "personality_traits"} <= fields
    assert any(field.startswith("exit_lines") for field in fields)
    assert len(await rows(service.database, tables.Persona)) == 3


async def test_nobody_who_talks_is_locked_out_by_a_persona_of_the_same_name(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Noted.", "Noted again.")
    await say(service, "Hello.", user_id="sam")

    made = [(await call(service, "persona_create", name=n))["persona_id"] for n in ("User", "Sam")]

    assert made == ["user-2", "sam-2"]
    assert (await say(service, "Hello again.", user_id="sam"))["response"] == "Noted again."
