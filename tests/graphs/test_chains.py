"""Nodes that can only follow one another run in one step, as they would in steps of their own."""

import operator
from typing import Annotated, Any, Literal

import pytest
from langgraph.channels import UntrackedValue
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from persona_mcp.graphs.chains import chained, nodes_of
from persona_mcp.graphs.conversation import build_conversation
from persona_mcp.graphs.dialogue import build_dialogue
from persona_mcp.graphs.plain import plain
from persona_mcp.graphs.relationship import build_relationship
from persona_mcp.graphs.watching import watched
from persona_mcp.graphs.ways import way
from persona_mcp.nodes.events import heard_by, tell
from persona_mcp.server.metrics import Metrics
from persona_mcp.server.service import Service

pytestmark = pytest.mark.anyio


class Said(TypedDict, total=False):
    word: str
    heard: Annotated[list[str], UntrackedValue]
    turns: int


async def greet(state: Said, runtime: Runtime[Any]) -> Said:
    tell(runtime, "greeted", word=state["word"])
    return {"word": f"{state['word']}!", "heard": [state["word"]]}


async def listen(state: Said) -> None:
    assert state["word"].endswith("!")


async def answer(state: Said) -> Said:
    return {"word": state["word"].upper(), "heard": [*state["heard"], state["word"]]}


async def count(state: Said) -> Said:
    return {"turns": state.get("turns", 0) + 1}


async def fail(state: Said) -> Said:
    raise ValueError(state["word"])


def again(state: Said) -> Literal["greet", "__end__"]:
    return "greet" if state["turns"] < 3 else "__end__"


def talk(**instead: Any) -> StateGraph[Said]:
    """Wire greet -> listen -> answer -> count -> (greet again | END)."""
    nodes = {"greet": greet, "listen": listen, "answer": answer, "count": count} | instead
    builder = StateGraph(Said)
    for name, node in nodes.items():
        builder.add_node(name, node)
    builder.add_edge(START, "greet")
    builder.add_edge("greet", "listen")
    builder.add_edge("listen", "answer")
    builder.add_edge("answer", "count")
    builder.add_conditional_edges("count", again)
    return builder


def steps_of(builder: StateGraph[Any, Any, Any, Any]) -> dict[str, list[str]]:
    """Name the nodes of each step."""
    return {
        name: [str(node.name) for node in nodes_of(spec.runnable)]
        for name, spec in builder.nodes.items()
    }


def longer(steps: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: nodes for name, nodes in steps.items() if len(nodes) > 1}


async def walked(graph: Any) -> list[Any]:
    return [step async for step in graph.astream({"word": "hi"}, stream_mode="updates")]


@pytest.mark.parametrize("how", [lambda graph: graph, plain], ids=["as compiled", "plain"])
async def test_a_chain_ends_with_what_its_nodes_end_with_one_by_one(how: Any) -> None:
    apart, together = how(talk().compile()), how(chained(talk()).compile())

    assert await together.ainvoke({"word": "hi"}) == await apart.ainvoke({"word": "hi"})
    assert len(await walked(apart)) == 3 * 4
    assert [list(step) for step in await walked(together)] == 3 * [["greet"]]


def led(**instead: Any) -> StateGraph[Said]:
    """Wire the same talk, whose conditional edge is a way of ours."""
    builder = talk(**instead)
    del builder.branches["count"]
    builder.add_conditional_edges("count", *way(again))
    return builder


@pytest.mark.parametrize("how", [lambda graph: graph, plain], ids=["as compiled", "plain"])
async def test_a_step_chooses_the_next_one_by_its_way_as_an_edge_would(how: Any) -> None:
    apart, together = how(led().compile()), how(chained(led()).compile())

    assert await together.ainvoke({"word": "hi"}) == await apart.ainvoke({"word": "hi"})
    assert [list(step) for step in await walked(together)] == 3 * [["greet"]]


def test_a_way_that_a_step_chooses_by_itself_is_still_drawn() -> None:
    def edges(builder: StateGraph[Said]) -> set[tuple[str, str]]:
        return {(edge.source, edge.target) for edge in builder.compile().get_graph().edges}

    assert edges(chained(led())) == {(START, "greet"), ("greet", "greet"), ("greet", END)}


async def test_its_nodes_tell_what_they_have_to_tell() -> None:
    told: list[dict[str, Any]] = []

    with heard_by(told.append):
        await chained(talk()).compile().ainvoke({"word": "hi"})

    assert [event["word"] for event in told] == ["hi", "HI!", "HI!!"]


async def test_what_a_node_fails_with_is_what_the_run_fails_with() -> None:
    with pytest.raises(ValueError, match=r"^HI!"):
        await chained(talk(count=fail)).compile().ainvoke({"word": "hi"})


async def test_each_node_of_a_chain_is_watched_by_its_own_name() -> None:
    metrics = Metrics()

    await chained(watched(talk(), "talk", metrics)).compile().ainvoke({"word": "hi"})

    counted = metrics.samples()["persona_node_seconds_count"]
    its = {labels["node"]: value for labels, value in counted if labels["graph"] == "talk"}
    assert its == {"greet": 3, "listen": 3, "answer": 3, "count": 3}


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

    done = await chained(builder).compile().ainvoke({"word": "", "turns": 3})

    assert done["turns"] == 4


def test_where_two_ways_meet_or_part_a_step_ends() -> None:
    builder = talk()
    builder.add_node("late", count)
    builder.add_edge("late", "answer")

    assert list(chained(builder).nodes) == ["greet", "answer", "late"]


def branches_off(builder: StateGraph[Said]) -> None:
    builder.add_conditional_edges("listen", lambda state: "answer")


def follows_at_once(builder: StateGraph[Said]) -> None:
    builder.add_edge("greet", "answer")


@pytest.mark.parametrize("wired", [branches_off, follows_at_once])
def test_a_node_that_may_be_led_to_otherwise_or_beside_another_keeps_its_step(wired: Any) -> None:
    builder = StateGraph(Said)
    for name in ("greet", "listen", "answer"):
        builder.add_node(name, count)
    builder.add_edge(START, "greet")
    builder.add_edge("greet", "listen")
    wired(builder)

    assert list(chained(builder).nodes) == ["greet", "listen", "answer"]


def test_a_chain_cannot_be_run_without_a_loop_and_says_so() -> None:
    with pytest.raises(TypeError, match="No synchronous function"):
        chained(talk()).compile().invoke({"word": "hi"})


def test_a_state_that_adds_up_is_refused() -> None:
    class Added(TypedDict):
        words: Annotated[list[str], operator.add]

    builder = StateGraph(Added)
    builder.add_node("greet", count)
    builder.add_edge(START, "greet")

    with pytest.raises(TypeError, match="words"):
        chained(builder)


async def test_what_our_graphs_put_together(service: Service) -> None:
    parts = service.parts

    dialogue = steps_of(chained(build_dialogue(parts)))
    conversation = steps_of(chained(build_conversation(parts)))
    update = steps_of(chained(build_relationship(parts)))

    assert longer(dialogue) == {
        "cast": ["cast", "choose_speaker", "retrieve", "decide"],
        "generate": ["generate", "validate"],
        "relate": ["relate", "persist", "judge"],
    }
    assert longer(conversation) == {
        "retrieve": ["retrieve", "decide"],
        "relate": ["relate", "persist"],
    }
    assert update == {"appraise": ["appraise", "validate", "apply", "persist"]}
