"""What a talk between personas is asked for: so many turns, and each of them as a graph runs it."""

from dataclasses import dataclass
from typing import Any

from persona_mcp.nodes.parts import ChatContext
from persona_mcp.state.exchanges import Lease
from persona_mcp.state.ids import derived_id


@dataclass(frozen=True)
class Advance:
    """So many turns of a talk between personas.

    Attributes:
        world_id: Where.
        conversation_id: Of the talk.
        request_id: The caller's name for all of them.
        turns: How many, 1..50; fewer if the talk ends.
        speaker: Who is to speak first, None for whose turn it is.
        direction: What happens before the first one; empty for nothing.
    """

    world_id: str
    conversation_id: str
    request_id: str
    turns: int = 1
    speaker: str | None = None
    direction: str = ""

    @property
    def request_ids(self) -> list[str]:
        """Return what each turn is asked for under."""
        keys = (self.world_id, self.conversation_id, self.request_id)
        return [derived_id(*keys, "turn", number) for number in range(self.turns)]


@dataclass(frozen=True)
class TurnRequest:
    """One turn of a talk between personas.

    Attributes:
        world_id: Where.
        conversation_id: Of the talk.
        request_id: The caller's name for it.
        context: Knobs of the run.
        speaker: Who is to speak, None for whose turn it is.
        direction: What happens before it; empty for nothing.
        after: The lease of the turn before, which this one takes over.
        more: Another turn is to take over its lease.
    """

    world_id: str
    conversation_id: str
    request_id: str
    context: ChatContext
    speaker: str | None = None
    direction: str = ""
    after: Lease | None = None
    more: bool = False

    graph = "dialogue"
    durability = "sync"

    @property
    def input(self) -> dict[str, Any]:
        """What the graph is started with, beside which exchange it is."""
        return {"direction": self.direction, "asked_speaker": self.speaker}

    @property
    def parameters(self) -> dict[str, Any]:
        """What two calls share that ask for the same turn."""
        return {"conversation_id": self.conversation_id, "speaker_id": self.speaker}
