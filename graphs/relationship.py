"""A relationship's graph: START -> appraise -> validate -> apply -> persist -> END."""

from functools import partial
from itertools import pairwise

from langgraph.graph import END, START, StateGraph

from persona_mcp.nodes.parts import Parts
from persona_mcp.nodes.relationship_state import RelationshipInput, RelationshipRun
from persona_mcp.nodes.relationship_steps import (
    apply_act,
    appraise_act,
    persist_act,
    validate_act,
)


def build_relationship(
    parts: Parts,
) -> StateGraph[RelationshipRun, None, RelationshipInput, RelationshipRun]:
    """Wire the graph; the caller compiles it with a checkpointer of its own."""
    builder = StateGraph(RelationshipRun, input_schema=RelationshipInput)
    builder.add_node("appraise", partial(appraise_act, parts))
    builder.add_node("validate", partial(validate_act, parts))
    builder.add_node("apply", partial(apply_act, parts))
    builder.add_node("persist", partial(persist_act, parts))
    for before, after in pairwise([START, "appraise", "validate", "apply", "persist", END]):
        builder.add_edge(before, after)
    return builder
