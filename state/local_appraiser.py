"""An appraiser without a language model: meaning, turns of phrase, and general sentiment.

Each value is the sum of where the embedder puts the text (`anchors`), of what its phrases add
(`cues`) and, for warmth, of the sentiment of its words (vaderSentiment; Hutto and Gilbert 2014);
the appraiser's measured bias is taken off. Nothing is learned, and nothing leaves the machine.
"""

import asyncio
from dataclasses import dataclass
from functools import cache
from typing import Any

from persona_mcp.state.anchors import Likeness, likeness_for, load_anchors
from persona_mcp.state.appraisal import Appraisal, without_bias
from persona_mcp.state.appraiser import Taken
from persona_mcp.state.cues import READ_CHARS, Cues, Found, find_cues, load_cues
from persona_mcp.state.embedding import Embedder

SYMBOLS_READ = 16
LAST_LETTER = "\u2000"
"""Beyond it are symbols, and scripts that the lexicon does not have."""


@dataclass(frozen=True)
class Lore:
    """What the appraiser knows of a language with an embedder."""

    likeness: Likeness
    cues: Cues
    sentiment: Any


class LocalAppraiser:
    """Appraises by the embedder, which has most often embedded the text before."""

    def __init__(self, embedder: Embedder, language: str = "en") -> None:
        """Use this embedder and the words of a language; they are read when first needed."""
        self._embedder = embedder
        self._language = language
        self._lore: Lore | None = None
        self._loading = asyncio.Lock()

    async def appraise(self, text: str) -> Taken:
        """Appraise one utterance.

        Raises:
            ModelError: The embedder did not answer.
            DeadlineExceeded: It took longer than its limit.
        """
        lore = await self._learned()
        meant = lore.likeness.read(await self._embedder.embed_query(text))
        found = find_cues(text, lore.cues)
        felt = lore.sentiment.polarity_scores(few_symbols(text[:READ_CHARS]))["compound"]
        raw = combined(meant, found, felt, lore.cues)
        return Taken(without_bias(raw, lore.cues.bias), found.turning_point)

    async def read(self) -> None:
        """Read the files of the language, and ask no embedder yet: a tenth of a second, once."""
        for load in (load_cues, load_anchors):
            await asyncio.to_thread(load, self._language)
        await asyncio.to_thread(load_sentiment)

    async def prepare(self) -> None:
        """Learn what it knows now, once, and not at the first text.

        Raises:
            ModelError: The embedder did not answer.
            DeadlineExceeded: It took longer than its limit.
        """
        await self._learned()

    def asking(self, embedder: Embedder) -> "LocalAppraiser":
        """Return one that asks another embedder, of the same vectors, and knows what this knows."""
        made = LocalAppraiser(embedder, self._language)
        made._lore = self._lore
        return made

    async def _learned(self) -> Lore:
        async with self._loading:
            if self._lore is None:
                await self.read()
                likeness = await likeness_for(self._embedder, self._language)
                self._lore = Lore(likeness, load_cues(self._language), load_sentiment())
        return self._lore


def combined(meant: list[float], found: Found, felt: float, cues: Cues) -> Appraisal:
    """Put an appraisal together, its bias still in it.

    Args:
        meant: (4,), by the embedder.
        found: By its phrases.
        felt: General sentiment of the words, [-1, 1].
        cues: The weights.
    """
    to_hearer = 1.0 if found.to_hearer else cues.aside
    by_speaker = 1.0 if found.by_speaker else cues.aside
    warmth, reliability, competence, disclosure = meant
    warm = doubted(to_hearer * (warmth + cues.sentiment * felt), cues.doubt)
    return Appraisal(
        _limit(warm + found.adds[0], -1.0),
        _limit(doubted(by_speaker * reliability, cues.doubt) + found.adds[1], -1.0),
        _limit(doubted(by_speaker * competence, cues.doubt) + found.adds[2], -1.0),
        _limit(doubted(by_speaker * disclosure, cues.doubt) + found.adds[3], 0.0),
    )


def doubted(value: float, doubt: float) -> float:
    """Make small values smaller: value * |value| / (|value| + doubt); its sign stays.

    Small values are most often noise, and many neutral turns must not add up to a feeling.
    """
    size = abs(value)
    return value * size / (size + doubt) if size else 0.0


def few_symbols(text: str) -> str:
    """Leave out all but the first symbols of a text: a page of emojis would take seconds."""
    symbols = [at for at, letter in enumerate(text) if letter > LAST_LETTER]
    return text[: symbols[SYMBOLS_READ]] if len(symbols) > SYMBOLS_READ else text


@cache
def load_sentiment() -> Any:
    """Read the lexicon of vaderSentiment, once."""
    from vaderSentiment.vaderSentiment import (  # noqa: PLC0415 - not every start needs it
        SentimentIntensityAnalyzer,
    )

    return SentimentIntensityAnalyzer()


def _limit(value: float, least: float) -> float:
    return min(1.0, max(least, value))
