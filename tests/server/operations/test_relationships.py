"""Relationships from outside: how one sees the other."""

import pytest

from persona_mcp.graphs.relationship import build_relationship
from persona_mcp.nodes.relationship_state import RelationshipInput
from persona_mcp.server.service import Service
from persona_mcp.state.errors import InvalidParams, NotFound
from tests.calls import call, say
from tests.doubles import ScriptedModel

pytestmark = pytest.mark.anyio


async def test_a_persona_sees_a_user_it_has_talked_to(
    service: Service, model: ScriptedModel
) -> None:
    model.add("Then I shall sing it for you.")
    await say(service, "Thank you so much, that was kind of you.", user_id="ann")

    found = await call(service, "relationship_get", persona1_id="ARIA", persona2_id="ann")

    values = found["relationship"]
    assert (found["exists"], found["message"], found["reverse"]) == (True, None, None)
    assert (values["persona1_id"], values["persona2_id"]) == ("aria", "ann")
    assert values["relationship_type"] == "stranger"
    assert values["interaction_count"] == 2
    assert values["total_interaction_time"] == pytest.approx(10 / 60, abs=1e-3)
    assert 0 < values["familiarity"] < 1
    assert -1 <= values["affinity"] <= 1
    assert values["first_meeting"] == values["last_interaction"]
    assert values["as_of"].endswith("Z")


async def test_personas_that_never_met_have_no_relationship(service: Service) -> None:
    found = await call(service, "relationship_get", persona1_id="aria", persona2_id="Kira")

    assert found == {
        "exists": False,
        "relationship": None,
        "reverse": None,
        "reasons": [],
        "what_if": None,
        "message": "'aria' has not met 'kira' yet",
    }


async def test_a_relationship_has_a_direction(service: Service) -> None:
    graph = build_relationship(service.parts).compile()
    told = RelationshipInput(
        world_id="main",
        event_id="e1",
        actor_id="kira",
        receiver_id="aria",
        direction="backward",
        text="I hate you, go away.",
    )
    await graph.ainvoke(told)

    there = await call(service, "relationship_get", persona1_id="aria", persona2_id="kira")
    back = await call(service, "relationship_get", persona1_id="kira", persona2_id="aria")

    assert there["exists"] and there["reverse"] is None
    assert not back["exists"] and back["relationship"] is None
    assert back["reverse"]["persona1_id"] == "aria"
    assert back["reverse"]["affinity"] == pytest.approx(there["relationship"]["affinity"], abs=1e-4)


async def test_nobody_has_a_relationship_to_itself(service: Service) -> None:
    with pytest.raises(InvalidParams) as refused:
        await call(service, "relationship_get", persona1_id="aria", persona2_id="Aria")

    assert refused.value.data["field"] == "persona2_id"


async def test_somebody_unknown_is_not_found_on_either_side(service: Service) -> None:
    with pytest.raises(NotFound, match="persona 'ann' not found"):
        await call(service, "relationship_get", persona1_id="aria", persona2_id="ann")
    with pytest.raises(NotFound, match="persona 'ann' not found"):
        await call(service, "relationship_get", persona1_id="ann", persona2_id="aria")
