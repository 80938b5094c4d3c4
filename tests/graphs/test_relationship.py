"""The relationship's graph, called alone."""

from dataclasses import replace
from itertools import pairwise

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from persona_mcp.graphs.relationship import build_relationship
from persona_mcp.nodes.relationship import RelationshipInput
from persona_mcp.server.service import Service
from persona_mcp.state import tables
from persona_mcp.state.errors import InvalidParams, NotFound
from tests.calls import dump, rows
from tests.doubles import FixedClock

pytestmark = pytest.mark.anyio


def told(text: str, event_id: str = "e1", **more: str) -> RelationshipInput:
    given = {"persona_id": "aria", "partner_id": "ann", **more}
    return RelationshipInput(
        world_id="main",
        event_id=event_id,
        persona_id=given["persona_id"],
        partner_id=given["partner_id"],
        text=text,
    )


async def test_the_graph_has_four_steps_in_a_row(service: Service) -> None:
    drawn = build_relationship(service.parts).compile().get_graph()

    steps = ["__start__", "appraise", "validate", "apply", "persist", "__end__"]
    assert list(drawn.nodes) == steps
    assert {(e.source, e.target) for e in drawn.edges} == set(pairwise(steps))


async def test_what_is_said_moves_how_it_is_seen(service: Service) -> None:
    graph = build_relationship(service.parts).compile()

    kind = await graph.ainvoke(told("Thank you so much, that was kind of you."))
    cruel = await graph.ainvoke(told("I hate you, go away.", "e2", partner_id="bob"))

    assert kind["affinity"] > cruel["affinity"]
    for values in (kind, cruel):
        assert all(-1 <= values[name] <= 1 for name in ("affinity", "trust", "respect"))
        assert 0 <= values["intimacy"] <= 1


async def test_the_same_event_counts_once(service: Service) -> None:
    graph = build_relationship(service.parts).compile()
    said = told("Thank you so much, that was kind of you.")
    first = await graph.ainvoke(said)
    before = await dump(service.database)

    again = await graph.ainvoke(said)

    assert again["affinity"] == first["affinity"]
    assert await dump(service.database) == before
    (event,) = await rows(service.database, tables.RelationshipEvent)
    assert event["exchange_id"] is None


async def test_another_event_counts_again_at_the_time_of_the_clock(service: Service) -> None:
    clock = FixedClock()
    graph = build_relationship(replace(service.parts, now=clock)).compile()

    await graph.ainvoke(told("Thank you.", "e1"))
    clock.advance(60)
    await graph.ainvoke(told("Thank you.", "e2"))
    await graph.ainvoke({**told("Thank you.", "e3"), "at": clock.now + 60})

    events = await rows(service.database, tables.RelationshipEvent)
    assert sorted((e["seq"], e["at"] - events[0]["at"]) for e in events) == sorted(
        (n + 1, clock.now - 60 + 60 * n - events[0]["at"]) for n in range(3)
    )


async def test_nothing_but_ids_text_and_values_is_checkpointed(service: Service) -> None:
    graph = build_relationship(service.parts).compile(checkpointer=InMemorySaver())
    thread: RunnableConfig = {"configurable": {"thread_id": "t1"}}

    await graph.ainvoke(told("Thank you."), thread)

    values = (await graph.aget_state(thread)).values
    assert set(values) == {
        *("world_id", "event_id", "persona_id", "partner_id", "text"),
        *("affinity", "trust", "respect", "intimacy"),
    }


async def test_a_persona_has_no_relationship_to_itself(service: Service) -> None:
    graph = build_relationship(service.parts).compile()

    with pytest.raises(InvalidParams, match="partner_id"):
        await graph.ainvoke(told("Thank you.", partner_id="aria"))
    with pytest.raises(NotFound, match="persona 'nobody' not found"):
        await graph.ainvoke(told("Thank you.", persona_id="nobody"))

    assert await rows(service.database, tables.RelationshipEvent) == []
