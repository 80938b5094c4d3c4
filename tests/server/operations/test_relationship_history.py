"""Why a relationship is as it is: its reasons, its history, and what would be without an event."""

import math
import time
from typing import Any

import pytest

from persona_mcp.server.service import Service
from persona_mcp.state.arrow import Origin
from persona_mcp.state.errors import InvalidParams, NotFound
from persona_mcp.state.moments import rfc3339
from persona_mcp.state.relationship import Deltas
from tests.arrows import DAY, happen, switch_off
from tests.calls import call, say
from tests.doubles import ScriptedModel
from tests.mcp_client import ERAS, Era, Way, error_of, good, talking

pytestmark = pytest.mark.anyio

ARIA_OF_KIRA = {"persona1_id": "aria", "persona2_id": "kira"}
COURSE = {
    "met": Deltas(affinity=0.05, contact=0.1),
    "saved": Deltas(affinity=0.3, trust=0.6, contact=0.1),
    "lied": Deltas(affinity=-0.1, trust=-0.5, contact=0.1),
    "sang": Deltas(respect=0.2, contact=0.1),
    "told": Deltas(affinity=0.02, disclosure=0.3, contact=0.1),
}
PARTS = ("affinity", "trust", "respect", "disclosure")


@pytest.fixture
def began(service: Service) -> float:
    """Let Aria come to know Kira, one thing a day, the last one a day ago."""
    began = time.time() - len(COURSE) * DAY
    for day, (id, deltas) in enumerate(COURSE.items()):
        happen(service.database, id, "aria", "kira", deltas, at=began + day * DAY, why=f"she {id}")
    return began


async def history(service: Service, **arguments: Any) -> dict[str, Any]:
    return await call(service, "relationship_history", **{**ARIA_OF_KIRA, **arguments})


async def ids(service: Service, **arguments: Any) -> list[str]:
    return [event["event_id"] for event in (await history(service, **arguments))["events"]]


async def test_a_relationship_names_the_three_events_that_weigh_most_now(
    service: Service, began: float
) -> None:
    found = await call(service, "relationship_get", **ARIA_OF_KIRA)

    first, second, third = found["reasons"]
    assert [one["event_id"] for one in (first, second, third)] == ["saved", "lied", "sang"]
    assert first["weight"] > second["weight"] > third["weight"] > 0
    assert (first["why"], first["at"]) == ("she saved", rfc3339(began + DAY))
    assert (first["source"], first["kind"]) == ("witnessed", "update")
    assert 0 < first["contribution"]["trust"] < 0.6
    assert -0.5 < second["contribution"]["trust"] < 0


async def test_reasons_are_those_of_the_one_who_sees(service: Service) -> None:
    happen(service.database, "secret", "kira", "aria", why="kira heard a secret")

    back = await call(service, "relationship_get", **ARIA_OF_KIRA)
    there = await call(service, "relationship_get", persona1_id="kira", persona2_id="aria")

    assert back["reasons"] == [] and back["reverse"] is not None
    assert "kira heard" not in str(back)
    assert [one["why"] for one in there["reasons"]] == ["kira heard a secret"]


async def test_of_reasons_that_weigh_the_same_the_latest_comes_first(service: Service) -> None:
    for number in range(5):
        happen(service.database, f"e{number}", "aria", "kira", at=1_700_000_000.0)

    found = await call(service, "relationship_get", **ARIA_OF_KIRA)

    assert [one["event_id"] for one in found["reasons"]] == ["e4", "e3", "e2"]
    assert await ids(service, top=3) == ["e4", "e3", "e2"]


async def test_what_if_tells_how_it_would_be_without_some_events(
    service: Service, began: float
) -> None:
    found = await call(service, "relationship_get", **ARIA_OF_KIRA, without=["lied"])
    plain = await call(service, "relationship_get", **ARIA_OF_KIRA)
    switch_off(service.database, "aria", "kira", "lied")
    truly = await call(service, "relationship_get", **ARIA_OF_KIRA)

    timed = {"as_of": None}
    assert plain["what_if"] is None
    assert found["what_if"]["trust"] > found["relationship"]["trust"] + 0.2
    assert {**found["what_if"], **timed} == pytest.approx({**truly["relationship"], **timed})


