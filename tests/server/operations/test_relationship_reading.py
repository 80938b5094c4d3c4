"""Many relationships from outside: lists, numbers, and how well two personas fit."""

import statistics
import time
from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state.errors import InvalidParams, NoCurrentPersona, NotFound
from persona_mcp.state.relationship import Deltas
from tests.arrows import CRUEL, KIND, crowd, delete_persona, happen
from tests.calls import call, watched

pytestmark = pytest.mark.anyio

STRONG = Deltas(affinity=1.0, trust=1.0, respect=1.0, contact=0.5)
CROWD = 200


def lately(service: Service, id: str, from_id: str, to_id: str, *rest: Any, **more: Any) -> None:
    """Let something happen a minute ago: of what is long past not much is left."""
    happen(service.database, id, from_id, to_id, *rest, at=time.time() - 60, **more)


async def page_of(service: Service, **arguments: Any) -> list[str]:
    found = await call(service, "relationship_list", persona_id="aria", **arguments)
    return [one["other_persona_id"] for one in found["relationships"]]


async def test_a_persona_lists_whom_it_knows_the_strongest_bond_first(service: Service) -> None:
    lately(service, "e1", "aria", "noor", CRUEL)
    lately(service, "e2", "aria", "kira", STRONG)
    lately(service, "e3", "aria", "sam")
    lately(service, "e4", "kira", "aria")

    found = await call(service, "relationship_list", persona_id="Aria")

    kira, sam, noor = found["relationships"]
    assert (found["persona_id"], found["total_relationships"]) == ("aria", 3)
    assert found["next_cursor"] is None
    assert [one["other_persona_id"] for one in (kira, sam, noor)] == ["kira", "sam", "noor"]
    assert (kira["other_name"], kira["other_kind"]) == ("Kira", "persona")
    assert (sam["other_name"], sam["other_kind"]) == ("sam", "user")
    assert kira["relationship_strength"] > sam["relationship_strength"] > 0
    assert noor["relationship_strength"] < 0 < noor["familiarity"]
    assert kira["last_interaction"].endswith("Z")


async def test_a_list_says_the_same_as_a_single_relationship(service: Service) -> None:
    for number in range(12):
        lately(service, f"e{number}", "aria", "kira", Deltas(respect=0.2, contact=0.1))
        lately(service, f"b{number}", "kira", "aria", CRUEL)

    (one,) = (await call(service, "relationship_list", persona_id="aria"))["relationships"]
    got = (await call(service, "relationship_get", persona1_id="aria", persona2_id="kira"))[
        "relationship"
    ]

    shared = set(one) & set(got)
    assert {"affinity", "relationship_type", "compatibility_score"} < shared
    assert {name: one[name] for name in shared} == pytest.approx(
        {name: got[name] for name in shared}, abs=2e-6
    )
    assert one["relationship_type"] == "mentor"


async def test_a_list_comes_in_pages_in_an_order_that_ties_do_not_change(service: Service) -> None:
    users = [f"user-{n}" for n in (3, 1, 2, 0)]
    for user in users:
        happen(service.database, f"e-{user}", "aria", user)

    first = await call(service, "relationship_list", persona_id="aria", limit=3)
    rest = await page_of(service, limit=3, cursor=first["next_cursor"])

    assert (first["next_cursor"], first["total_relationships"]) == ("3", 4)
    assert [one["other_persona_id"] for one in first["relationships"]] + rest == sorted(users)


async def test_a_list_may_leave_the_weak_ones_out(service: Service) -> None:
    lately(service, "e1", "aria", "noor", CRUEL)
    lately(service, "e2", "aria", "kira", STRONG)

    assert await page_of(service, min_strength=0.3) == ["kira"]
    assert await page_of(service, min_strength=-1) == ["kira", "noor"]


async def test_a_deleted_persona_is_in_no_list(service: Service) -> None:
    lately(service, "e1", "aria", "kira")
    delete_persona(service.database, "kira")

    assert await page_of(service) == []
    stats = (await call(service, "relationship_stats"))["relationship_statistics"]
    assert (stats["total_directed"], stats["average_compatibility"]) == (0, None)
    with pytest.raises(NotFound, match="persona 'kira' not found"):
        await call(service, "relationship_get", persona1_id="aria", persona2_id="kira")


async def test_the_list_is_of_the_sessions_persona_where_none_is_named(service: Service) -> None:
    lately(service, "e1", "kira", "aria")
    bound = await call(service, "persona_switch", persona_id="kira")

    found = await call(service, "relationship_list", session_id=bound["session_id"])

    assert (found["persona_id"], found["total_relationships"]) == ("kira", 1)
    with pytest.raises(NoCurrentPersona):
        await call(service, "relationship_list")


