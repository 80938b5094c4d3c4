"""What a run tells while it goes on: whoever listens in this process hears it at once.

LangGraph's stream, which serves where nobody does (Studio), takes a message through a queue and has
a task wait for it beside every node.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what runs a graph needs no LangGraph itself
    from langgraph.runtime import Runtime

STORED = "stored"
"""For this process alone: the exchange as it is done."""
Listener = Callable[[dict[str, Any]], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Have the runs of graphs in this block tell a listener, in place of their streams.

    Args:
        listener: Is called in the event loop, with `event` and what goes with it.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(runtime: "Runtime[Any]", event: str, **data: Any) -> None:
    """Tell of an event, with what goes with it."""
    (_listener.get() or runtime.stream_writer)({"event": event, **data})


def tell_here(event: str, **data: Any) -> None:
    """Tell of an event that is for this process alone: no stream has it."""
    if listener := _listener.get():
        listener({"event": event, **data})