async def test_the_first_impression_stays_though_the_first_event_is_thought_away(
    service: Service, began: float
) -> None:
    without = list(COURSE)[:-1]

    found = await call(service, "relationship_get", **ARIA_OF_KIRA, without=without)
    nothing = await call(service, "relationship_get", **ARIA_OF_KIRA, without=list(COURSE))

    assert found["what_if"]["interaction_count"] == 1
    assert found["what_if"]["affinity"] == pytest.approx(math.tanh(0.1 / 1.02 + 0.02), abs=2e-3)
    assert nothing["what_if"] is None
    assert nothing["relationship"]["interaction_count"] == len(COURSE)


@pytest.mark.parametrize("known", [True, False])
async def test_an_event_that_is_not_of_the_two_cannot_be_thought_away(
    service: Service, began: float, known: bool
) -> None:
    happen(service.database, "other", "kira", "aria")
    strange = "other" if known else "nothing"

    with pytest.raises(NotFound) as refused:
        await call(service, "relationship_get", **ARIA_OF_KIRA, without=["lied", strange])

    assert refused.value.data == {"kind": "event", "id": strange}
    assert f"event '{strange}' not found" in refused.value.message
    assert "relationship_history" in refused.value.message


async def test_a_history_tells_each_event_with_what_it_changed(
    service: Service, began: float
) -> None:
    found = await history(service)

    assert [event["event_id"] for event in found["events"]] == list(COURSE)
    assert (found["persona1_id"], found["persona2_id"]) == ("aria", "kira")
    assert (found["total_count"], found["next_cursor"]) == (len(COURSE), None)
    saved = found["events"][1]
    assert saved["delta"]["latent"] == pytest.approx(
        {"affinity": 0.3, "trust": 0.6, "respect": 0.0, "disclosure": 0.0}
    )
    assert saved["appraisal"] == {
        "warmth": 0.5,
        "reliability": 0.0,
        "competence": 0.0,
        "disclosure": 0.0,
    }
    assert (saved["why"], saved["at"]) == ("she saved", rfc3339(began + DAY))
    assert saved["values_after"]["trust"] == pytest.approx(math.tanh(0.02 + 0.6), abs=1e-3)
    assert saved["delta"]["shown"]["trust"] == pytest.approx(
        math.tanh(0.62) - math.tanh(0.02), 1e-3
    )
    assert saved["delta"]["shown"]["familiarity"] > 0


async def test_the_last_values_of_a_history_lead_to_those_of_today(
    service: Service, began: float
) -> None:
    happen(service.database, "now", "aria", "kira", at=time.time())

    last = (await history(service))["events"][-1]["values_after"]
    now = (await call(service, "relationship_get", **ARIA_OF_KIRA))["relationship"]

    assert last == pytest.approx({name: now[name] for name in last}, abs=1e-4)


async def test_what_is_left_of_all_events_makes_up_the_relationship(
    service: Service, began: float
) -> None:
    found = await history(service)
    now = (await call(service, "relationship_get", **ARIA_OF_KIRA))["relationship"]

    parts = [found["baseline"], *(event["contribution"] for event in found["events"])]
    sums = {name: sum(part[name] for part in parts) for name in PARTS}
    assert [math.tanh(sums[name]) for name in PARTS[:3]] == pytest.approx(
        [now[name] for name in PARTS[:3]], abs=1e-5
    )
    intimacy = now["familiarity"] * (1 + now["trust"]) / 2 * -math.expm1(-sums["disclosure"])
    assert now["intimacy"] == pytest.approx(intimacy, abs=1e-5)


async def test_a_history_may_be_of_one_dimension(service: Service, began: float) -> None:
    assert await ids(service, dimension="trust") == ["saved", "lied"]
    assert await ids(service, dimension="respect") == ["sang"]
    assert await ids(service, dimension="intimacy") == ["told"]
    assert await ids(service, dimension="affinity", top=2) == ["saved", "lied"]


async def test_top_goes_by_what_is_left_and_not_by_what_there_was(service: Service) -> None:
    now = time.time()
    happen(service.database, "old", "aria", "kira", Deltas(trust=0.9), at=now - 900 * DAY)
    happen(service.database, "new", "aria", "kira", Deltas(trust=0.2), at=now)

    assert await ids(service, top=2) == ["new", "old"]
    assert await ids(service, top=1, dimension="trust") == ["new"]
    assert await ids(service) == ["old", "new"]


