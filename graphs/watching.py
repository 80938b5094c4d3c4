"""A graph whose nodes are watched: how long each takes, and whether it fails."""

from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphBubbleUp
from langgraph.graph import StateGraph

from persona_mcp.state.watching import Watch

G = TypeVar("G", bound=StateGraph[Any, Any, Any, Any])


class Watched(Runnable[Any, Any]):
    """A node that somebody watches."""

    def __init__(self, node: Runnable[Any, Any], graph: str, name: str, watch: Watch) -> None:
        """Watch a node of a graph."""
        self.name = name
        self._node = node
        self._graph = graph
        self._watch = watch

    def invoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> Any:
        """Run it; our nodes cannot be run so, and it says why."""
        return self._node.invoke(input, config, **given)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> Any:
        """Run it; to stop and wait for somebody is no failure of it."""
        with self._watch.node(self._graph, self.name or ""):
            try:
                return await self._node.ainvoke(input, config, **given)
            except GraphBubbleUp as waits:
                stopped = waits
        raise stopped


def watched(builder: G, graph: str, watch: Watch) -> G:
    """Have the nodes of a graph watched, before it is compiled.

    Args:
        builder: As it was wired.
        graph: What it is called.
        watch: Is told of each run of a node.
    """
    for name, node in builder.nodes.items():
        node.runnable = Watched(node.runnable, graph, name, watch)  # type: ignore[arg-type]
    return builder
