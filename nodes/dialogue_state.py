"""The state of a dialogue's graph: that of a conversation's, and who speaks in it."""

from typing import Annotated, NotRequired

from langgraph.channels import UntrackedValue

from persona_mcp.nodes.chat_state import ChatOutput, ChatState, ChatUpdate
from persona_mcp.nodes.parts import ChatIds
from persona_mcp.state.dialogue import Standing
from persona_mcp.state.interventions import Narrated


class DialogueInput(ChatIds):
    """What a run is started with; nothing but ids, how many turns, and the stage direction."""

    direction: NotRequired[Annotated[str, UntrackedValue(str, guard=False)]]
    """What happens before the first turn; empty for nothing."""
    turns: NotRequired[Annotated[int, UntrackedValue(int, guard=False)]]
    """How many turns, one if left out; fewer if the talk ends."""
    asked_speaker: NotRequired[Annotated[str | None, UntrackedValue(str, guard=False)]]
    """Who is to speak first, if that is not whose turn it is."""
    follows: NotRequired[Annotated[str | None, UntrackedValue(str, guard=False)]]
    """As in a conversation's."""


class DialogueOutput(ChatOutput, total=False):
    """What a run ends with.

    Attributes:
        speaker: Who spoke last.
        next_speaker: Whose turn it is now; None if the talk is over.
    """

    speaker: str
    next_speaker: str | None


class DialogueUpdate(ChatUpdate, DialogueOutput, total=False):
    """What a node may write."""

    direction: Annotated[str, UntrackedValue(str, guard=False)]
    message: str
    turns: Annotated[int, UntrackedValue(int, guard=False)]
    asked_speaker: Annotated[str | None, UntrackedValue(str, guard=False)]
    follows: Annotated[str | None, UntrackedValue(str, guard=False)]
    standing: Annotated[Standing, UntrackedValue(Standing, guard=False)]
    happens: Annotated[tuple[Narrated, ...], UntrackedValue(tuple, guard=False)]
    """What a narrator brings in before the turn."""
    ends: Annotated[str | None, UntrackedValue(str, guard=False)]
    """Why the talk is over; None if it goes on."""


class DialogueState(ChatState, DialogueInput, DialogueUpdate):  # type: ignore[misc]
    """Everything that nodes read; what is answered stands in `message`, as in a conversation."""