async def test_a_list_among_two_hundred_personas_is_read_at_once(service: Service) -> None:
    crowd(service.database, CROWD)

    with watched(service.database) as statements:
        found = await call(service, "relationship_list", persona_id="p007", limit=200)

    assert len(found["relationships"]) == found["total_relationships"] == CROWD - 1
    assert len(statements) < CROWD / 10, "not one for each"


async def test_two_personas_are_compared_by_who_they_are(service: Service) -> None:
    found = await call(
        service, "relationship_compatibility", persona1_id="aria", persona2_id="Kira"
    )
    back = await call(service, "relationship_compatibility", persona1_id="kira", persona2_id="aria")

    fit, advice = found["compatibility_analysis"], found["interaction_suggestions"]
    weighed = (
        0.35 * fit["personality"] + 0.25 * fit["social"] + 0.25 * fit["interests"]
    ) + 0.15 * fit["history"]
    assert found["persona1"] == {"id": "aria", "name": "Aria"}
    assert found["persona2"] == {"id": "kira", "name": "Kira"}
    assert found["existing_relationship"] is False
    assert fit["overall"] == pytest.approx(weighed, abs=6e-4)
    assert fit["history"] == 0.5
    assert advice["recommended_topics"] == ["magic"]
    assert set(advice["potential_challenges"]) == {"personality_clash", "energy_level_mismatch"}
    assert (fit, advice) == (back["compatibility_analysis"], back["interaction_suggestions"])


async def test_how_they_see_each_other_now_enters_how_well_they_fit(service: Service) -> None:
    lately(service, "e1", "aria", "kira", STRONG)
    one_sided = await call(
        service, "relationship_compatibility", persona1_id="kira", persona2_id="aria"
    )
    lately(service, "e2", "kira", "aria", CRUEL)
    both = await call(service, "relationship_compatibility", persona1_id="kira", persona2_id="aria")
    views = await call(service, "relationship_get", persona1_id="aria", persona2_id="kira")

    strengths = [views[way]["relationship_strength"] for way in ("relationship", "reverse")]
    assert one_sided["existing_relationship"] and both["existing_relationship"]
    assert one_sided["compatibility_analysis"]["history"] == pytest.approx(
        (strengths[0] + 1) / 2, abs=1e-4
    )
    assert both["compatibility_analysis"]["history"] == pytest.approx(
        (sum(strengths) / 2 + 1) / 2, abs=1e-4
    )


async def test_only_two_different_personas_are_compared(service: Service) -> None:
    lately(service, "e1", "aria", "sam")

    with pytest.raises(InvalidParams, match="persona2_id: allowed is somebody else"):
        await call(service, "relationship_compatibility", persona1_id="aria", persona2_id="ARIA")
    with pytest.raises(NotFound, match="persona 'sam' not found"):
        await call(service, "relationship_compatibility", persona1_id="aria", persona2_id="sam")


async def test_the_relationships_of_a_world_are_counted(service: Service) -> None:
    for number in range(3):
        lately(service, f"e{number}", "aria", "kira", STRONG)
    lately(service, "e3", "kira", "aria", CRUEL)
    lately(service, "e4", "kira", "noor", KIND, kind="hearsay", direct=False)
    lately(service, "e5", "aria", "sam", CRUEL)

    found = await call(service, "relationship_stats")
    lists = [await call(service, "relationship_list", persona_id=p) for p in ("aria", "kira")]

    stats = found["relationship_statistics"]
    arrows = [one for each in lists for one in each["relationships"]]
    scores = [one["compatibility_score"] for one in arrows]
    assert (stats["total_relationships"], stats["total_directed"]) == (3, 4)
    assert sum(stats["relationship_types"].values()) == 4
    assert {one["relationship_type"] for one in arrows} == set(stats["relationship_types"])
    assert stats["average_compatibility"] == pytest.approx(statistics.mean(scores), abs=1e-4)
    assert stats["total_interactions"] == 3 + 1
    assert stats["most_active_personas"] == [
        {"persona_id": "aria", "name": "Aria", "interactions": 4},
        {"persona_id": "kira", "name": "Kira", "interactions": 1},
    ]
    assert found["timestamp"].endswith("Z")


async def test_a_world_where_nobody_met_has_nothing_to_count(service: Service) -> None:
    stats = (await call(service, "relationship_stats"))["relationship_statistics"]

    assert stats == {
        "total_relationships": 0,
        "total_directed": 0,
        "relationship_types": {},
        "average_compatibility": None,
        "total_interactions": 0,
        "most_active_personas": [],
    }