async def test_a_history_has_pages_and_a_span(service: Service, began: float) -> None:
    first = await history(service, limit=2)
    rest = await history(service, limit=200, cursor=first["next_cursor"])

    told = [event["event_id"] for page in (first, rest) for event in page["events"]]
    assert told == list(COURSE)
    assert (first["next_cursor"], first["total_count"], rest["next_cursor"]) == ("2", 5, None)
    assert (await history(service, top=3, limit=2))["next_cursor"] == "2"
    assert await ids(service, top=3, limit=2, cursor="2") == ["sang"]
    assert await ids(service, cursor="99") == []
    since, until = (rfc3339(began + n * DAY) for n in (0.5, 2.5))
    assert await ids(service, since=since, until=until) == ["saved", "lied"]
    with pytest.raises(InvalidParams, match="until: allowed is a time after since"):
        await history(service, since=until, until=since)


async def test_hearsay_shows_who_told_it_and_a_bond_has_no_appraisal(service: Service) -> None:
    happen(
        service.database,
        "rumour",
        "aria",
        "kira",
        kind="hearsay",
        direct=False,
        origin=Origin("turn-1", "noor", "model", "asked twice"),
    )
    happen(service.database, "vow", "aria", "kira", kind="bond", bond="vow", appraisal=None)

    rumour, vow = (await history(service))["events"]

    assert (rumour["source"], rumour["source_id"], rumour["kind"]) == ("told", "noor", "hearsay")
    assert (rumour["source_turn"], rumour["appraiser"]) == ("turn-1", "model")
    assert rumour["note"] == "asked twice"
    assert (vow["source"], vow["source_id"], vow["appraisal"], vow["bond"]) == (
        "witnessed",
        None,
        None,
        "vow",
    )


async def test_what_was_taken_back_is_in_no_history(service: Service, began: float) -> None:
    switch_off(service.database, "aria", "kira", "met", "lied")

    assert await ids(service) == ["saved", "sang", "told"]


async def test_a_history_of_two_that_never_met_is_empty(service: Service) -> None:
    found = await history(service)

    assert (found["events"], found["total_count"]) == ([], 0)
    assert found["baseline"] == dict.fromkeys(PARTS, 0.0)


async def test_only_a_persona_has_a_history_and_none_with_itself(service: Service) -> None:
    with pytest.raises(NotFound, match="persona 'ann' not found"):
        await history(service, persona1_id="ann")
    with pytest.raises(NotFound, match="persona 'ann' not found"):
        await history(service, persona2_id="ann")
    with pytest.raises(InvalidParams, match="persona2_id: allowed is somebody else"):
        await history(service, persona2_id="ARIA")


async def test_a_history_shows_nothing_of_what_the_other_alone_heard(
    service: Service, model: ScriptedModel
) -> None:
    model.add("I keep it.", "I know nothing.")
    await say(service, "The password is zyzzyva.", user_id="ann")
    await say(service, "Hello, Kira.", user_id="ann", persona_id="kira")

    own = await history(service, persona2_id="ann")
    others = [
        await history(service, persona1_id="kira", persona2_id="ann"),
        await call(service, "relationship_get", persona1_id="kira", persona2_id="aria"),
        await call(service, "relationship_graph"),
    ]

    assert "zyzzyva" in str(own)
    assert [event["source_turn"] is not None for event in own["events"]] == [True, True]
    assert [event["exchange_id"] is not None for event in own["events"]] == [True, True]
    assert "zyzzyva" not in str(others)


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_asks_why_and_what_if(service: Service, began: float, era: Era) -> None:
    async with talking(service, Way("http", era), path="/x/all/mcp") as client:
        told = await good(client, "relationship_history", **ARIA_OF_KIRA, top=1, dimension="trust")
        reason = told["events"][0]["event_id"]
        imagined = await good(client, "relationship_get", **ARIA_OF_KIRA, without=[reason])
        listed = await good(client, "relationship_list", persona_id="aria")
        await good(client, "relationship_compatibility", **ARIA_OF_KIRA)
        await good(client, "relationship_stats")
        graph = await good(client, "relationship_graph", format="graphml")
        wrong = {"dimension": "charm", "top": 0, "since": "yesterday", "cursor": "-1"}
        refused = await client.call_tool("relationship_history", {**ARIA_OF_KIRA, **wrong})
        unknown = await client.call_tool("relationship_get", {**ARIA_OF_KIRA, "without": ["x"]})

    assert imagined["what_if"]["trust"] < imagined["relationship"]["trust"]
    assert [one["other_name"] for one in listed["relationships"]] == ["Kira"]
    assert graph["document"].startswith("<graphml")
    assert {fault["field"] for fault in error_of(refused)["data"]["errors"]} == set(wrong)
    assert error_of(unknown)["data"]["kind"] == "event"
