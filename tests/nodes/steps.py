"""What the steps of a graph are called with, beside the parts."""

from types import SimpleNamespace
from typing import Any, cast

from persona_mcp.nodes.chat_state import ChatState
from persona_mcp.nodes.parts import ChatContext


class Writer:
    """Takes what a step tells, and the knobs that it is run with."""

    def __init__(self, **knobs: Any) -> None:
        self.told: list[dict[str, Any]] = []
        self.context = ChatContext(**knobs)

    @property
    def runtime(self) -> Any:
        return cast("Any", SimpleNamespace(context=self.context, stream_writer=self.told.append))


def state(**values: Any) -> ChatState:
    """Make a state; what a step does not read may be missing."""
    given = {"world_id": "main", "conversation_id": "c1", "exchange_id": "x9", "message": "Hello."}
    return cast("ChatState", {**given, **values})
