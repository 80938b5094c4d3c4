"""Turns of a talk between personas as a graph: who runs when.

START -> cast -> choose_speaker -> retrieve -> decide -> generate -> validate -> relate -> persist
-> judge -> (cast again, while turns are left | close -> END | END), with the same ways back and out
as a conversation's.
"""

from functools import partial
from itertools import pairwise
from typing import Literal

from langgraph.graph import END, START, StateGraph

from persona_mcp.graphs.ways import way
from persona_mcp.nodes.casting import cast_talk, choose_speaker
from persona_mcp.nodes.decision import decide_response, excuse_self
from persona_mcp.nodes.dialogue_effects import relate_turn
from persona_mcp.nodes.dialogue_state import DialogueInput, DialogueOutput, DialogueState
from persona_mcp.nodes.generation import generate_reply
from persona_mcp.nodes.judging import close_talk, judge_talk
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.persistence import persist_exchange
from persona_mcp.nodes.retrieval import retrieve_memories
from persona_mcp.nodes.validation import refuse_reply, validate_reply


def build_dialogue(
    parts: Parts,
) -> StateGraph[DialogueState, ChatContext, DialogueInput, DialogueOutput]:
    """Wire the graph; the caller compiles it with a checkpointer of its own."""

    def after_validation(state: DialogueState) -> Literal["relate", "generate", "refuse"]:
        """Keep a good reply; ask again while attempts are left."""
        if not state["verdict"].faults:
            return "relate"
        return "generate" if state["attempts"] < parts.limits.attempts else "refuse"

    builder = StateGraph(
        DialogueState,
        context_schema=ChatContext,
        input_schema=DialogueInput,
        output_schema=DialogueOutput,
    )
    builder.add_node("cast", partial(cast_talk, parts))
    builder.add_node("choose_speaker", partial(choose_speaker, parts))
    builder.add_node("retrieve", partial(retrieve_memories, parts))
    builder.add_node("decide", partial(decide_response, parts))
    builder.add_node("excuse", partial(excuse_self, parts))
    builder.add_node("generate", partial(generate_reply, parts))
    builder.add_node("validate", partial(validate_reply, parts))
    builder.add_node("refuse", partial(refuse_reply, parts))
    builder.add_node("relate", partial(relate_turn, parts))
    builder.add_node("persist", partial(persist_exchange, parts, releases=False))
    builder.add_node("judge", partial(judge_talk, parts))
    builder.add_node("close", partial(close_talk, parts))

    for before, after in pairwise([START, "cast", "choose_speaker", "retrieve", "decide"]):
        builder.add_edge(before, after)
    builder.add_conditional_edges("decide", *way(after_decision))
    builder.add_edge("generate", "validate")
    builder.add_conditional_edges("validate", *way(after_validation))
    builder.add_edge("excuse", "relate")
    for before, after in pairwise(["relate", "persist", "judge"]):
        builder.add_edge(before, after)
    builder.add_conditional_edges("judge", *way(after_turn))
    builder.add_edge("close", END)
    return builder


def after_turn(state: DialogueState) -> Literal["cast", "close", "__end__"]:
    """Close a talk that is over; go on while turns of this run are left."""
    if state["ends"] is not None:
        return "close"
    return "cast" if state["turns"] > 0 else "__end__"


def after_decision(state: DialogueState) -> Literal["generate", "excuse"]:
    """Ask the model, unless the persona bows out."""
    return "generate" if state["decision"].route.model else "excuse"
