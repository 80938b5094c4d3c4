"""Scoring of texts by their words: BM25, with the statistics of one persona's memories.

The full-text index counts how rare a word is among everyone's memories; what is rare for one
persona is not for another, so its candidates are scored anew.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import combining, normalize

import snowballstemmer

from persona_mcp.state.full_text import terms_of
from persona_mcp.state.retrieval import RetrievalParams

WORD = re.compile(r"[^\W_]+")
STEMS_KEPT = 50_000
STEMMER = snowballstemmer.stemmer("english")


@dataclass(frozen=True)
class Statistics:
    """What is known of the memories that a score is among.

    Attributes:
        memories: How many there are.
        mean_length: Of their indexed texts, in characters.
        having: How many have a term, by term as it stands in the query.
    """

    memories: int
    mean_length: float
    having: Mapping[str, int]


def words_of(text: str) -> list[str]:
    """Return the words of a text without case and accents, as the full-text index has them."""
    folded = text.casefold()
    if not folded.isascii():
        folded = "".join(c for c in normalize("NFKD", folded) if not combining(c))
    return WORD.findall(folded)


@lru_cache(STEMS_KEPT)
def stem(word: str) -> str:
    """Return the stem of a word in lower case, by Snowball's rules for English."""
    found: str = STEMMER.stemWord(word)
    return found


def bm25(
    query: str, texts: Sequence[str], known: Statistics, params: RetrievalParams
) -> list[float]:
    """Score texts by the words of a query: 0 or more each, 0 where none is in it.

    sum over distinct terms of ln(1 + (n - df + .5) / (df + .5)) f (k1 + 1)
    / (f + k1 (1 - b + b length / mean length)). Source: Robertson and Zaragoza, 2009, with the
    logarithm that is never negative.
    """
    weights: dict[str, float] = {}
    for term in terms_of(query):
        having = min(known.having.get(term, 0), known.memories)
        rare = math.log(1 + (known.memories - having + 0.5) / (having + 0.5))
        weights |= dict.fromkeys(map(stem, words_of(term)), rare)
    return [score(text, weights, known.mean_length, params) for text in texts]


def score(
    text: str, weights: Mapping[str, float], mean_length: float, params: RetrievalParams
) -> float:
    """Score one text, by the weight of each stem."""
    found: dict[str, int] = {}
    for word in words_of(text):
        if (stemmed := stem(word)) in weights:
            found[stemmed] = found.get(stemmed, 0) + 1
    if not found:
        return 0.0
    k1, b = params.lexical_k1, params.lexical_b
    held_back = k1 * (1 - b + b * len(text) / max(mean_length, 1.0))
    return sum(
        weights[stemmed] * count * (k1 + 1) / (count + held_back)
        for stemmed, count in found.items()
    )
