"""The prompt of a persona as a host's own model is given it, and as it is kept meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from persona_mcp.nodes.decided import Decision
from persona_mcp.state.model import Message


@dataclass(frozen=True)
class Offer:
    """What a host is given, and what is needed when its reply comes.

    Attributes:
        messages: The prompt.
        max_tokens: Longest reply, in tokens.
        temperature: Randomness, 0..2.
        stop: Texts that end the reply.
        memories: Ids of the memories that are in the prompt.
        decision: How the reply is to be.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    stop: tuple[str, ...]
    memories: tuple[str, ...]
    decision: Decision


OFFER = TypeAdapter(Offer)


def written(offer: Offer) -> dict[str, Any]:
    """Write an offer as JSON."""
    found: dict[str, Any] = OFFER.dump_python(offer, mode="json")
    return found


def read_offer(kept: Mapping[str, Any] | None) -> Offer:
    """Read an offer as it is kept with an exchange that waits for its reply."""
    return OFFER.validate_python(kept)
