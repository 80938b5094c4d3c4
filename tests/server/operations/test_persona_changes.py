"""Personas that are changed, deleted and purged; and how one stands now."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import delete, update

from persona_mcp.server.operations.registry import operation_named
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound, PersonaError
from persona_mcp.state.feelings import fold_feelings, stored_feelings
from persona_mcp.state.persona import PersonaSpec
from tests.calls import call, dump, remembered, rows, say
from tests.doubles import Hangs, ScriptedModel

pytestmark = pytest.mark.anyio


async def whole(service: Service, persona: str = "aria") -> dict[str, Any]:
    found: dict[str, Any] = (await call(service, "persona_get", persona_id=persona))["persona"]
    return found


async def versions(service: Service, persona: str = "aria") -> list[tuple[int, str]]:
    found = await rows(service.database, tables.PersonaVersion)
    return [(r["version"], r["spec"]["name"]) for r in found if r["persona_id"] == persona]


async def test_fields_that_are_given_change_and_the_rest_stays(service: Service) -> None:
    before = await whole(service)

    made = await call(
        service,
        "persona_update",
        persona_id="Aria",
        description="You are Aria, and you left the stage.",
        topic_preferences={"gardens": 90},
        social_rank="Merchant",
    )

    after = await whole(service)
    changed = ["description", "topic_preferences", "social_rank"]
    assert made == {"persona_id": "aria", "version": 2, "changed": changed}
    assert after["topic_preferences"] == {"gardens": 90}
    assert after["social_rank"] == "merchant"
    same = set(before) - {*changed, "version", "updated_at"}
    assert {k: after[k] for k in same} == {k: before[k] for k in same}


async def test_every_field_of_a_persona_can_be_changed_and_takes_what_creating_takes() -> None:
    create = operation_named("persona_create").input_schema["properties"]
    update = operation_named("persona_update").input_schema["properties"]

    for name in PersonaSpec.model_fields:
        allowed = {k: v for k, v in create[name].items() if k not in ("default", "title")}
        given = {k: v for k, v in update[name].items() if k not in ("default", "title")}
        kinds = given.pop("anyOf")
        assert {"type": "null"} in kinds, name
        merged = given | kinds[0] if len(kinds) == 2 else given
        assert merged == allowed, name


async def test_who_a_persona_was_is_kept_by_its_version(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Before.", "After.")
    await say(service, "Hello.")
    await call(service, "persona_update", persona_id="aria", name="Arabella")
    await say(service, "Hello again.")

    exchanges = await rows(service.database, tables.Exchange)
    assert await versions(service) == [(1, "Aria"), (2, "Arabella")]
    assert sorted(row["persona_version"] for row in exchanges) == [1, 2]
    assert "You are Arabella" in model.history[1].system


async def test_what_changes_nothing_makes_no_version(service: Service) -> None:
    before = await dump(service.database)

    made = await call(service, "persona_update", persona_id="aria", name="Aria")
    nothing = await call(service, "persona_update", persona_id="aria")

    assert made == nothing == {"persona_id": "aria", "version": 1, "changed": []}
    assert await dump(service.database) == before


async def test_a_change_of_a_stale_version_is_refused_and_changes_nothing(
    service: Service,
) -> None:
    await call(service, "persona_update", persona_id="aria", charisma=3, expected_version=1)
    before = await dump(service.database)

    with pytest.raises(Conflict) as stale:
        await call(service, "persona_update", persona_id="aria", charisma=4, expected_version=1)

    assert stale.value.data == {"field": "expected_version", "expected_version": 1, "version": 2}
    assert "persona 'aria' has version 2, not 1" in stale.value.message
    assert await dump(service.database) == before


async def test_a_new_name_must_be_free_and_its_own_in_another_case_is(service: Service) -> None:
    before = await dump(service.database)
    with pytest.raises(Conflict) as taken:
        await call(service, "persona_update", persona_id="aria", name="KIRA", charisma=3)
    assert taken.value.data == {"field": "name", "given": "KIRA"}
    assert await dump(service.database) == before

    assert (await call(service, "persona_update", persona_id="aria", name="ARIA"))["version"] == 2
    await call(service, "persona_update", persona_id="aria", name="Vera")

    assert (await whole(service, "vera"))["id"] == "aria"
    assert (await call(service, "persona_create", name="Aria"))["persona_id"] == "aria-2"


async def test_of_two_changes_at_once_both_are_kept_in_versions_of_their_own(
    service: Service,
) -> None:
    made = await asyncio.gather(
        call(service, "persona_update", persona_id="aria", charisma=3),
        call(service, "persona_update", persona_id="aria", intelligence=4),
    )

    found = await whole(service)
    assert sorted(one["version"] for one in made) == [2, 3]
    assert (found["charisma"], found["intelligence"], found["version"]) == (3, 4, 3)


async def test_a_persona_made_before_versions_were_kept_keeps_its_first(service: Service) -> None:
    with service.database.writing() as connection:
        connection.execute(delete(tables.PersonaVersion))

    await call(service, "persona_update", persona_id="aria", charisma=3)

    assert await versions(service) == [(1, "Aria"), (2, "Aria")]


async def test_feelings_fall_back_to_other_rests_from_the_change_on_and_not_before(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    await say(service, "Good evening.")
    before = await call(service, "persona_status", persona_id="aria")

    await call(
        service,
        "persona_update",
        persona_id="aria",
        personality_traits={"neuroticism": 0.9},
        social_energy=200,
        current_priority="urgent",
    )

    after = await call(service, "persona_status", persona_id="aria")
    energy = [one["interaction_state"]["social_energy"] for one in (before, after)]
    assert 149 < energy[0] <= energy[1] < 151
    assert after["interaction_state"]["current_priority"] == "urgent"
    was, now = (one["emotional_state"] for one in (before, after))
    assert was["baseline"] != now["baseline"]
    assert abs(was["mood"] - now["mood"]) < 0.01
    aria = await service.personas.resolve("main", "aria")
    with service.database.reading() as connection:
        folded = fold_feelings(connection, "main", aria, service.laws.effects)
        assert folded == stored_feelings(connection, "main", "aria")


async def test_a_deleted_persona_is_listed_and_answers_no_more_and_its_name_is_free(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    talk = await say(service, "Good evening.")
    kept = await remembered(service.database)

    gone = await call(service, "persona_delete", persona_id="Aria", confirm=True)

    assert gone == {
        "persona_id": "aria",
        "name": "Aria",
        "deleted": True,
        "purged": False,
        "dry_run": False,
        "message": "Aria was deleted",
        "counts": {"conversations_ended": 1, "replies_stopped": 0},
    }
    assert [p["id"] for p in (await call(service, "persona_list"))["personas"]] == ["kira", "noor"]
    for name in ("persona_get", "persona_status", "persona_delete", "memory_stats"):
        with pytest.raises(NotFound):
            await call(service, name, persona_id="aria")
    with pytest.raises(NotFound):
        await say(service, "Still there?", conversation_id=talk["conversation_id"])
    (row,) = await rows(service.database, tables.Conversation)
    assert (row["status"], row["exit_reason"]) == ("ended", "persona_deleted")
    assert row["ended_at"] is not None
    assert await remembered(service.database) == kept
    assert (await call(service, "persona_create", name="Aria"))["persona_id"] == "aria-2"


async def test_without_a_word_of_confirmation_a_call_tells_what_would_go_and_does_nothing(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    await say(service, "Good evening.")
    while await service.indexer.pending():
        await service.indexer.work_off()
    before = await dump(service.database)

    with pytest.raises(InvalidParams) as refused:
        await call(service, "persona_delete", persona_id="aria", purge=True)
    would = await call(service, "persona_delete", persona_id="aria", purge=True, dry_run=True)

    assert refused.value.data["field"] == "confirm"
    assert refused.value.data["counts"] == would["counts"]
    assert (would["deleted"], would["purged"], would["dry_run"]) == (False, False, True)
    assert would["message"] == "Aria would be deleted, with everything that was its own"
    assert (would["counts"]["memories"], would["counts"]["conversations_ended"]) == (2, 1)
    assert await dump(service.database) == before
    done = await call(service, "persona_delete", persona_id="aria", purge=True, confirm=True)
    assert done["counts"] == would["counts"]


async def test_a_purge_leaves_nothing_that_is_the_personas_own(
    service: Service, model: ScriptedModel
) -> None:
    model.add("A red boat!", "I keep it.")
    talk = await say(service, "My brother Tom has a red boat.")
    await say(service, "I keep bees.", persona_id="kira")
    await call(service, "visual_update", persona_id="aria", description="She wears a red coat.")
    while await service.indexer.pending():
        await service.indexer.work_off()

    await call(service, "persona_delete", persona_id="aria", purge=True, confirm=True)

    found = await dump(service.database)
    for name, column in (
        ("memories", "persona_id"),
        ("memory_vectors", "persona_id"),
        ("relationship_events", "from_id"),
        ("relationship_states", "from_id"),
        ("mood_impulses", "persona_id"),
        ("energy_spent", "persona_id"),
        ("persona_states", "persona_id"),
        ("persona_versions", "persona_id"),
    ):
        owners = {row[column] for row in found[name]}
        assert "aria" not in owners and "kira" in owners, name
    assert found["visual_contexts"] == []
    (left,) = [row for row in found["personas"] if row["id"] == "aria"]
    assert (left["name"], left["description"]) == ("", "")
    shown = await call(service, "conversation_get", conversation_id=talk["conversation_id"])
    assert [t["content"] for t in shown["turns"]] == [
        "My brother Tom has a red boat.",
        "A red boat!",
    ]


async def test_one_that_is_deleted_already_can_be_purged_by_its_id_once(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    await say(service, "Good evening.")
    await call(service, "persona_delete", persona_id="aria", confirm=True)

    gone = await call(service, "persona_delete", persona_id="aria", purge=True, confirm=True)

    assert (gone["name"], gone["counts"]["memories"]) == ("Aria", 2)
    with pytest.raises(NotFound):
        await call(service, "persona_delete", persona_id="aria", purge=True, confirm=True)


@pytest.mark.parametrize("purge", [False, True])
async def test_a_reply_that_is_made_while_its_persona_is_deleted_is_not_stored(
    service: Service, model: ScriptedModel, purge: bool
) -> None:
    line = Hangs("Good", " evening.")
    model.add(line)
    asked = asyncio.create_task(say(service, "Good evening."))
    await line.reached.wait()

    gone = await call(service, "persona_delete", persona_id="aria", purge=purge, confirm=True)
    line.release.set()

    with pytest.raises(PersonaError):
        await asked
    assert gone["counts"]["replies_stopped"] == 1
    assert not any((await remembered(service.database)).values())
    (exchange,) = await rows(service.database, tables.Exchange)
    assert exchange["status"] == "cancelled"
    assert exchange["error"]["message"] == "the persona was deleted while it answered"


async def test_the_status_of_a_persona_is_all_in_one(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    await say(service, "Good evening.")
    await call(service, "visual_update", persona_id="aria", description="She wears a red coat.")

    found = await call(service, "persona_status", persona_id="aria")

    full = await whole(service)
    assert found["persona"] == {k: full[k] for k in found["persona"]}
    assert list(found["persona"]) == [
        *("id", "name", "description", "personality_traits", "topic_preferences"),
        *("charisma", "intelligence", "social_rank"),
    ]
    state = found["interaction_state"]
    assert (state["is_available"], state["available_in"]) == (True, 0)
    assert (state["unavailable_reason"], state["cooldown_until"]) == (None, None)
    assert state["interaction_fatigue"] > 0
    assert found["memory_stats"]["total_memories"] == 2
    felt = await call(service, "emotional_get_state", persona_id="aria")
    assert found["emotional_state"]["baseline"] == felt["emotional_state"]["baseline"]
    assert [one["description"] for one in found["visual_context"]] == ["She wears a red coat."]
    assert found["version"] == 1


async def test_a_persona_that_rests_says_why_and_until_when(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    await call(service, "persona_update", persona_id="aria", available_time=60)
    await say(service, "Good evening.")
    now = (await rows(service.database, tables.PersonaState))[0]["interaction"]
    with service.database.writing() as connection:
        connection.execute(
            update(tables.PersonaState).values(
                interaction={**now, "time": 0.0, "cooldown_until": now["as_of"] + 5}
            )
        )

    state = (await call(service, "persona_status", persona_id="aria"))["interaction_state"]

    assert (state["is_available"], state["unavailable_reason"]) == (False, "no_time")
    assert state["available_in"] > 1000
    assert state["cooldown_until"].endswith("Z")


async def test_relationships_are_there_under_their_old_name(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Good evening.")
    await say(service, "Good evening.")

    one = await call(service, "persona_relationship", persona_id="aria", target_persona="user")
    none = await call(service, "persona_relationship", persona_id="aria", target_persona="Kira")
    every = await call(service, "persona_relationship", persona_id="aria")

    view = await call(service, "relationship_get", persona1_id="aria", persona2_id="user")
    assert (one["current_persona"], one["target_persona"]) == ("aria", "user")
    assert one["relationship"]["interaction_count"] == view["relationship"]["interaction_count"]
    assert one["relationships"] is None
    assert (none["target_persona"], none["relationship"]) == ("kira", None)
    assert [r["other_persona_id"] for r in every["relationships"]] == ["user"]
    assert every["relationship"] is None
