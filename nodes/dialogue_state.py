"""The state of a dialogue's graph: that of a conversation's, and who speaks in it."""

from typing import Annotated, NotRequired

from langgraph.channels import UntrackedValue

from persona_mcp.nodes.chat_state import ChatOutput, ChatState, ChatUpdate
from persona_mcp.nodes.parts import ChatIds
from persona_mcp.state.dialogue import Standing


class DialogueInput(ChatIds):
    """What a turn is started with; nothing but ids and the stage direction."""

    direction: str
    """What happens before the turn; empty for nothing."""
    asked_speaker: NotRequired[Annotated[str | None, UntrackedValue(str, guard=False)]]
    """Who is to speak, if that is not whose turn it is."""
    follows: NotRequired[Annotated[str | None, UntrackedValue(str, guard=False)]]
    """As in a conversation's."""


class DialogueOutput(ChatOutput, total=False):
    """What a turn ends with.

    Attributes:
        speaker: Who spoke.
        next_speaker: Whose turn it is now; None if the talk is over.
    """

    speaker: str
    next_speaker: str | None


class DialogueUpdate(ChatUpdate, DialogueOutput, total=False):
    """What a node may write."""

    message: str
    standing: Annotated[Standing, UntrackedValue(Standing, guard=False)]


class DialogueState(ChatState, DialogueInput, DialogueUpdate):  # type: ignore[misc]
    """Everything that nodes read; what is answered stands in `message`, as in a conversation."""
