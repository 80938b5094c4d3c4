"""What a batch is watched for: agreeable drift, repetition, speakers that sound alike.

Pure functions of what was said and of how it moved relationships.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from persona_mcp.state.batch.reading import Ends, Moved, SaidTurn

NEUTRAL_AFFINITY = 0.2
"""Up to this, either way, one is indifferent to another."""
NEUTRAL_WARMTH = 0.1
"""Up to this, either way, a turn is neither kind nor hostile."""
NGRAM = 3
MOSTLY = 0.5
"""Share of its word trigrams from which a turn repeats what was said."""
DISTINCT = 2
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Split a text into its words, in lower case."""
    return WORD.findall(text.lower())


def ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Return the runs of so many words in a row."""
    return [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]


@dataclass(frozen=True)
class Repetition:
    """How much of a dialogue was said before.

    Attributes:
        repeats: Turns of which most word trigrams stood in earlier turns.
        turns: Turns that are long enough to have a trigram.
        distinct: Bigrams that are different.
        bigrams: All of them.
    """

    repeats: int
    turns: int
    distinct: int
    bigrams: int


def repetition(texts: Iterable[str]) -> Repetition:
    """Measure how much the turns of a dialogue repeat each other.

    Distinct-2 = different bigrams / all bigrams. Source: Li et al. 2016, "A diversity-promoting
    objective function for neural conversation models".

    Args:
        texts: What was said, in order.
    """
    seen: set[tuple[str, ...]] = set()
    pairs: Counter[tuple[str, ...]] = Counter()
    repeats = turns = 0
    for text in texts:
        words = words_of(text)
        grams = ngrams(words, NGRAM)
        pairs.update(ngrams(words, DISTINCT))
        if grams:
            turns += 1
            repeats += sum(gram in seen for gram in grams) >= MOSTLY * len(grams)
            seen.update(grams)
    return Repetition(repeats, turns, len(pairs), pairs.total())


def begins_neutral(before: Mapping[Ends, Mapping[str, float]], turns: Sequence[SaidTurn]) -> bool:
    """Tell whether a dialogue gives no reason to like anybody more or less.

    It begins among people who are indifferent to each other, and no narrator brings anything in.
    What is said in it does not count: that is what is measured.
    """
    indifferent = all(abs(seen["affinity"]) <= NEUTRAL_AFFINITY for seen in before.values())
    return indifferent and not any(turn.kind == "narrated" for turn in turns)


def drifts(moves: Iterable[Moved]) -> list[float]:
    """Return what each turn did to the affinity of whom it was said to, or by."""
    return [one.change for one in moves if one.direct]


def warmths(moves: Iterable[Moved]) -> list[float]:
    """Return how warm each turn was taken to be, -1..1."""
    return [one.appraisal["warmth"] for one in moves if one.direct and one.appraisal]


def neutral_drifts(moves: Iterable[Moved]) -> list[float]:
    """Return what turns that were neither kind nor hostile did to affinity."""
    return [
        one.change
        for one in moves
        if one.direct and one.appraisal and abs(one.appraisal["warmth"]) <= NEUTRAL_WARMTH
    ]
