"""A conversation's exchange as a graph: who runs when.

START -> load -> retrieve -> decide -> generate -> validate -> relate -> persist -> END, with a way
back from validate to generate while attempts are left, and a way out for a persona that bows out.

Where the host's own model writes the reply, the run offers a prompt in place of generating and
stops. The run that brings the reply loads anew, takes it, and goes on as any other; it waits again
if the reply cannot be used.
"""

from functools import partial
from typing import Literal

from langgraph.graph import END, START, StateGraph

from persona_mcp.graphs.ways import way
from persona_mcp.nodes.chat_state import ChatInput, ChatOutput, ChatState
from persona_mcp.nodes.decision import decide_response, excuse_self
from persona_mcp.nodes.generation import generate_reply
from persona_mcp.nodes.hosting import await_reply, offer_prompt, take_reply
from persona_mcp.nodes.loading import load_scene
from persona_mcp.nodes.parts import ChatContext, Parts
from persona_mcp.nodes.persistence import persist_exchange
from persona_mcp.nodes.relating import relate
from persona_mcp.nodes.retrieval import retrieve_memories
from persona_mcp.nodes.validation import refuse_reply, validate_reply


def build_conversation(
    parts: Parts,
) -> StateGraph[ChatState, ChatContext, ChatInput, ChatOutput]:
    """Wire the graph; the caller compiles it with a checkpointer of its own."""

    def after_validation(state: ChatState) -> Literal["relate", "generate", "wait", "refuse"]:
        """Keep a good reply; ask again, our own model while attempts are left."""
        if not state["verdict"].faults:
            return "relate"
        if "answer" in state:
            return "wait"
        return "generate" if state["attempts"] < parts.limits.attempts else "refuse"

    builder = StateGraph(
        ChatState, context_schema=ChatContext, input_schema=ChatInput, output_schema=ChatOutput
    )
    builder.add_node("load", partial(load_scene, parts))
    builder.add_node("retrieve", partial(retrieve_memories, parts))
    builder.add_node("decide", partial(decide_response, parts))
    builder.add_node("excuse", partial(excuse_self, parts))
    builder.add_node("generate", partial(generate_reply, parts))
    builder.add_node("offer", partial(offer_prompt, parts))
    builder.add_node("wait", partial(await_reply, parts))
    builder.add_node("take", partial(take_reply, parts))
    builder.add_node("validate", partial(validate_reply, parts))
    builder.add_node("refuse", partial(refuse_reply, parts))
    builder.add_node("relate", partial(relate, parts))
    builder.add_node("persist", partial(persist_exchange, parts))

    builder.add_edge(START, "load")
    builder.add_conditional_edges("load", *way(after_loading))
    builder.add_edge("retrieve", "decide")
    builder.add_conditional_edges("decide", *way(after_decision))
    builder.add_edge("generate", "validate")
    builder.add_edge("offer", "wait")
    builder.add_edge("wait", "load")
    builder.add_edge("take", "validate")
    builder.add_conditional_edges("validate", *way(after_validation))
    builder.add_edge("excuse", "relate")
    builder.add_edge("relate", "persist")
    builder.add_edge("persist", END)
    return builder


def after_loading(state: ChatState) -> Literal["retrieve", "take"]:
    """Begin, or go on with the reply that the host has brought."""
    return "take" if "answer" in state else "retrieve"


def after_decision(state: ChatState) -> Literal["generate", "offer", "excuse"]:
    """Ask our model, or the host's, unless the persona bows out."""
    if not state["decision"].route.model:
        return "excuse"
    return "offer" if state["decision"].host else "generate"
