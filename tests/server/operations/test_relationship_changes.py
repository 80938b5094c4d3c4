"""relationship_update: what happened outside of a conversation, told by a client."""

import asyncio
from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound
from tests.calls import call, dump, rows, say
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio

PAIR = {"persona1_id": "aria", "persona2_id": "kira"}
SHOWN = {"affinity", "trust", "respect", "intimacy", "familiarity"}


async def update(service: Service, **more: Any) -> dict[str, Any]:
    return await call(service, "relationship_update", **{**PAIR, **more})


async def test_a_meeting_of_two_personas_moves_both(service: Service) -> None:
    found = await update(
        service, interaction_quality=0.8, duration_minutes=30, context="collaboration"
    )

    assert found["success"] is True
    assert found["message"] == "how aria sees kira and kira sees aria has been updated"
    assert found["interaction_processed"] == {
        "quality": 0.8,
        "duration_minutes": 30.0,
        "context": "collaboration",
    }
    for view in (found["updated_relationship"], found["reverse_relationship"]):
        assert set(view) == {*SHOWN, "relationship_type", "compatibility_score"}
        assert view["trust"] > 0 < view["familiarity"]
    assert set(found["emotional_effect"]) == {"aria", "kira"}
    assert found["emotional_effect"]["aria"]["mood"] > 0
    events = await rows(service.database, tables.RelationshipEvent)
    assert {event["id"] for event in events} == set(found["event_ids"])
    seen = await call(service, "relationship_get", **PAIR)
    assert {name: seen["relationship"][name] for name in SHOWN} == pytest.approx(
        {name: found["updated_relationship"][name] for name in SHOWN}, abs=1e-4
    )


async def test_what_is_left_out_is_a_neutral_talk_of_five_minutes(service: Service) -> None:
    found = await update(service)

    processed = found["interaction_processed"]
    assert processed == {"quality": 0.0, "duration_minutes": 5.0, "context": "conversation"}
    assert found["updated_relationship"]["familiarity"] == pytest.approx(0.0230, abs=1e-3)
    (why,) = {event["why"] for event in await rows(service.database, tables.RelationshipEvent)}
    assert why == "neutral: conversation, 5 min"


async def test_enmity_can_come_of_it(service: Service) -> None:
    for _ in range(12):
        quarrel = {"interaction_quality": -0.9, "duration_minutes": 60, "context": "conflict"}
        found = await update(service, **quarrel)

    assert found["updated_relationship"]["relationship_type"] == "enemy"
    assert found["updated_relationship"]["trust"] < -0.9


async def test_an_unknown_context_counts_as_a_conversation_and_is_kept(service: Service) -> None:
    await update(service, interaction_quality=0.5, context="🎻 duet", request_id="a")
    await update(service, interaction_quality=0.5, direction="forward")

    odd, _, plain = sorted(
        await rows(service.database, tables.RelationshipEvent), key=lambda e: (e["at"], e["seq"])
    )
    assert odd["context"] == "🎻 duet"
    assert odd["appraisal"] == plain["appraisal"]


async def test_an_appraisal_takes_the_place_of_the_quality(service: Service) -> None:
    given = {"warmth": -0.7, "competence": 0.9}
    asked = {"interaction_quality": 1, "appraisal": given, "duration_minutes": 60}
    view = (await update(service, **asked, direction="forward"))["updated_relationship"]

    assert view["affinity"] < 0 < view["respect"]
    (event,) = await rows(service.database, tables.RelationshipEvent)
    assert event["appraisal"] == {**given, "reliability": 0.0, "disclosure": 0.0}
    assert event["appraiser"] == "given"


async def test_a_turning_point_weighs_more(service: Service) -> None:
    noor = {"persona2_id": "noor", "direction": "forward"}
    await update(service, direction="forward")
    await update(service, **noor, turning_point=True)
    await update(service, **noor, context="betrayal")
    await update(service, **noor, context="betrayal", turning_point=False)

    events = await rows(service.database, tables.RelationshipEvent)
    plain, *others = (event["size"] for event in sorted(events, key=lambda event: event["at"]))
    assert others == pytest.approx([1.5 * plain, 1.5 * plain, plain])


async def test_a_reason_is_kept(service: Service) -> None:
    await update(service, why="She carried my lute home.")

    events = await rows(service.database, tables.RelationshipEvent)
    assert [event["why"] for event in events] == ["She carried my lute home."] * 2


