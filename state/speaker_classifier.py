"""Can a simple classifier tell who said something: multinomial naive Bayes, cross-validated."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from persona_mcp.state.batch.controls import words_of

FOLDS = 10
SMOOTHING = 1.0
TRIGRAM = 3
SPEAKERS_MOST = 12


class Sample(NamedTuple):
    """Something that was said.

    Attributes:
        dialogue: In which.
        speaker: By whom.
        text: What.
    """

    dialogue: int
    speaker: str
    text: str


@dataclass(frozen=True)
class Told:
    """How well the speakers were told apart.

    Attributes:
        right: Turns whose speaker was named rightly.
        chance: Turns that would be right if always the one were named who speaks most.
        turns: All that were tried.
        speakers: How many there are to choose from.
        by_dialogue: No dialogue was learned from that is tried; false where there is only one, of
            which parts are tried in turn.
    """

    right: int
    chance: int
    turns: int
    speakers: int
    by_dialogue: bool


def features(text: str) -> Counter[str]:
    """Count the words of a text, and the trigrams of its characters."""
    words = words_of(text)
    line = f" {' '.join(words)} "
    grams = (line[at : at + TRIGRAM] for at in range(len(line) - TRIGRAM + 1))
    return Counter([*(f"w{word}" for word in words), *(f"c{gram}" for gram in grams)])


def tell_apart(samples: Sequence[Sample]) -> Told:
    """Learn who speaks how from some dialogues, and name the speakers of the others.

    Multinomial naive Bayes on words and trigrams of characters with Laplace's smoothing, FOLDS-fold
    cross-validated: P(speaker | text) ~ P(speaker) * product of P(feature | speaker). Source:
    Manning, Raghavan and Schuetze 2008, "Introduction to Information Retrieval", 13.2.

    Args:
        samples: In order of dialogues and turns. Of those who speak, the SPEAKERS_MOST count that
            speak most.
    """
    often = Counter(sample.speaker for sample in samples)
    speakers = sorted(sorted(often, key=lambda one: (-often[one], one))[:SPEAKERS_MOST])
    kept = [sample for sample in samples if sample.speaker in set(speakers)]
    dialogues = sorted({sample.dialogue for sample in kept})
    by_dialogue = len(dialogues) > 1
    if len(speakers) < 2 or len(kept) < FOLDS:  # noqa: PLR2004 - two sides
        return Told(0, 0, 0, len(speakers), by_dialogue)
    fold_of = {one: number % FOLDS for number, one in enumerate(dialogues)}
    folds = np.array(
        [
            fold_of[sample.dialogue] if by_dialogue else number * FOLDS // len(kept)
            for number, sample in enumerate(kept)
        ]
    )
    labels = np.array([speakers.index(sample.speaker) for sample in kept])
    rows, size = _rows([sample.text for sample in kept])
    right = chance = tried = 0
    for fold in np.unique(folds):
        learned, asked = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        scores = _learn(rows, labels, learned, len(speakers), size)
        commonest = int(np.bincount(labels[learned], minlength=len(speakers)).argmax())
        for at in asked:
            right += scores.best(*rows[at]) == labels[at]
            chance += commonest == labels[at]
        tried += len(asked)
    return Told(int(right), int(chance), tried, len(speakers), by_dialogue)


Features = tuple[np.ndarray, np.ndarray]
"""Places of features, (m,), and how often each is there, (m,)."""


def _rows(texts: Sequence[str]) -> tuple[list[Features], int]:
    places: dict[str, int] = {}
    rows = []
    for text in texts:
        found = features(text)
        at = [places.setdefault(name, len(places)) for name in found]
        rows.append((np.array(at, dtype=np.int64), np.array([*found.values()], dtype=np.float64)))
    return rows, len(places)


class _Scores(NamedTuple):
    prior: np.ndarray
    likelihood: np.ndarray

    def best(self, at: np.ndarray, counts: np.ndarray) -> int:
        """Return the likeliest speaker of a text."""
        return int((self.prior + self.likelihood[:, at] @ counts).argmax())


def _learn(
    rows: Sequence[Features], labels: np.ndarray, learned: np.ndarray, speakers: int, size: int
) -> _Scores:
    seen = np.zeros((speakers, size))
    for number in learned:
        at, counts = rows[number]
        seen[labels[number], at] += counts
    texts = np.bincount(labels[learned], minlength=speakers) + SMOOTHING
    smooth = seen + SMOOTHING
    return _Scores(np.log(texts / texts.sum()), np.log(smooth / smooth.sum(axis=1, keepdims=True)))
