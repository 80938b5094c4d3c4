"""Where a graph goes on: a function of its state, asked without ceremony.

LangGraph would run a plain function in a task of its own and tell whoever traces of it, which
takes longer than any of ours does.
"""

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from langchain_core.runnables import Runnable, RunnableConfig


class Way(Runnable[Any, str]):
    """The path of a conditional edge.

    Attributes:
        choose: Returns the next node.
        ends: Which there are.
    """

    def __init__(self, choose: Callable[[Any], str]) -> None:
        """Ask this function, whose name is the edge's; its return type is a Literal of nodes."""
        self.name = choose.__name__
        self.choose = choose
        self.ends: tuple[str, ...] = get_args(get_type_hints(choose)["return"])

    def invoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> str:
        """Return the next node."""
        return self.choose(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> str:
        """Return the next node."""
        return self.choose(input)


def way(choose: Callable[[Any], str]) -> tuple[Way, list[str]]:
    """Return the path that a function of the state chooses, and where it may lead.

    Args:
        choose: Its return type is a Literal of the nodes' names.
    """
    path = Way(choose)
    return path, list(path.ends)
