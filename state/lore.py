"""Which entries of a lorebook stand in a prompt: pure, but for the time limit of an expression.

Source: Character Card Specification V3, section Lorebook; limits of depth and time chosen here.
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import regex

from persona_mcp.state.cards.fields import Book, Entry

SCAN_DEPTH, TOKENS = 4, 2000
"""Messages that are looked at, and tokens that may enter, where the book does not say."""
ENTRIES, MOST = 5000, 200
"""Entries of a book that are looked at, and of those that enter."""
RECURSIONS = 5
EXPRESSION_S, SCAN_S = 0.05, 0.25
"""How long one expression, and the whole search, may take, in seconds; the rest is not found.

The search is timed by its thread's own clock: what is found must not depend on what else runs.
"""
EXPRESSION_CHARS, EXPRESSIONS = 1000, 100
"""Length of an expression, and how many are tried for one prompt."""
DECORATOR = re.compile(r"^\s*@@@?\w[^\n]*(?:\n|$)")
WRITTEN = re.compile(r"^/(.*)/([a-z]*)$", re.DOTALL)
FLAGS = {"i": regex.IGNORECASE, "m": regex.MULTILINE, "s": regex.DOTALL}
Place = Literal["before", "after"]


class Lore(NamedTuple):
    """Something that is known of the world.

    Attributes:
        place: Before or after what the persona is.
        text: What is known.
        priority: What has the lowest is left out first.
    """

    place: Place
    text: str
    priority: float = 0.0


def lore_of(book: Book, heard: Sequence[str], tokens: Callable[[str], int]) -> list[Lore]:
    """Return what of a book bears on a talk, in the order in which it is to stand.

    Args:
        book: Where it is looked for.
        heard: The last messages, the oldest first.
        tokens: Counts the tokens of a text.
    """
    depth = SCAN_DEPTH if book.scan_depth is None else max(0, math.floor(book.scan_depth))
    texts = list(heard[-depth:]) if depth else []
    within = affordable(matched(book, texts), book.token_budget, tokens)
    shown: dict[tuple[Place, str], Lore] = {}
    for entry in sorted(within, key=lambda entry: entry.insertion_order):
        one = Lore(place_of(entry), told(entry), priority_of(entry))
        shown.setdefault((one.place, one.text), one)
    return list(shown.values())


def matched(book: Book, texts: Sequence[str]) -> list[Entry]:
    """Return the entries that the texts ask for, and, in a recursive book, what those ask for."""
    left = [entry for entry in book.entries[:ENTRIES] if entry.enabled and told(entry)]
    found, scan = list[Entry](), Scan("\n".join(texts), time.thread_time() + SCAN_S)
    for _ in range(1 + (RECURSIONS if book.recursive_scanning else 0)):
        asked = [entry.constant or scan.finds(entry) for entry in left]
        fresh = [entry for entry, wanted in zip(left, asked, strict=True) if wanted]
        if not fresh:
            break
        found += fresh
        left = [entry for entry, wanted in zip(left, asked, strict=True) if not wanted]
        scan.look_at("\n".join(told(entry) for entry in fresh))
    return found


class Scan:
    """Looks for keys in a text: so many expressions, so long, and no more."""

    def __init__(self, text: str, until: float) -> None:
        """Look until a time of the thread's own clock."""
        self._expressions = EXPRESSIONS
        self._until = until
        self.look_at(text)

    def look_at(self, text: str) -> None:
        """Look at another text from now on."""
        self._text, self._folded = text, text.casefold()

    def finds(self, entry: Entry) -> bool:
        """Tell whether the text has one of an entry's keys, and of its second ones if it asks."""
        if time.thread_time() > self._until:
            return False
        if entry.use_regex:
            return any(self._matches(key) for key in entry.keys)
        first = self._has(entry.keys, entry.case_sensitive)
        if not (first and entry.selective and entry.secondary_keys):
            return first
        return self._has(entry.secondary_keys, entry.case_sensitive)

    def _has(self, keys: Sequence[str], case_sensitive: bool | None) -> bool:
        if case_sensitive:
            return any(key and key in self._text for key in keys)
        return any(key and key.casefold() in self._folded for key in keys)

    def _matches(self, expression: str) -> bool:
        if not expression or len(expression) > EXPRESSION_CHARS or not self._expressions:
            return False
        self._expressions -= 1
        sought = compiled(expression)
        try:
            return sought is not None and bool(sought.search(self._text, timeout=EXPRESSION_S))
        except (TimeoutError, RecursionError):
            return False


@lru_cache(1024)
def compiled(expression: str) -> "regex.Pattern[str] | None":
    """Compile an expression, alone or written with its flags as /.../i; None if it is wrong."""
    written = WRITTEN.match(expression)
    body, flags = (written[1], written[2]) if written else (expression, "")
    try:
        return regex.compile(body, sum(FLAGS.get(flag, 0) for flag in set(flags)))
    except (regex.error, RecursionError, OverflowError):
        return None


def affordable(
    entries: Sequence[Entry], budget: float | None, tokens: Callable[[str], int]
) -> list[Entry]:
    """Leave out what is too much: the lowest priority first, without one the lowest order."""
    left = TOKENS if budget is None else budget
    kept = list[Entry]()
    for entry in sorted(entries, key=priority_of, reverse=True)[:MOST]:
        left -= tokens(told(entry))
        if left < 0:
            break
        kept.append(entry)
    return kept


def priority_of(entry: Entry) -> float:
    """Return how much it matters that an entry stays."""
    return entry.insertion_order if entry.priority is None else entry.priority


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
