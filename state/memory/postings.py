"""The words of many texts, kept so that a search looks at those of its query alone."""

from array import array
from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from persona_mcp.state.memory.full_text import terms_of
from persona_mcp.state.memory.lexical import Statistics, count_stems, stem, weights_of, words_of
from persona_mcp.state.memory.params import RetrievalParams

COUNT_BITS = 16
MOST_COUNTED = (1 << COUNT_BITS) - 1
NO_PLACES: "array[int]" = array("q")


class Postings:
    """Where each stem stands: numbers of texts, and how often it is in each.

    A place is one number, of the text above `COUNT_BITS` bits of the count.
    """

    def __init__(self) -> None:
        """Hold no texts yet."""
        self._places: dict[str, array[int]] = {}
        self._having: dict[str, int] = {}
        """How many of the texts that count have a stem."""
        self._lengths = array("d")
        self._whole_length = 0
        self._counted = array("b")
        self._count = 0

    def add(self, text: str, is_counted: bool) -> None:
        """Add a text, whose number is how many were there.

        Args:
            text: Any.
            is_counted: Whether it is one of those among which a word may be rare.
        """
        above = len(self._lengths) << COUNT_BITS
        for stemmed, count in count_stems(text).items():
            places = self._places.get(stemmed)
            if places is None:
                places = self._places[stemmed] = array("q")
            places.append(above | min(count, MOST_COUNTED))
            if is_counted:
                self._having[stemmed] = self._having.get(stemmed, 0) + 1
        self._lengths.append(len(text))
        self._whole_length += len(text)
        self._counted.append(is_counted)
        self._count += is_counted

    def scores(self, query: str, params: RetrievalParams) -> NDArray[np.float64]:
        """Score every text as `lexical.bm25` does, shape (texts,)."""
        weights = weights_of(query, self._statistics(query))
        its = [self._places.get(stemmed, NO_PLACES) for stemmed in weights]
        places: NDArray[np.int64] = np.frombuffer(b"".join(its), dtype=np.int64)
        texts, counts = places >> COUNT_BITS, places & MOST_COUNTED
        rare = np.repeat(list(weights.values()), [len(one) for one in its])
        lengths = np.frombuffer(self._lengths, dtype=np.float64)
        k1, b = params.lexical_k1, params.lexical_b
        mean_length = self._whole_length / max(len(lengths), 1)
        held_back = k1 * (1 - b + b * lengths[texts] / mean_length)
        worth = rare * counts * (k1 + 1) / (counts + held_back)
        return np.bincount(texts, worth, minlength=len(lengths)).astype(np.float64, copy=False)

    def _statistics(self, query: str) -> Statistics:
        """Count the texts that count, and those that have each word of a query."""
        stems = {term: [stem(word) for word in words_of(term)] for term in terms_of(query)}
        having = {
            term: self._having.get(its[0], 0) if len(its) == 1 else self._having_all(its)
            for term, its in stems.items()
        }
        return Statistics(self._count, having)

    def _having_all(self, stems: Sequence[str]) -> int:
        """Count the texts that count and have all of some stems: a word may have several parts."""
        every = [self._places.get(stemmed, NO_PLACES) for stemmed in stems]
        texts = [np.frombuffer(its, dtype=np.int64) >> COUNT_BITS for its in every]
        if not texts:
            return 0
        counted = np.frombuffer(self._counted, dtype=np.int8)
        return int(counted[reduce(np.intersect1d, texts)].sum())
