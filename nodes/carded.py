"""What a character card adds to a prompt beside who the persona is: its lore, its own instructions.

Creator's notes, tags, versions and the names of entries never enter a prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from persona_mcp.nodes.parts import Parts
from persona_mcp.state.cards.card import CardUse, filled_in
from persona_mcp.state.cards.store import card_use
from persona_mcp.state.continuation import estimated_tokens
from persona_mcp.state.lore import Lore, lore_of
from persona_mcp.state.persona import Persona

FILLED = ("description", "system_prompt")


@dataclass(frozen=True)
class Played:
    """A persona as it is played in one talk.

    Attributes:
        persona: With {{char}} and {{user}} filled in.
        card: What else of its card bears on prompts; None if it has none.
        lore: What is known of what was said last.
    """

    persona: Persona
    card: CardUse | None
    lore: tuple[Lore, ...]


def played(
    connection: Connection,
    parts: Parts,
    world_id: str,
    persona: Persona,
    user: str,
    heard: Sequence[str],
) -> Played:
    """Read a persona's card, and choose from its lore.

    Args:
        connection: A transaction that reads.
        parts: For how tokens are estimated.
        world_id: Where.
        persona: Who is played.
        user: What {{user}} stands for.
        heard: The last messages that it witnessed, the oldest first.
    """
    card = card_use(connection, world_id, persona.id)
    called = (card.called if card else "") or persona.name

    def tokens(text: str) -> int:
        return estimated_tokens(len(text.split()), parts.laws.continuation)

    lore = lore_of(card.book, heard, tokens) if card and card.book else []
    told = tuple(one._replace(text=filled_in(one.text, called, user)) for one in lore)
    if card is not None:
        card = replace(
            card,
            after_history=filled_in(card.after_history, called, user),
            greetings=tuple(filled_in(one, called, user) for one in card.greetings),
        )
    return Played(with_names(persona, called, user), card, told)


def with_names(persona: Persona, called: str, user: str) -> Persona:
    """Fill in what {{char}} and {{user}} stand for in what a persona says of itself."""
    spec = persona.spec
    texts = [getattr(spec, name) for name in FILLED] + [e.user + e.reply for e in spec.examples]
    if not any("{{" in text for text in texts):
        return persona

    def fill(text: str) -> str:
        return filled_in(text, called, user, original="{{original}}")

    fields = {name: fill(getattr(spec, name)) for name in FILLED}
    examples = [
        e.model_copy(update={"user": fill(e.user), "reply": fill(e.reply)}) for e in spec.examples
    ]
    return replace(persona, spec=spec.model_copy(update={**fields, "examples": examples}))
