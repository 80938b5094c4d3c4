"""Scoring of memory candidates: pure functions over numbers that a search has read.

Dense and lexical scores are fused as z-scores over the pool of candidates. A turn of a conversation
also gains from what stands around it: the turns before and after it, and the best of its session;
and from what the query names: its speaker, its date. Source: the weights were tuned on dialogue
turns (LoCoMo), where rank fusion was worse than BM25 alone; `benchmarks/retrieval.py` prints what
each part is worth.
"""

import math
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona_mcp.state.memory.params import RetrievalParams
from persona_mcp.state.moments import DAY_S

EPSILON = 1e-6
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
YEAR = re.compile(r"\b((?:19|20)\d\d)\b")
DAY = re.compile(r"\b([12]?\d|3[01])(?:st|nd|rd|th)?\b")
MAY = re.compile(r"\b(?:in|of|on|\d+(?:st|nd|rd|th)?)\s+may\b|\bmay\s+\d")
"""The month, not the verb."""
WORD = re.compile(r"[^\W_]+")
LENGTH_MEAN, LENGTH_SD = 3.050, 0.532
"""Of ln(1 + words) over the turns that the weights were tuned on."""
LENGTHS_KEPT = 4096
Scores = NDArray[np.float64]


class Spoken(NamedTuple):
    """What is known of a memory that is a turn of a conversation.

    Attributes:
        owner: Whose memory it is.
        conversation_id: Where it was said.
        number: Of the turn in the conversation; None where it is not known.
        at: When, in seconds since the epoch, UTC.
        speaker: What the speaker is called.
        text: What was said.
    """

    owner: str
    conversation_id: str
    number: int | None
    at: float
    speaker: str
    text: str


class Candidate(NamedTuple):
    """A memory that may be an answer.

    Attributes:
        id: Of the memory.
        dense: Cosine to the query, [-1, 1]; None where there is no vector.
        lexical: Score of the words, 0 or more; 0 where none is in it.
        spoken: Of a turn; None for anything else that is known.
    """

    id: str
    dense: float | None
    lexical: float
    spoken: Spoken | None = None


@dataclass(frozen=True)
class Scored:
    """A candidate and what it scored.

    Attributes:
        candidate: Which.
        score: What it is ranked by.
        parts: What each part gave, the weights included.
    """

    candidate: Candidate
    score: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Dates:
    """The dates that a query names.

    Attributes:
        months: 1..12.
        years: Four digits.
        days: 1..31; only looked for beside a month.
    """

    months: frozenset[int] = frozenset()
    years: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()

    def nearness(self, at: datetime, day_half: float) -> float:
        """Return how well a time fits a named month, [0, 1]; 0 where none is named."""
        if at.month not in self.months or (self.years and at.year not in self.years):
            return 0.0
        if not self.days:
            return 1.0
        return float(2.0 ** (-min(abs(at.day - day) for day in self.days) / day_half))


def dates_of(query: str) -> Dates:
    """Find the dates that a query names, in English."""
    text = query.casefold()
    words = set(WORD.findall(text))
    months = {number for number, name in enumerate(MONTHS, start=1) if name in words}
    if not MAY.search(text):
        months.discard(MONTHS.index("may") + 1)
    years = frozenset(int(year) for year in YEAR.findall(text))
    days = frozenset(int(day) for day in DAY.findall(text)) - {0} if months else frozenset[int]()
    return Dates(frozenset(months), years, days)


def named(query: str, speakers: Iterable[str]) -> str | None:
    """Return the one speaker whose name is in a query, None where it is none or several."""
    words = set(WORD.findall(query.casefold()))
    found = {
        speaker
        for speaker in speakers
        if (name := WORD.findall(speaker.casefold())) and words.issuperset(name)
    }
    return found.pop() if len(found) == 1 else None


def standardise(values: Sequence[float | None]) -> Scores:
    """Return z-scores, shape (n,); a missing value counts as the mean, 0.

    Source: z(x) = (x - mean) / (sd + 1e-6), over the values that are there.
    """
    there = np.array([v for v in values if v is not None], dtype=np.float64)
    if there.size == 0:
        return np.zeros(len(values))
    mean, deviation = float(there.mean()), float(there.std()) + EPSILON
    return np.array([0.0 if v is None else (v - mean) / deviation for v in values])


