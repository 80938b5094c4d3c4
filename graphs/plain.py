"""Nodes that run plainly where nobody traces them: no callbacks, no task of their own.

LangGraph begins a run for tracers at every node and awaits the node in a task of its own, which
takes longer than what most of our nodes do. Whoever traces (a callback, LangSmith, a stream of
messages) gets all of it as before.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph.state import CompiledStateGraph

G = TypeVar("G", bound=CompiledStateGraph[Any, Any, Any, Any])


class Plain(Runnable[Any, Any]):
    """A node and what writes its update into the state."""

    def __init__(
        self, traced: Runnable[Any, Any], node: Runnable[Any, Any], writers: Sequence[Any]
    ) -> None:
        """Run a node.

        Args:
            traced: LangGraph's own sequence of node and writers.
            node: The node alone.
            writers: What follows it.
        """
        self.name = traced.name
        self._traced = traced
        self._node = node
        self._writers = writers

    def invoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> Any:
        """Run it as LangGraph does."""
        return self._traced.invoke(input, config, **given)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> Any:
        """Run it plainly, or as LangGraph does if somebody traces the run."""
        callbacks: Any = config.get("callbacks") if config else None
        if config is None or callbacks is None or callbacks.handlers:
            return await self._traced.ainvoke(input, config, **given)
        await asyncio.sleep(0)  # others' turn: a task of the node's own would give it, too
        running = var_child_runnable_config.set(config)  # of `interrupt`, among others
        try:
            output = await self._node.ainvoke(input, config, **given)
        finally:
            var_child_runnable_config.reset(running)
        for writer in self._writers:
            output = await writer.ainvoke(output, config)
        return output

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **given: Any
    ) -> Iterator[Any]:
        """Run it as LangGraph does, for who streams the events of all runs."""
        return self._traced.stream(input, config, **given)

    def astream(
        self, input: Any, config: RunnableConfig | None = None, **given: Any
    ) -> AsyncIterator[Any]:
        """Run it as LangGraph does, for who streams the events of all runs."""
        return self._traced.astream(input, config, **given)


def plain(graph: G) -> G:
    """Have the nodes of a compiled graph run plainly."""
    for one in graph.nodes.values():
        writers = one.flat_writers
        if writers and one.node is not None and one.node is not writers[0]:
            one.node = Plain(one.node, one.bound, writers)
    return graph
