"""Scoring of texts by their words: BM25, with the statistics of one persona's memories.

The full-text index counts how rare a word is among everyone's memories; what is rare for one
persona is not for another, so its candidates are scored anew.
"""

import math
import re
import threading
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import combining, normalize

import Stemmer

from persona_mcp.state.full_text import terms_of
from persona_mcp.state.memory_params import RetrievalParams

WORD = re.compile(r"[^\W_]+")
SPACES = {code: " " for code in range(128) if not chr(code).isalnum()}
"""Of what is ASCII; ten times as fast as an expression."""
APART = " . "
"""Stands between texts that are taken apart together: no word."""
STEMS_KEPT = 50_000
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
    k1, b = params.lexical_k1, params.lexical_b
    mean_length = sum(map(len, texts)) / max(len(texts), 1)
    scores = [0.0] * len(texts)
    for at, counts in counted(texts, weights).items():
        held_back = k1 * (1 - b + b * len(texts[at]) / mean_length)
        scores[at] = sum(
            weights[stemmed] * count * (k1 + 1) / (count + held_back)
            for stemmed, count in counts.items()
        )
    return scores


def counted(texts: Sequence[str], stems: Container[str]) -> dict[int, dict[str, int]]:
    """Count stems in the texts that have any: by the text's place, then by stem.

    All texts are taken apart at once, and each distinct word is stemmed once.
    """
    words = APART.join(map(spaced, texts)).split()
    meant = {word: stemmed for word in set(words) if (stemmed := stem(word)) in stems}
    telling = {*meant, APART.strip()}
    found: dict[int, dict[str, int]] = {}
    place = 0
    for word in [word for word in words if word in telling]:
        if word not in meant:
            place += 1
            continue
        its, stemmed = found.setdefault(place, {}), meant[word]
        its[stemmed] = its.get(stemmed, 0) + 1
    return found
