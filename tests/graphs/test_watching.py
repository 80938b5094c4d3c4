"""Nodes of a graph that are watched: each run is told once, and to wait is no failure."""

from contextlib import AbstractContextManager
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from persona_mcp.graphs.watching import watched
from persona_mcp.server.metrics import Metrics
from persona_mcp.state.watching import Unwatched

pytestmark = pytest.mark.anyio


class State(TypedDict, total=False):
    said: str


async def ask(state: State) -> State:
    return {"said": interrupt("what?")}


async def answer(state: State) -> State:
    if state["said"] == "nothing":
        raise ValueError("nothing was said")
    return {"said": state["said"].upper()}


def graph(metrics: Metrics) -> Any:
    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("answer", answer)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "answer")
    builder.add_edge("answer", END)
    return watched(builder, "talk", metrics).compile(checkpointer=InMemorySaver())


def number(metrics: Metrics, name: str, node: str) -> float:
    its = {"graph": "talk", "node": node}
    return sum(value for labels, value in metrics.samples().get(name, ()) if labels == its)


async def test_a_node_that_waits_has_not_failed_and_goes_on_as_before() -> None:
    metrics = Metrics()
    config = {"configurable": {"thread_id": "t"}}
    talk = graph(metrics)

    waiting = await talk.ainvoke({}, config)
    done = await talk.ainvoke(Command(resume="good evening"), config)

    assert waiting["__interrupt__"][0].value == "what?"
    assert done == {"said": "GOOD EVENING"}
    assert number(metrics, "persona_node_seconds_count", "ask") == 2
    assert number(metrics, "persona_node_seconds_count", "answer") == 1
    assert number(metrics, "persona_node_errors_total", "ask") == 0


async def test_a_node_that_fails_is_counted_and_its_error_comes_out() -> None:
    metrics = Metrics()
    config = {"configurable": {"thread_id": "t"}}
    talk = graph(metrics)
    await talk.ainvoke({}, config)

    with pytest.raises(ValueError, match="nothing was said"):
        await talk.ainvoke(Command(resume="nothing"), config)

    assert number(metrics, "persona_node_errors_total", "answer") == 1


def test_without_a_watch_nothing_is_done() -> None:
    nobody = Unwatched()
    blocks: list[AbstractContextManager[None]] = [
        nobody.node("talk", "ask"),
        nobody.transaction("read", 0.0),
    ]

    for block in blocks:
        with block:
            pass
