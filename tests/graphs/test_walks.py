"""A whole graph in one step comes to what it comes to in steps of its own."""

import asyncio
import operator
from typing import Annotated, Any, Literal

import pytest
from langgraph.channels import UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from persona_mcp.graphs.conversation import build_conversation
from persona_mcp.graphs.dialogue import build_dialogue
from persona_mcp.graphs.plain import plain
from persona_mcp.graphs.relationship import build_relationship
from persona_mcp.graphs.walks import walked
from persona_mcp.graphs.watching import watched
from persona_mcp.graphs.ways import way
from persona_mcp.nodes.events import heard_by, tell
from persona_mcp.server.metrics import Metrics
from persona_mcp.server.service import Service

pytestmark = pytest.mark.anyio


class Said(TypedDict, total=False):
    word: str
    turns: int
    last: str


async def greet(state: Said, runtime: Runtime[Any]) -> Said:
    tell(runtime, "greeted", word=state["word"])
    return {"word": f"{state['word']}!"}


async def listen(state: Said) -> None:
    assert state["word"].endswith("!")


async def count(state: Said) -> Said:
    return {"turns": state.get("turns", 0) + 1}


async def close(state: Said) -> Said:
    return {"last": state["word"].upper()}


async def fail(state: Said) -> Said:
    raise ValueError(state["word"])


def again(state: Said) -> Literal["greet", "close"]:
    return "greet" if state["turns"] < 3 else "close"


def talk(**instead: Any) -> StateGraph[Said]:
    """Wire greet -> listen -> count -> (greet again | close), which ends without an edge."""
    nodes = {"greet": greet, "listen": listen, "count": count, "close": close} | instead
    builder = StateGraph(Said)
    for name, node in nodes.items():
        builder.add_node(name, node)
    builder.add_edge(START, "greet")
    builder.add_edge("greet", "listen")
    builder.add_edge("listen", "count")
    builder.add_conditional_edges("count", *way(again))
    return builder


@pytest.mark.parametrize("how", [lambda graph: graph, plain], ids=["as compiled", "plain"])
async def test_it_ends_as_its_nodes_do_one_by_one_and_in_one_step(how: Any) -> None:
    apart, together = how(talk().compile()), how(walked(talk()).compile())

    steps = [step async for step in together.astream({"word": "hi"}, stream_mode="updates")]

    assert await together.ainvoke({"word": "hi"}) == await apart.ainvoke({"word": "hi"})
    assert steps == [{"greet": {"word": "hi!!!", "turns": 3, "last": "HI!!!"}}]


async def test_its_nodes_tell_what_they_have_to_tell() -> None:
    told: list[dict[str, Any]] = []

    with heard_by(told.append):
        await walked(talk()).compile().ainvoke({"word": "hi"})

    assert [event["word"] for event in told] == ["hi", "hi!", "hi!!"]


async def test_what_a_node_fails_with_is_what_the_run_fails_with() -> None:
    with pytest.raises(ValueError, match=r"^hi!!!"):
        await walked(talk(close=fail)).compile().ainvoke({"word": "hi"})


async def test_it_lets_others_go_on_between_its_nodes() -> None:
    turns, seen = 0, list[int]()

    async def note(state: Said) -> Said:
        seen.append(turns)
        return await count(state)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await walked(talk(count=note)).compile().ainvoke({"word": "hi"})
    beside.cancel()

    assert seen[0] < seen[1] < seen[2]


async def test_nodes_do_not_change_what_the_run_was_given() -> None:
    given: Said = {"word": "hi"}

    await walked(talk()).compile().ainvoke(given)

    assert given == {"word": "hi"}


def test_a_state_that_adds_up_is_refused() -> None:
    class Added(TypedDict):
        words: Annotated[list[str], operator.add]

    builder = StateGraph(Added)
    builder.add_node("greet", count)
    builder.add_edge(START, "greet")

    with pytest.raises(TypeError, match="words"):
        walked(builder)


def parts_at(builder: StateGraph[Said]) -> None:
    builder.add_edge("greet", "close")


def goes_its_own_way(builder: StateGraph[Said]) -> None:
    builder.add_conditional_edges("close", lambda state: END)


def begins_twice(builder: StateGraph[Said]) -> None:
    builder.add_edge(START, "listen")


@pytest.mark.parametrize("wired", [parts_at, goes_its_own_way, begins_twice])
def test_a_node_with_more_than_one_way_on_is_refused(wired: Any) -> None:
    builder = talk()
    wired(builder)

    with pytest.raises(TypeError, match="Said: a node has more than one way on"):
        walked(builder)


@pytest.mark.parametrize(
    ("build", "first"),
    [(build_dialogue, "cast"), (build_conversation, "load"), (build_relationship, "appraise")],
)
async def test_each_of_our_graphs_can_be_walked(service: Service, build: Any, first: str) -> None:
    assert list(walked(build(service.parts)).nodes) == [first]


async def test_each_node_of_it_is_watched_by_its_own_name() -> None:
    metrics = Metrics()

    await walked(watched(talk(), "talk", metrics)).compile().ainvoke({"word": "hi"})

    counted = metrics.samples()["persona_node_seconds_count"]
    its = {labels["node"]: value for labels, value in counted if labels["graph"] == "talk"}
    assert its == {"greet": 3, "listen": 3, "count": 3, "close": 1}


async def test_a_later_node_reads_what_the_first_one_does_not() -> None:
    class Word(TypedDict):
        word: str

    async def say(state: Word) -> Word:
        return {"word": f"{state['word']}!"}

    builder = StateGraph(Said)
    builder.add_node("say", say)
    builder.add_node("count", count)
    builder.add_edge(START, "say")
    builder.add_edge("say", "count")

    done = await walked(builder).compile().ainvoke({"word": "", "turns": 3})

    assert done["turns"] == 4


async def test_what_is_not_tracked_is_seen_by_later_nodes_and_by_nobody_after() -> None:
    class Heard(TypedDict, total=False):
        word: str
        heard: Annotated[list[str], UntrackedValue]

    async def hear(state: Heard) -> Heard:
        return {"heard": [state["word"]]}

    async def repeat(state: Heard) -> Heard:
        return {"word": state["heard"][0].upper()}

    builder = StateGraph(Heard)
    builder.add_node("hear", hear)
    builder.add_node("repeat", repeat)
    builder.add_edge(START, "hear")
    builder.add_edge("hear", "repeat")
    graph = walked(builder).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "one"}}

    await graph.ainvoke({"word": "hi"}, config)

    assert (await graph.aget_state(config)).values == {"word": "HI"}


def test_a_walk_cannot_be_run_without_a_loop_and_says_so() -> None:
    with pytest.raises(TypeError, match="No synchronous function"):
        walked(talk()).compile().invoke({"word": "hi"})
