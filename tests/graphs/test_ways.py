"""The ways of a graph: what is asked, and where they lead."""

from typing import Any, Literal

import pytest
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from persona_mcp.graphs.ways import way

pytestmark = pytest.mark.anyio


class Count(TypedDict):
    number: int


async def add(state: Count) -> Count:
    return Count(number=state["number"] + 1)


def after_adding(state: Count) -> Literal["add", "__end__"]:
    return "add" if state["number"] < 4 else "__end__"


def counting() -> Any:
    builder = StateGraph(Count)
    builder.add_node("add", add)
    builder.add_edge(START, "add")
    builder.add_conditional_edges("add", *way(after_adding))
    return builder.compile()


async def test_a_way_sees_what_its_node_has_just_written() -> None:
    assert await counting().ainvoke({"number": 0}) == {"number": 4}
    assert await counting().ainvoke({"number": 9}) == {"number": 10}


def test_a_way_is_drawn_to_the_nodes_that_its_type_names() -> None:
    edges = {(edge.source, edge.target) for edge in counting().get_graph().edges}
    assert edges == {(START, "add"), ("add", "add"), ("add", END)}


async def test_a_way_answers_whoever_waits_and_whoever_does_not() -> None:
    path, nodes = way(after_adding)
    assert nodes == ["add", "__end__"]
    assert path.invoke({"number": 1}) == await path.ainvoke({"number": 1}) == "add"
    assert path.name == "after_adding"
