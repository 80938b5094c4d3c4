"""What a host is given, and what comes back: kept as JSON, and read as it was."""

import json

import pytest

from persona_mcp.nodes.hosting import HOST
from persona_mcp.nodes.offer import Offer, read_offer, written
from persona_mcp.nodes.prompts import Brief, compose
from persona_mcp.state.model import Message
from persona_mcp.state.prompt_params import PromptParams
from persona_mcp.state.relationship_params import RelationshipParams
from tests.scenes import decision, recall, scene, turn

OFFER = Offer(
    messages=(Message("system", "You are Mara."), Message("user", "Good evening, «Mara»…")),
    max_tokens=120,
    temperature=0.1 + 0.2,
    stop=("\nann:",),
    memories=("m1", "m2"),
    decision=decision(),
)


def test_an_offer_is_kept_as_json_and_read_as_it_was() -> None:
    kept = json.loads(json.dumps(written(OFFER)))

    assert read_offer(kept) == OFFER


@pytest.mark.parametrize("kept", [None, {}])
def test_an_exchange_without_an_offer_cannot_be_read_as_one(kept: dict[str, str] | None) -> None:
    with pytest.raises(ValueError, match="Offer"):
        read_offer(kept)


def test_a_host_is_given_the_long_prompt_with_the_whole_window() -> None:
    window = [turn(n, ("ann", "mara")[n % 2], f"Line {n}.") for n in range(20)]
    brief = Brief(scene(*window), "And now?", decision(), RelationshipParams())

    prompt = compose(brief, recall(), HOST, PromptParams())

    assert len(prompt.messages) == 22
    assert "How you talk" in prompt.messages[0].content
