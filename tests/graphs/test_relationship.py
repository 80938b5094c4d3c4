"""The relationship's graph, called alone."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from sqlalchemy import update

from persona_mcp.graphs.relationship import build_relationship
from persona_mcp.nodes.relationship_state import RelationshipInput
from persona_mcp.server.service import Service
from persona_mcp.state import relationship, tables
from persona_mcp.state.arrow import Arrow
from persona_mcp.state.effects import read_arrow
from persona_mcp.state.errors import Conflict, InvalidParams, NotFound
from persona_mcp.state.prepared import Prepared
from tests.calls import Row, dump, rows
from tests.doubles import FixedClock

pytestmark = pytest.mark.anyio

KIND = "Thank you so much, that was kind of you."
BETRAYAL: dict[str, Any] = {"quality": -1.0, "context": "betrayal", "minutes": 10}


def happened(event_id: str = "e1", **more: Any) -> RelationshipInput:
    """Ann, a user, acts toward Aria, unless others are named."""
    given = {"world_id": "main", "actor_id": "ann", "receiver_id": "aria", **more}
    return RelationshipInput(**{"event_id": event_id, **given})  # type: ignore[typeddict-item]


async def run(service: Service, given: RelationshipInput) -> dict[str, Any]:
    """Run the graph."""
    found: dict[str, Any] = await build_relationship(service.parts).compile().ainvoke(given)
    return found


async def events(service: Service) -> list[Row]:
    return await rows(service.database, tables.RelationshipEvent)


async def arrows(service: Service) -> dict[tuple[str, str], Arrow]:
    found = await rows(service.database, tables.RelationshipState)
    return {(row["from_id"], row["to_id"]): Arrow(**row["arrow"]) for row in found}


async def test_the_graph_has_four_steps_in_a_row(service: Service) -> None:
    drawn = build_relationship(service.parts).compile().get_graph()

    steps = ["__start__", "appraise", "validate", "apply", "persist", "__end__"]
    assert list(drawn.nodes) == steps
    assert {(e.source, e.target) for e in drawn.edges} == set(pairwise(steps))


async def test_what_is_said_moves_how_it_is_seen(service: Service) -> None:
    kind = await run(service, happened(text=KIND))
    cruel = await run(service, happened("e2", text="I hate you, go away.", actor_id="bob"))

    assert kind["backward"]["affinity"] > cruel["backward"]["affinity"]
    for seen in (kind["backward"], cruel["backward"]):
        assert all(-1 <= seen[name] <= 1 for name in ("affinity", "trust", "respect"))
        assert 0 <= seen["intimacy"] <= 1


async def test_an_act_moves_its_receiver_more_than_who_acts(service: Service) -> None:
    given = {"warmth": 0.8, "reliability": 0.8, "competence": 0.8, "disclosure": 0.8}
    await run(service, happened(actor_id="Kira", text=KIND, appraisal=given))

    by = {event["from_id"]: event for event in await events(service)}
    assert set(by) == {"aria", "kira"}
    assert (by["aria"]["weight"], by["aria"]["disclosure_weight"]) == (1.0, 1.0)
    assert (by["kira"]["weight"], by["kira"]["disclosure_weight"]) == (0.35, 0.7)
    assert all(
        (e["kind"], e["appraiser"], e["direct"]) == ("turn", "given", True) for e in by.values()
    )
    costs = await rows(service.database, tables.EnergySpent)
    assert {(cost["persona_id"], cost["share"]) for cost in costs} == {("aria", 0.5), ("kira", 1.0)}
    pushes = {
        row["persona_id"]: row["impulse"]
        for row in await rows(service.database, tables.MoodImpulse)
    }
    assert pushes["aria"]["mood"] > 0 == pushes["kira"]["mood"]


async def test_a_meeting_moves_both_alike_and_both_feel_it(service: Service) -> None:
    seen = await run(service, happened(actor_id="kira", quality=0.8, context="help", minutes=30))

    forward, backward = sorted(await events(service), key=lambda event: str(event["from_id"]))[::-1]
    assert (forward["from_id"], backward["from_id"]) == ("kira", "aria")
    for event in (forward, backward):
        assert (event["kind"], event["context"], event["weight"]) == ("update", "help", 1.0)
        assert event["why"] == "warm and reliable and able: help, 30 min"
    assert seen["forward"]["affinity"] > 0 < seen["backward"]["affinity"]
    felt = await rows(service.database, tables.PersonaState)
    assert {row["persona_id"] for row in felt} == {"aria", "kira"}
    assert await rows(service.database, tables.EnergySpent) == []


async def test_a_human_s_view_is_not_kept(service: Service) -> None:
    seen = await run(service, happened(quality=0.8))

    assert seen["forward"] is None
    assert [(e["from_id"], e["to_id"]) for e in await events(service)] == [("aria", "ann")]


async def test_only_the_direction_that_is_asked_for_is_moved(service: Service) -> None:
    await run(service, happened("e1", actor_id="kira", quality=0.8, direction="forward"))
    assert set(await arrows(service)) == {("kira", "aria")}

    await run(service, happened("e2", actor_id="kira", quality=0.8, direction="backward"))
    assert set(await arrows(service)) == {("kira", "aria"), ("aria", "kira")}

    with pytest.raises(InvalidParams, match="direction"):
        await run(service, happened("e3", quality=0.8, direction="forward"))


async def test_who_perceived_it_is_moved_a_little_and_nobody_else(service: Service) -> None:
    await run(service, happened("e0", actor_id="kira", receiver_id="noor", quality=0.1))
    before = await arrows(service)

    given = {"warmth": -0.8, "reliability": -0.8, "disclosure": 0.9}
    here = ["noor", "Noor", "aria"]
    await run(service, happened("e1", text="You fool.", appraisal=given, witnesses=here))

    after = await arrows(service)
    assert set(after) - set(before) == {("aria", "ann"), ("noor", "ann")}
    assert {pair: after[pair] for pair in before} == before
    (aside,) = [e for e in await events(service) if e["kind"] == "aside"]
    assert (aside["weight"], aside["disclosure_weight"], aside["direct"]) == (0.3, 0.0, False)
    assert after["noor", "ann"].first_meeting is None


async def test_a_witness_of_a_meeting_sees_both(service: Service) -> None:
    await run(service, happened(actor_id="kira", quality=0.9, witnesses=["noor"]))

    assert {("noor", "kira"), ("noor", "aria")} < set(await arrows(service))


async def test_hearsay_moves_the_listener_by_its_trust_in_the_teller(service: Service) -> None:
    await run(service, happened("e1", actor_id="noor", told_by="kira", **BETRAYAL))
    for n in range(3):
        good = {"quality": 1.0, "context": "help", "minutes": 600}
        await run(service, happened(f"g{n}", actor_id="kira", direction="backward", **good))
    await run(service, happened("e2", actor_id="noor", told_by="kira", **BETRAYAL))

    told = sorted(
        (e for e in await events(service) if e["kind"] == "hearsay"), key=lambda e: e["seq"]
    )
    assert [(e["from_id"], e["to_id"], e["source_id"]) for e in told] == [
        ("aria", "noor", "kira")
    ] * 2
    assert told[0]["weight"] == pytest.approx(0.6 / 4)
    trust = relationship.shown(
        (await arrows(service))["aria", "kira"], service.laws.effects.relationships
    ).trust
    assert told[1]["weight"] == pytest.approx(0.6 * ((1 + trust) / 2) ** 2, abs=1e-6)
    seen = (await arrows(service))["aria", "noor"]
    assert (seen.contact, seen.first_meeting, seen.interactions) == (0.0, None, 0)
    assert seen.trust_latent < told[0]["deltas"]["trust"] < 0
    assert len(await rows(service.database, tables.MoodImpulse)) == 3


@pytest.mark.parametrize("teller", ["noor", "aria"])
async def test_nobody_is_told_of_somebody_by_that_one_or_by_itself(
    service: Service, teller: str
) -> None:
    with pytest.raises(InvalidParams, match="told_by"):
        await run(service, happened(actor_id="noor", told_by=teller, **BETRAYAL))
    with pytest.raises(InvalidParams, match="told_by"):
        await run(service, happened(actor_id="noor", receiver_id="ann", told_by="kira", **BETRAYAL))


async def test_the_same_event_counts_once(service: Service) -> None:
    first = await run(service, happened(text=KIND))
    before = await dump(service.database)

    again = await run(service, happened(text=KIND))

    assert again["backward"] == first["backward"]
    assert again["event_ids"] == first["event_ids"]
    assert await dump(service.database) == before
    (event,) = await events(service)
    assert event["exchange_id"] is None


async def test_an_event_that_comes_again_is_answered_as_the_first_time(service: Service) -> None:
    first = await run(service, happened("e1", actor_id="kira", quality=0.5))
    await run(service, happened("e2", actor_id="kira", quality=-1.0, context="betrayal"))

    again = await run(service, happened("e1", actor_id="kira", quality=0.5))

    assert (again["forward"], again["backward"]) == (first["forward"], first["backward"])


@pytest.mark.parametrize(
    "other",
    [
        {"quality": 0.6},
        {"minutes": 6},
        {"context": "help"},
        {"turning_point": True},
        {"why": "because"},
        {"direction": "forward"},
        {"direction": "backward"},
        {"receiver_id": "noor"},
        {"actor_id": "noor"},
        {"quality": None, "appraisal": {"warmth": 0.5}},
        {"witnesses": ["noor"]},
        {"text": KIND},
    ],
)
async def test_another_event_under_the_same_name_is_refused(
    service: Service, other: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"actor_id": "kira", "quality": 0.5}
    await run(service, happened(**given))
    before = await dump(service.database)

    with pytest.raises(Conflict, match="request_id"):
        await run(service, happened(**{**given, **other}))

    assert await dump(service.database) == before


async def test_another_event_counts_again_at_the_time_of_the_clock(service: Service) -> None:
    clock = FixedClock()
    graph = build_relationship(replace(service.parts, now=clock)).compile()

    await graph.ainvoke(happened("e1", text="Thank you."))
    clock.advance(60)
    await graph.ainvoke(happened("e2", text="Thank you."))
    await graph.ainvoke(happened("e3", text="Thank you.", at=clock.now + 60))

    found = sorted(await events(service), key=lambda event: event["seq"])
    assert [event["at"] for event in found] == [clock.now - 60 + 60 * n for n in range(3)]


async def test_the_second_at_which_time_begins_is_a_time(service: Service) -> None:
    await run(service, happened("e1", quality=0.8, at=0))
    await run(service, happened("e2", quality=0.8, at=0.5))

    assert {event["at"] for event in await events(service)} == {0, 0.5}


async def test_what_a_form_leaves_empty_is_left_out(service: Service) -> None:
    empty = dict.fromkeys(("at", "minutes", "turning_point", "direction", "why", "context"), "")
    await run(service, happened("e1", quality=0.8))
    await run(service, happened("e2", quality=0.8, **empty))

    names = ("kind", "context", "why", "weight")
    one, other = ([event[name] for name in names] for event in await events(service))
    assert one == other


async def test_nothing_but_what_comes_of_it_is_checkpointed(service: Service) -> None:
    graph = build_relationship(service.parts).compile(checkpointer=InMemorySaver())
    thread: RunnableConfig = {"configurable": {"thread_id": "t1"}}

    await graph.ainvoke(happened(text="Thank you."), thread)

    values = (await graph.aget_state(thread)).values
    assert set(values) == {"forward", "backward", "event_ids"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("at", 1e18),
        ("at", -1e12),
        ("quality", 1.5),
        ("quality", float("nan")),
        ("quality", float("-inf")),
        ("quality", "good"),
        ("quality", True),
        ("minutes", 1441),
        ("minutes", -1),
        ("context", "x" * 61),
        ("context", " "),
        ("direction", "sideways"),
        ("why", "x" * 501),
        ("turning_point", 1),
        ("appraisal", {"warmth": 1.01}),
        ("appraisal", {"disclosure": -0.1}),
        ("appraisal", {"kindness": 0.5}),
        ("witnesses", "noor"),
        ("at", float("inf")),
        ("receiver_id", "x" * 81),
    ],
)
async def test_a_value_that_is_wrong_changes_nothing(
    service: Service, field: str, value: Any
) -> None:
    before = await dump(service.database)

    with pytest.raises(InvalidParams, match=field):
        await run(service, happened(**{"actor_id": "kira", "quality": 0.5, field: value}))

    assert await dump(service.database) == before


async def test_something_has_to_say_how_it_is_taken(service: Service) -> None:
    with pytest.raises(InvalidParams, match="quality: allowed is required, where there is neither"):
        await run(service, happened())


async def test_who_is_nobody_or_deleted_has_no_relationship(service: Service) -> None:
    with pytest.raises(InvalidParams, match="receiver_id"):
        await run(service, happened(actor_id="Aria", quality=0.5))
    with pytest.raises(NotFound, match="persona 'nobody' not found"):
        await run(service, happened(receiver_id="nobody", quality=0.5))
    with pytest.raises(NotFound, match="persona 'nobody' not found"):
        await run(service, happened(quality=0.5, witnesses=["nobody"]))

    gone = update(tables.Persona).where(tables.Persona.id == "kira").values(deleted_at=1.0)
    await service.database.write(Prepared(gone).run)
    with pytest.raises(NotFound, match="persona 'kira' not found"):
        await run(service, happened(actor_id="kira", quality=0.5))

    assert await events(service) == []
    with service.database.reading() as connection:
        assert read_arrow(connection, "main", "aria", "kira") is None
