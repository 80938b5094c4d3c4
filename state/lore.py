"""Which entries of a lorebook stand in a prompt: pure, but for the time limit of an expression.

Source: Character Card Specification V3, section Lorebook; limits of depth and time chosen here.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import regex

from persona_mcp.state.card_fields import Book, Entry

SCAN_DEPTH = 4
"""Messages that are looked at where the book does not say."""
RECURSIONS = 5
EXPRESSION_S = 0.05
"""How long one expression may look, in seconds; it then has found nothing."""
EXPRESSIONS = 100
"""Expressions that are tried for one prompt."""
DECORATOR = re.compile(r"^\s*@@@?\w[^\n]*(?:\n|$)")
WRITTEN = re.compile(r"^/(.*)/([a-z]*)$", re.DOTALL)
FLAGS = {"i": regex.IGNORECASE, "m": regex.MULTILINE, "s": regex.DOTALL}
Place = Literal["before", "after"]


class Lore(NamedTuple):
    """Something that is known of the world.

    Attributes:
        place: Before or after what the persona is.
        text: What is known.
    """

    place: Place
    text: str


def lore_of(book: Book, heard: Sequence[str], tokens: Callable[[str], int]) -> list[Lore]:
    """Return what of a book bears on a talk, in the order in which it is to stand.

    Args:
        book: Where it is looked for.
        heard: The last messages, the oldest first.
        tokens: Counts the tokens of a text.
    """
    depth = SCAN_DEPTH if book.scan_depth is None else max(0, math.floor(book.scan_depth))
    texts = list(heard[-depth:]) if depth else []
    found = matched(book, texts)
    within = affordable(found, book.token_budget, tokens)
    ordered = sorted(within, key=lambda entry: entry.insertion_order)
    shown = dict.fromkeys((place_of(entry), told(entry)) for entry in ordered)
    return [Lore(place, text) for place, text in shown]


def matched(book: Book, texts: Sequence[str]) -> list[Entry]:
    """Return the entries that the texts ask for, and, in a recursive book, what those ask for."""
    left = [entry for entry in book.entries if entry.enabled and told(entry)]
    scan, found = Scan(), list[Entry]()
    looked_at = "\n".join(texts)
    for _ in range(1 + (RECURSIONS if book.recursive_scanning else 0)):
        fresh = [entry for entry in left if entry.constant or scan.finds(entry, looked_at)]
        if not fresh:
            break
        found += fresh
        left = [entry for entry in left if not any(entry is one for one in fresh)]
        looked_at = "\n".join(told(entry) for entry in fresh)
    return found


class Scan:
    """Looks for keys; so many expressions, and no more."""

    def __init__(self) -> None:
        """Begin."""
        self._left = EXPRESSIONS

    def finds(self, entry: Entry, text: str) -> bool:
        """Tell whether a text has one of an entry's keys, and of its second ones if it asks so."""
        if entry.use_regex:
            return any(self._matches(key, text) for key in entry.keys)
        first = has_any(entry.keys, text, bool(entry.case_sensitive))
        if not (first and entry.selective and entry.secondary_keys):
            return first
        return has_any(entry.secondary_keys, text, bool(entry.case_sensitive))

    def _matches(self, expression: str, text: str) -> bool:
        if not expression or not self._left:
            return False
        self._left -= 1
        written = WRITTEN.match(expression)
        body, flags = (written[1], written[2]) if written else (expression, "")
        try:
            sought = regex.compile(body, sum(FLAGS.get(flag, 0) for flag in set(flags)))
            return sought.search(text, timeout=EXPRESSION_S) is not None
        except (regex.error, TimeoutError, RecursionError, OverflowError):
            return False


def has_any(keys: Sequence[str], text: str, case_sensitive: bool) -> bool:
    """Tell whether one of some keys stands in a text."""
    if case_sensitive:
        return any(key and key in text for key in keys)
    folded = text.casefold()
    return any(key and key.casefold() in folded for key in keys)


def affordable(
    entries: Sequence[Entry], budget: float | None, tokens: Callable[[str], int]
) -> list[Entry]:
    """Leave out what is too much: the lowest priority first, without one the lowest order."""
    kept = sorted(
        entries,
        key=lambda one: one.insertion_order if one.priority is None else one.priority,
        reverse=True,
    )
    if budget is None:
        return kept
    sizes = [tokens(told(entry)) for entry in kept]
    while kept and sum(sizes) > budget:
        kept.pop()
        sizes.pop()
    return kept


def told(entry: Entry) -> str:
    """Return what an entry says."""
    return without_decorators(entry.content).strip()


def without_decorators(content: str) -> str:
    """Take the lines of decorators from the beginning of an entry's content."""
    while match := DECORATOR.match(content):
        content = content[match.end() :]
    return content


def place_of(entry: Entry) -> Place:
    """Tell where an entry stands."""
    return "after" if entry.position == "after_char" else "before"
