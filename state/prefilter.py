"""Expressions that are looked for only where a text has one of the literals that they need.

Python's engine tries each expression at each place of a text. Where there are hundreds of them and
nearly none is found, that takes ten times as long as to look for the literals, and to look for each
literal four times as long as to look up the text's letters, three at a time. Source: the method of
RE2's FilteredRE2, with an index of trigrams in place of its automaton (Cox 2012, "Regular
Expression Matching with a Trigram Index").
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from re import _constants as op
from re import _parser as parser
from typing import Any, NamedTuple

NOTHING: frozenset[str] = frozenset()
LETTERS = 3
"""Of a literal that are looked up."""
REPEATS = op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT


class Expression(NamedTuple):
    """A regular expression that is looked for where it may be.

    Attributes:
        pattern: The expression.
        needs: Whatever it is found in has at least one of these; none where that is not known.
    """

    pattern: re.Pattern[str]
    needs: tuple[str, ...]

    def search(self, text: str) -> re.Match[str] | None:
        """Find where the expression is first in a text, as `pattern.search` does."""
        return self.pattern.search(text) if self.may_be_in(text) else None

    def sub(self, other: str, text: str) -> str:
        """Put something else wherever the expression is, as `pattern.sub` does."""
        return self.pattern.sub(other, text) if self.may_be_in(text) else text

    def may_be_in(self, text: str) -> bool:
        """Tell whether a text has what the expression needs."""
        for one in self.needs:
            if one in text:
                return True
        return not self.needs


class Prefilter:
    """Many expressions under names, of which few are in any text."""

    def __init__(self, named: Mapping[str, Sequence[Expression]]) -> None:
        """Index them by three letters of each literal: those that fewest of the literals have."""
        self._all = [(name, one) for name, its in named.items() for one in its]
        self._always: list[int] = []
        """Numbers of those that need nothing which is long enough."""
        self._having: dict[str, list[tuple[str, int]]] = defaultdict(list)
        """By letters, what has them and is needed by which."""
        common = Counter(
            letters for _, one in self._all for need in one.needs for letters in trigrams(need)
        )
        for number, (_, one) in enumerate(self._all):
            if not one.needs or min(map(len, one.needs)) < LETTERS:
                self._always.append(number)
                continue
            for need in one.needs:
                rarest = min(trigrams(need), key=lambda letters: (common[letters], letters))
                self._having[rarest].append((need, number))

    def possible(self, text: str) -> dict[str, list[Expression]]:
        """Return those that may be in a text by their names, all in the order they were given."""
        numbers = set(self._always)
        for letters in self._having.keys() & trigrams(text):
            numbers.update(number for need, number in self._having[letters] if need in text)
        found: dict[str, list[Expression]] = {}
        for number in sorted(numbers):
            name, one = self._all[number]
            found.setdefault(name, []).append(one)
        return found


def trigrams(text: str) -> set[str]:
    """Return all that stand in a text, three letters one after another."""
    return {text[at : at + LETTERS] for at in range(len(text) - LETTERS + 1)}


def expression(pattern: str) -> Expression:
    """Compile an expression, and find out what it needs.

    Raises:
        re.error: It is none.
    """
    compiled = re.compile(pattern)
    if compiled.flags & re.IGNORECASE:
        return Expression(compiled, ())
    return Expression(compiled, tuple(sorted(needed(parser.parse(pattern)))))


def needed(parts: Iterable[tuple[Any, Any]]) -> frozenset[str]:
    """Return literals of which each text has one that a parsed expression is found in.

    Args:
        parts: What has to follow one another, as Python's parser gives it.
    """
    best, run = NOTHING, ""
    for kind, its in parts:
        if kind is op.LITERAL:
            run += chr(its)
            continue
        best, run = better(better(best, run), needed_by(kind, its)), ""
    return better(best, run)


def needed_by(kind: Any, its: Any) -> frozenset[str]:
    """Return what one part needs; nothing for what may be left out, and what is not looked into."""
    if kind is op.SUBPATTERN:
        _, flags, _, inside = its
        return NOTHING if flags & re.IGNORECASE else needed(inside)
    if kind is op.BRANCH:
        ways = [needed(way) for way in its[1]]
        return NOTHING.union(*ways) if all(ways) else NOTHING
    if kind in REPEATS and its[0] > 0:
        return needed(its[2])
    return NOTHING


def better(one: frozenset[str], other: frozenset[str] | str) -> frozenset[str]:
    """Return what fewer texts have: longer literals, or fewer of them."""
    another = frozenset([other] if other else []) if isinstance(other, str) else other
    if not one or not another:
        return one or another
    return max(one, another, key=lambda literals: (min(map(len, literals)), -len(literals)))