async def test_backward_moves_the_other_view_alone(service: Service) -> None:
    found = await update(service, interaction_quality=0.5, direction="backward")

    assert found["updated_relationship"] is None
    assert found["reverse_relationship"]["affinity"] != 0
    assert set(found["emotional_effect"]) == {"kira"}
    assert len(found["event_ids"]) == 1


async def test_a_user_is_a_party_whose_own_view_is_not_kept(
    service: Service, model: ScriptedModel
) -> None:
    with pytest.raises(NotFound, match="persona 'ann' not found"):
        await update(service, persona2_id="ann")
    model.add("Good evening.")
    await say(service, "Good evening.", user_id="ann")

    found = await update(service, persona2_id="ann", interaction_quality=0.9)

    assert found["updated_relationship"]["affinity"] > 0
    assert found["reverse_relationship"] is None
    assert set(found["emotional_effect"]) == {"aria"}
    with pytest.raises(InvalidParams, match="direction"):
        await update(service, persona2_id="ann", direction="backward")


async def test_a_request_counts_once_and_is_answered_as_the_first_time(service: Service) -> None:
    first = await update(service, interaction_quality=0.7, request_id="r1")
    await update(service, interaction_quality=-0.7, context="betrayal")
    before = await dump(service.database)

    again = await update(service, interaction_quality=0.7, request_id="r1")

    assert again == first
    assert await dump(service.database) == before


async def test_a_request_id_that_was_used_for_something_else_is_refused(service: Service) -> None:
    await update(service, interaction_quality=0.7, request_id="r1")
    before = await dump(service.database)

    for other in (
        {"interaction_quality": 0.71},
        {"interaction_quality": 0.7, "persona2_id": "noor"},
        {"interaction_quality": 0.7, "direction": "forward"},
        {"interaction_quality": 0.7, "why": "Because."},
    ):
        with pytest.raises(Conflict, match="request_id 'r1' was used for another call"):
            await update(service, **other, request_id="r1")

    assert await dump(service.database) == before


async def test_many_at_once_all_count_once(service: Service) -> None:
    names = [f"r{n % 10}" for n in range(30)]
    answers = await asyncio.gather(
        *(update(service, interaction_quality=0.3, request_id=name) for name in names)
    )

    assert len({tuple(answer["event_ids"]) for answer in answers}) == 10
    events = await rows(service.database, tables.RelationshipEvent)
    assert sorted(e["seq"] for e in events if e["from_id"] == "aria") == list(range(1, 11))
    seen = await call(service, "relationship_get", **PAIR)
    assert seen["relationship"]["interaction_count"] == 10


async def test_it_counts_while_a_reply_is_made(service: Service, model: ScriptedModel) -> None:
    model.add("Hm.", "Hm.")
    await say(service, "Hello.", user_id="ann")
    talking = asyncio.create_task(say(service, "Thank you.", user_id="ann"))
    ann = {"persona2_id": "ann", "interaction_quality": 0.9}
    await asyncio.gather(talking, *(update(service, **ann) for _ in range(5)))

    events = await rows(service.database, tables.RelationshipEvent)
    assert sorted(event["seq"] for event in events) == list(range(1, 10))
    assert sum(event["kind"] == "update" for event in events) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("interaction_quality", 1.5),
        ("interaction_quality", float("nan")),
        ("interaction_quality", float("inf")),
        ("interaction_quality", "0.5"),
        ("interaction_quality", True),
        ("duration_minutes", 1441),
        ("duration_minutes", -1),
        ("context", "x" * 61),
        ("context", " \t"),
        ("direction", "left"),
        ("why", "x" * 501),
        ("appraisal.warmth", {"warmth": 1.5}),
        ("appraisal.disclosure", {"disclosure": -0.1}),
        ("appraisal.charm", {"charm": 1}),
        ("turning_point", "yes"),
        ("request_id", "no spaces"),
        ("persona2_id", "Aria"),
        ("persona2_id", ""),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(
    service: Service, field: str, value: Any
) -> None:
    before = await dump(service.database)

    with pytest.raises(InvalidParams) as refused:
        await update(service, **{field.partition(".")[0]: value})

    assert refused.value.data["field"] == field
    assert await dump(service.database) == before


async def test_the_ends_of_the_ranges_are_taken(service: Service) -> None:
    for quality, minutes in ((-1, 0), (1, 1440), (0.0, 5.5)):
        given = {"interaction_quality": quality, "duration_minutes": minutes, "context": "é" * 60}
        assert (await update(service, **given))["success"]


async def test_who_is_not_there_is_not_found(service: Service) -> None:
    for name in PAIR:
        with pytest.raises(NotFound, match="persona 'nobody' not found"):
            await update(service, **{name: "nobody"})
