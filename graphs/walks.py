"""A whole graph in one step of LangGraph, where nobody looks at its state before it ends.

Between two steps LangGraph writes what is to be seen of the state, and works out who is next, which
takes longer than what most of our nodes do. A chat is checkpointed at its end, and a batch's
dialogue not at all: one that is cut off is begun anew. What runs, in which order, and on which
state is as it was wired.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.channels import LastValue, UntrackedValue
from langgraph.graph import END, START, StateGraph

from persona_mcp.graphs.ways import Way

LAST = (LastValue, UntrackedValue)
"""Channels of which a node reads what was written last."""
G = TypeVar("G", bound=StateGraph[Any, Any, Any, Any])


class Walk(Runnable[Any, Any]):
    """Nodes that run one after the other as edges and ways lead, to the end."""

    def __init__(
        self,
        first: str,
        nodes: Mapping[str, Any],
        edges: Mapping[str, str],
        ways: Mapping[str, Way],
    ) -> None:
        """Run these, of a state whose channels keep the last value.

        Args:
            first: Which node is first.
            nodes: Runnables by their names.
            edges: Which node follows one; behind one without it is over.
            ways: What chooses the node that follows one.
        """
        self._first = first
        self._nodes = nodes
        self._edges = edges
        self._ways = ways

    def invoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> Any:
        """Run them; our nodes cannot be run so, and the first says why."""
        return self._nodes[self._first].invoke(input, config, **given)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> Any:
        """Run them, and return all that they write: of what two write, what the later one does."""
        state: dict[str, Any] = {**input}
        written: dict[str, Any] = {}
        at = self._first
        while at != END:
            update = await self._nodes[at].ainvoke(state, config, **given) or {}
            state |= update
            written |= update
            at = self._ways[at].choose(state) if at in self._ways else self._edges.get(at, END)
            await asyncio.sleep(0)  # a reply that has come elsewhere is not to wait for many nodes
        return written


def walked(builder: G) -> G:
    """Put a graph into one step, which goes by the name of its first node.

    Args:
        builder: As it was wired, of edges and of conditional edges made by `way`, at most one out
            of each node, before it is compiled.

    Raises:
        TypeError: A channel does not keep the last value, or a node goes on otherwise.
    """
    check_last_values(builder)
    edges = dict(builder.edges)
    ways = {
        name: branch.path
        for name, branches in builder.branches.items()
        for branch in branches.values()
        if isinstance(branch.path, Way)
    }
    nodes = {name: spec.runnable for name, spec in builder.nodes.items()}
    out = [*(before for before, _ in builder.edges), *builder.branches]
    elsewhere = builder.waiting_edges or any(spec.ends for spec in builder.nodes.values())
    if len(out) != len(set(out)) or ways.keys() != builder.branches.keys() or elsewhere:
        raise TypeError(f"{builder.state_schema.__name__}: a node has more than one way on")
    if START not in edges:
        raise TypeError(f"{builder.state_schema.__name__}: no edge says which node is first")
    first = edges.pop(START)
    step = builder.nodes[first]
    step.runnable = Walk(first, nodes, edges, ways)
    step.input_schema = builder.state_schema
    builder.nodes = {first: step}
    builder.edges = {(START, first), (first, END)}
    builder.branches.clear()
    return builder


def check_last_values(builder: StateGraph[Any, Any, Any, Any]) -> None:
    """Make sure that of what two nodes write into a channel the later one's is what counts.

    Raises:
        TypeError: A channel does not keep the last value.
    """
    for channel, kind in builder.channels.items():
        if not isinstance(kind, LAST):
            raise TypeError(f"{channel} of {builder.state_schema.__name__}: not a last value")
