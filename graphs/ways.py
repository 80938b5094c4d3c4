"""Where a graph goes on: a function of its state, asked without ceremony.

LangGraph would run a plain function in a task of its own and tell whoever traces of it, which
takes longer than any of ours does.
"""

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from langchain_core.runnables import Runnable, RunnableConfig


class Way(Runnable[Any, str]):
    """The path of a conditional edge."""

    def __init__(self, choose: Callable[[Any], str]) -> None:
        """Ask this function for the next node; its name is the edge's."""
        self.name = choose.__name__
        self._choose = choose

    def invoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> str:
        """Return the next node."""
        return self._choose(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **given: Any) -> str:
        """Return the next node."""
        return self._choose(input)


def way(choose: Callable[[Any], str]) -> tuple[Way, list[str]]:
    """Return the path that a function of the state chooses, and where it may lead.

    Args:
        choose: Its return type is a Literal of the nodes' names.
    """
    return Way(choose), list(get_args(get_type_hints(choose)["return"]))