def rank(
    query: str,
    pool: Sequence[Candidate],
    params: RetrievalParams,
    limit: int | None = None,
    among: Container[str] | None = None,
) -> list[Scored]:
    """Score the candidates and sort them: best first, ties by id.

    S = a z(dense) + b z(lexical), over the pool. To S is added, for a turn: c S of the turn before,
    d S of the turn after; e for its speaker, if the query names no other; f for its date; - g for a
    question; h (ln(1 + words) - 3.05) / 0.532; and for everything: i mean of the 3 best S of its
    session, which is itself where it is no turn.

    Args:
        query: What is asked.
        pool: What may be an answer, and what bears on it.
        params: The weights.
        limit: How many are returned, at most.
        among: Ids that may be returned; None for all.
    """
    if not pool:
        return []
    ids, dense, lexical, spoken = zip(*pool, strict=True)
    own = params.dense_weight * standardise(dense) + params.lexical_weight * standardise(lexical)
    gains = {"session": params.session_weight * own}
    turns = [at for at, turn in enumerate(spoken) if turn is not None]
    if turns:
        said = Turns(*(list(column) for column in zip(*(spoken[at] for at in turns), strict=True)))
        gains |= gains_of_turns(query, said, turns, own, params)
    total = own + sum(gains.values())
    best = sorted(zip((-total).tolist(), ids, range(len(pool)), strict=True))
    chosen = [at for _, id, at in best if among is None or id in among][:limit]
    shown = {name: gain.tolist() for name, gain in gains.items()}
    return [
        Scored(
            pool[at],
            float(total[at]),
            {n: gain[at] for n, gain in shown.items() if n == "session" or spoken[at] is not None},
        )
        for at in chosen
    ]


class Turns(NamedTuple):
    """The columns of several `Spoken`."""

    owners: list[str]
    conversations: list[str]
    numbers: list[int | None]
    times: list[float]
    speakers: list[str]
    texts: list[str]


def gains_of_turns(
    query: str, said: Turns, places: Sequence[int], own: Scores, params: RetrievalParams
) -> dict[str, Scores]:
    """Return what each part gives to each candidate, by part, shape (pool,).

    Args:
        query: What is asked.
        said: The turns.
        places: Where each stands in the pool.
        own: Score of each candidate, shape (pool,).
        params: The weights.
    """
    scores = own[places].tolist()
    parts: dict[str, Sequence[float] | Scores] = {
        "session": params.session_weight * sessions(said, scores, params.session_best),
        "question": [
            -params.question_penalty if text.rstrip().endswith("?") else 0.0 for text in said.texts
        ],
        "length": params.length_weight * lengthy(said.texts),
    }
    before, after = neighbours(said, scores)
    parts |= {"previous": params.previous_weight * before, "next": params.next_weight * after}
    speaker = named(query, set(said.speakers))
    parts["speaker"] = [params.speaker_weight * (one == speaker) for one in said.speakers]
    dates = dates_of(query)
    parts["date"] = [dated(at, dates, params) for at in said.times]
    gains = {name: np.zeros(len(own)) for name in parts}
    gains["session"] = params.session_weight * own
    for name, values in parts.items():
        gains[name][places] = values
    return gains


def sessions(said: Turns, scores: Sequence[float], best: int) -> Scores:
    """Return the mean of the best scores of each turn's session.

    What turns of one session share: whose memory, the conversation, the day.
    """
    days = (int(at // DAY_S) for at in said.times)
    keys = list(zip(said.owners, said.conversations, days, strict=True))
    found: dict[tuple[str, str, int], list[float]] = {}
    for key, score in zip(keys, scores, strict=True):
        found.setdefault(key, []).append(score)
    means = {
        key: math.fsum(sorted(its, reverse=True)[:best]) / min(best, len(its))
        for key, its in found.items()
    }
    return np.array([means[key] for key in keys])


def neighbours(said: Turns, scores: Sequence[float]) -> tuple[Scores, Scores]:
    """Return the scores of the turns before and after each; 0 where there is none in the pool.

    A turn stands where: whose memory, in which conversation, its number. Of several memories of
    one turn the best counts.
    """
    places = list(zip(said.owners, said.conversations, said.numbers, strict=True))
    best: dict[tuple[str, str, int | None], float] = {}
    for place, score in zip(places, scores, strict=True):
        if score > best.get(place, -math.inf):
            best[place] = score
    beside = [
        (0.0, 0.0)
        if number is None
        else (best.get((owner, where, number - 1), 0.0), best.get((owner, where, number + 1), 0.0))
        for owner, where, number in places
    ]
    before, after = np.array(beside).T
    return before, after


def dated(at: float, dates: Dates, params: RetrievalParams) -> float:
    """Return what a turn's time gives."""
    if not (dates.months or dates.years):
        return 0.0
    day = datetime.fromtimestamp(at, UTC)
    if dates.months:
        return params.date_weight * dates.nearness(day, params.day_half)
    return params.year_weight * (day.year in dates.years)


def lengthy(texts: Sequence[str]) -> Scores:
    """Return how long texts are, as z-scores of the logarithm of their words, shape (n,)."""
    words = np.array([length_of(text) for text in texts], dtype=np.float64)
    return (np.log1p(words) - LENGTH_MEAN) / LENGTH_SD


@lru_cache(LENGTHS_KEPT)
def length_of(text: str) -> int:
    """Return how many words a text has."""
    return len(text.split())
