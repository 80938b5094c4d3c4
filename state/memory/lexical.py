"""Scoring of texts by their words: BM25, with the statistics of one persona's memories.

The full-text index counts how rare a word is among everyone's memories; what is rare for one
persona is not for another, so its candidates are scored anew.
"""

import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import combining, normalize

import Stemmer

from persona_mcp.state.memory.full_text import terms_of
from persona_mcp.state.memory.params import RetrievalParams

WORD = re.compile(r"[^\W_]+")
SPACES = {code: " " for code in range(128) if not chr(code).isalnum()}
"""Of what is ASCII; ten times as fast as an expression."""
STEMS_KEPT = 50_000
TEXTS_KEPT = 4096
"""A text of twenty words takes 2 kB."""
STEMMER = Stemmer.Stemmer("english", 0)
"""Without its own cache: `stem` has one."""
STEMMING = threading.Lock()
"""One stemmer is not for several threads at once."""


@dataclass(frozen=True)
class Statistics:
    """What is known of the memories that a score is among.

    Attributes:
        memories: How many there are.
        having: How many have a term, by term as it stands in the query.
    """

    memories: int
    having: Mapping[str, int]


def spaced(text: str) -> str:
    """Return a text's words with spaces between, without case and accents."""
    text = text.casefold()
    if text.isascii():
        return text.translate(SPACES)
    return " ".join(WORD.findall("".join(c for c in normalize("NFKD", text) if not combining(c))))


def words_of(text: str) -> list[str]:
    """Return the words of a text, without case and accents, as the full-text index has them."""
    return spaced(text).split()


@lru_cache(STEMS_KEPT)
def stem(word: str) -> str:
    """Return the stem of a word in lower case, by Snowball's rules for English."""
    with STEMMING:
        found: str = STEMMER.stemWord(word)
    return found


def weights_of(query: str, known: Statistics) -> dict[str, float]:
    """Return how rare the words of a query are, by stem: the logarithm of `bm25`."""
    weights: dict[str, float] = {}
    for term in terms_of(query):
        having = min(known.having.get(term, 0), known.memories)
        rare = math.log(1 + (known.memories - having + 0.5) / (having + 0.5))
        weights |= dict.fromkeys(map(stem, words_of(term)), rare)
    return weights


def bm25(
    query: str, texts: Sequence[str], known: Statistics, params: RetrievalParams
) -> list[float]:
    """Score texts by the words of a query: 0 or more each, 0 where none is in it.

    sum over distinct terms of ln(1 + (n - df + .5) / (df + .5)) f (k1 + 1)
    / (f + k1 (1 - b + b length / mean length)). Source: Robertson and Zaragoza, 2009, with the
    logarithm that is never negative.
    """
    weights = weights_of(query, known)
    k1, b = params.lexical_k1, params.lexical_b
    mean_length = sum(map(len, texts)) / max(len(texts), 1)
    scores = []
    for text in texts:
        counts = stems_of(text)
        meant = weights.keys() & counts.keys()
        if not meant:
            scores.append(0.0)
            continue
        held_back = k1 * (1 - b + b * len(text) / mean_length)
        # In the text's order, whatever the order of a set: sums are the same bits each time.
        found = meant if len(meant) == 1 else [stemmed for stemmed in counts if stemmed in meant]
        scores.append(
            sum(
                weights[stemmed] * counts[stemmed] * (k1 + 1) / (counts[stemmed] + held_back)
                for stemmed in found
            )
        )
    return scores


def count_stems(text: str) -> Mapping[str, int]:
    """Count the stems of a text, in the order in which they first stand there."""
    found: dict[str, int] = {}
    for stemmed in map(stem, words_of(text)):
        found[stemmed] = found.get(stemmed, 0) + 1
    return found


stems_of = lru_cache(TEXTS_KEPT)(count_stems)
"""What is a candidate once is one again at the next search, most often."""
