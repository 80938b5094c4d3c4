"""How much a turn says that was not said before: a talk that goes in circles ends."""

import re
from collections.abc import Sequence

from persona_mcp.state.memory.full_text import STOP_WORDS

WORD = re.compile(r"[^\W_]+")


def content_words(text: str) -> frozenset[str]:
    """Return the words of a text that carry it, case folded: stop words are left out."""
    return frozenset(WORD.findall(text.casefold())) - STOP_WORDS


def new_share(text: str, before: frozenset[str]) -> float:
    """Return the share of a text's content words that were not said before, [0, 1].

    A text without any, such as "Yes.", says nothing new.
    """
    words = content_words(text)
    return len(words - before) / len(words) if words else 0.0


def stale_turns(turns: Sequence[str], least: float) -> int:
    """Count the turns at the end of a talk whose share of new words is below `least`.

    Args:
        turns: What was said, oldest first.
        least: [0, 1]; 0 finds no turn stale.
    """
    before: frozenset[str] = frozenset()
    stale = 0
    for text in turns:
        stale = stale + 1 if new_share(text, before) < least else 0
        before |= content_words(text)
    return stale
