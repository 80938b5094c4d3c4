"""Nodes that run plainly where nobody traces, and as LangGraph runs them where somebody does."""

import asyncio
from typing import Any, cast

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from persona_mcp.graphs.plain import Plain, plain
from persona_mcp.nodes.events import heard_by, tell

pytestmark = pytest.mark.anyio


class Said(TypedDict, total=False):
    word: str
    tasks: list[str]


class Heard(BaseCallbackHandler):
    """Notes the runs that a tracer is told of."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def on_chain_start(self, *given: Any, **facts: Any) -> None:
        self.runs.append(facts["name"])


def task() -> str:
    current = asyncio.current_task()
    assert current is not None
    return current.get_name()


async def begin(state: Said, runtime: Runtime[Any]) -> Said:
    tell(runtime, "begun", word=state["word"])
    return {"tasks": [task()]}


async def ask(state: Said) -> Said:
    assert get_config()["configurable"]["thread_id"] == "t1"
    return {"word": interrupt("which word?"), "tasks": [*state["tasks"], task()]}


async def fail(state: Said) -> Said:
    raise ValueError(state["word"])


def build(*, failing: bool = False) -> Any:
    builder = StateGraph(Said)
    builder.add_node("begin", begin)
    builder.add_node("ask", fail if failing else ask)
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", lambda _: "ask", ["ask"])
    builder.add_edge("ask", END)
    return plain(builder.compile(checkpointer=InMemorySaver()))


def its_thread(**more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": "t1"}, **more}


async def test_nodes_run_in_the_task_of_who_runs_the_graph_and_may_interrupt_it() -> None:
    graph = build()

    await graph.ainvoke({"word": "apple"}, its_thread(), stream_mode=[])
    assert (await graph.aget_state(its_thread())).next == ("ask",)
    done = await graph.ainvoke(Command(resume="pear"), its_thread())

    assert (done["word"], done["tasks"]) == ("pear", [task(), task()])


async def test_who_traces_is_told_of_every_node() -> None:
    heard = Heard()

    await build().ainvoke({"word": "apple"}, its_thread(callbacks=[heard]))

    assert [name for name in heard.runs if name in {"begin", "ask"}] == ["begin", "ask"]


async def test_who_streams_the_runs_of_a_graph_is_told_of_every_node() -> None:
    events = [event async for event in build().astream_events({"word": "a"}, its_thread())]

    ran = [event["name"] for event in events if event["event"] == "on_chain_start"]
    assert [name for name in ran if name in {"begin", "ask"}] == ["begin", "ask"]


async def test_what_a_node_fails_with_is_what_the_graph_fails_with() -> None:
    with pytest.raises(ValueError, match="apple"):
        await build(failing=True).ainvoke({"word": "apple"}, its_thread())


async def test_a_listener_hears_what_is_told_and_the_stream_does_where_there_is_none() -> None:
    told: list[dict[str, Any]] = []
    event = {"event": "begun", "word": "apple"}

    with heard_by(told.append):
        listened = [
            one
            async for one in build().astream({"word": "apple"}, its_thread(), stream_mode="custom")
        ]
    streamed = [
        one async for one in build().astream({"word": "apple"}, its_thread(), stream_mode="custom")
    ]

    assert (told, listened, streamed) == ([event], [], [event])


async def test_a_node_is_cancelled_with_its_graph() -> None:
    began = asyncio.Event()

    async def wait(state: Said) -> Said:
        began.set()
        await asyncio.Event().wait()
        return state

    builder = StateGraph(Said)
    builder.add_node("wait", wait)
    builder.add_edge(START, "wait")
    run = asyncio.create_task(plain(builder.compile()).ainvoke({"word": "apple"}))
    await began.wait()
    run.cancel()

    with pytest.raises(asyncio.CancelledError):
        await run


def test_where_a_graph_begins_is_left_as_it_is() -> None:
    nodes = cast("dict[str, Any]", build().nodes)

    assert {name for name, one in nodes.items() if isinstance(one.node, Plain)} == {"begin", "ask"}
