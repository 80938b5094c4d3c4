"""Nodes that can only follow one another, in one step of LangGraph where nobody looks in between.

For each step LangGraph works out who is next, reads the channels for it and writes its update to
them, which takes longer than what most of our nodes do. Whoever looks at the state after each node,
as Studio does, compiles the graph as it was wired.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.channels import LastValue, UntrackedValue
from langgraph.graph import StateGraph
from langgraph.types import Command

from persona_mcp.graphs.ways import Way

LAST = (LastValue, UntrackedValue)
"""Channels of which a node reads what was written last."""
G = TypeVar("G", bound=StateGraph[Any, Any, Any, Any])


class Chain(Runnable[Any, Any]):
    """Nodes that run one after the other, each on what those before it have written.

    Attributes:
        nodes: Which.
        way: Chooses the step after this one; None where there is only one.
    """

    def __init__(self, nodes: Sequence[Runnable[Any, Any]], way: Way | None = None) -> None:
        """Run these, of a state whose channels keep the last value."""
        self.nodes = tuple(nodes)
        self.way = way

    def invoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> Any:
        """Run them; our nodes cannot be run so, and the first says why."""
        return self.nodes[0].invoke(input, config, **given)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> Any:
        """Run them, and return all that they write, with where it goes on if they choose that.

        Of what two write, what the later one does.
        """
        written: dict[str, Any] = {}
        for node in self.nodes:
            written |= await node.ainvoke({**input, **written}, config, **given) or {}
        if self.way is None:
            return written
        return Command(update=written, goto=self.way.choose({**input, **written}))


def chained(builder: G) -> G:
    """Put each node into the step of the one before it where neither has another way.

    Where a step goes on by a way (`ways`), it chooses the next one itself.

    A step that is cut off, or that waits for somebody, begins again with its first node, by whose
    name it goes.

    Args:
        builder: As it was wired, of edges and conditional edges, before it is compiled.

    Raises:
        TypeError: A channel does not keep the last value: what two nodes write would be one write.
    """
    check_last_values(builder)
    for name in list(builder.nodes):
        while name in builder.nodes and (after := only_after(builder, name)) is not None:
            take_in(builder, name, after)
    for name in builder.nodes:
        lead_on(builder, name)
    return builder


def check_last_values(builder: StateGraph[Any, Any, Any, Any]) -> None:
    """Make sure that of what two nodes write into a channel the later one's is what counts.

    Raises:
        TypeError: A channel does not keep the last value.
    """
    for channel, kind in builder.channels.items():
        if not isinstance(kind, LAST):
            raise TypeError(f"{channel} of {builder.state_schema.__name__}: not a last value")


def only_after(builder: StateGraph[Any, Any, Any, Any], name: str) -> str | None:
    """Return the node that follows this one and no other, and that alone; None if none does."""
    ways = [after for before, after in builder.edges if before == name]
    if len(ways) != 1 or builder.branches.get(name) or ways[0] not in builder.nodes:
        return None
    after = ways[0]
    befores = [before for before, its in builder.edges if its == after]
    branches = [branch for its in builder.branches.values() for branch in its.values()]
    led = any(branch.ends is None or after in branch.ends.values() for branch in branches)
    return after if befores == [name] and not led else None


def take_in(builder: StateGraph[Any, Any, Any, Any], name: str, after: str) -> None:
    """Put a node into the step of another, whose ways on are then those of the node."""
    step, node = builder.nodes[name], builder.nodes.pop(after)
    nodes = [part for one in (step, node) for part in nodes_of(one.runnable)]
    step.runnable = Chain(nodes)
    step.input_schema = builder.state_schema  # one of them may read more than the first
    builder.edges.remove((name, after))
    for edge in [edge for edge in builder.edges if edge[0] == after]:
        builder.edges.remove(edge)
        builder.edges.add((name, edge[1]))
    if after in builder.branches:
        builder.branches[name] = builder.branches.pop(after)


def lead_on(builder: StateGraph[Any, Any, Any, Any], name: str) -> None:
    """Have a step choose the one after it itself, of what it has read and written.

    To ask a conditional edge, LangGraph copies every channel and writes the update to the copies.
    """
    branches = [*builder.branches.get(name, {}).values()]
    if len(branches) != 1 or not isinstance(way := branches[0].path, Way):
        return
    step = builder.nodes[name]
    step.runnable = Chain(nodes_of(step.runnable), way)
    step.input_schema = builder.state_schema
    step.ends = way.ends
    del builder.branches[name]


def nodes_of(node: Any) -> Sequence[Runnable[Any, Any]]:
    """Return the nodes of a chain, or the one node."""
    return node.nodes if isinstance(node, Chain) else (node,)
