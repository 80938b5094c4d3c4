"""Scoring of memory candidates: pure functions over numbers that a search has read.

Dense and lexical scores are fused as z-scores over the pool of candidates. A turn of a conversation
also gains from what stands around it: the turns before and after it, and the best of its session;
and from what the query names: its speaker, its date. Source: the weights were tuned on dialogue
turns (LoCoMo), where rank fusion was worse than BM25 alone; `benchmarks/retrieval.py` prints what
each part is worth.
"""

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import heapify, heappop
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
NOWHERE = -1
"""No place, no speaker, no vector. Of a table by place it is the last entry, kept for it."""

FUSED = "dense", "lexical"
OF_ALL = *FUSED, "session"
PARTS = *OF_ALL, "question", "length", "previous", "next", "speaker", "date"
"""What a score is made of: what is fused, and gains; `OF_ALL` where it is that of no turn."""
Numbers = NDArray[np.float64]
Places = NDArray[np.int64]


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


class Taken(NamedTuple):
    """Some rows of `Turns`: what each column has of them, and what all share.

    Attributes:
        places: Numbers below `given`, as all of the first four.
        before: The places of the turns before; `NOWHERE` for none.
        after: And of those after.
        sessions: Of each row.
        speakers: Places in `names`; `NOWHERE` for what is no turn.
        times: When it was said, in seconds since the epoch, UTC.
        questions: 1 for what asks, else 0.
        lengths: z-scores of the logarithm of how many words it has; 0 for what is no turn.
        names: What the speakers are called.
        given: How many places and sessions have a number.
    """

    places: Places
    before: Places
    after: Places
    sessions: Places
    speakers: Places
    times: Numbers
    questions: Numbers
    lengths: Numbers
    names: Sequence[str]
    given: int


class Turns:
    """What a score needs of memories that are turns, or anything else: a row for each.

    In columns of numbers, so that many rows are looked at at once. A place is whose memory of which
    turn it is, a session whose of which conversation on which day; each has a number of its own,
    and so has whatever is no turn.
    """

    def __init__(self) -> None:
        """Hold no rows yet."""
        self._numbers, self._values = array("q"), array("d")
        self._names: list[str] = []
        self._speakers: dict[str, int] = {}
        self._known: dict[tuple[str, str, int | None, int | None], int] = {}
        self._given = 0

    def add(self, spoken: Spoken | None) -> None:
        """Add a row; None for a memory that is no turn."""
        place, before, after, session, speaker = self._new(), NOWHERE, NOWHERE, self._new(), NOWHERE
        at, asks, length = 0.0, 0.0, 0.0
        if spoken is not None:
            if (number := spoken.number) is not None:
                before, place, after = (
                    self._number(spoken, turn, None) for turn in (number - 1, number, number + 1)
                )
            session = self._number(spoken, None, int(spoken.at // DAY_S))
            speaker = self._speaker(spoken.speaker)
            at, length = spoken.at, lengthy(spoken.text)
            asks = float(spoken.text.rstrip().endswith("?"))
        self._numbers.extend((place, before, after, session, speaker))
        self._values.extend((at, asks, length))

    def beside(self, rows: Sequence[int]) -> Places:
        """Return some rows and those of the turns before and after them, in order."""
        numbers = self._in_rows()
        is_near = np.zeros(self._given + 1, dtype=np.bool_)
        is_near[numbers[rows, 1:3]] = True
        chosen = is_near[numbers[:, 0]]
        chosen[rows] = True
        return np.flatnonzero(chosen)

    def taken(self, rows: Sequence[int] | Places) -> Taken:
        """Copy some rows."""
        places, before, after, sessions, speakers = self._in_rows()[rows].T
        times, questions, lengths = np.frombuffer(self._values).reshape(-1, 3)[rows].T
        its = places, before, after, sessions, speakers, times, questions, lengths
        return Taken(*its, self._names, self._given)

    def _in_rows(self) -> Places:
        """Return the numbers of all rows, shape (rows, 5); nothing is added while it is held."""
        return np.frombuffer(self._numbers, dtype=np.int64).reshape(-1, 5)

    def _number(self, spoken: Spoken, turn: int | None, day: int | None) -> int:
        """Return the number of a place or a session, a new one if it has none yet."""
        its = spoken.owner, spoken.conversation_id, turn, day
        number = self._known.get(its)
        if number is None:
            number = self._known[its] = self._new()
        return number

    def _speaker(self, name: str) -> int:
        """Return the number of a speaker, a new one if it has none yet."""
        number = self._speakers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def _new(self) -> int:
        self._given += 1
        return self._given - 1


class Pool(NamedTuple):
    """Memories that may be an answer, and what bears on them.

    Attributes:
        ids: Of these memories, and maybe of others.
        rows: Where the id of each memory stands in `ids`, shape (memories,).
        dense: Cosines to the query, [-1, 1], shape (memories,); NaN where there is no vector.
        lexical: Scores of the words, 0 or more, shape (memories,); 0 where none is in it.
        turns: What is known of each.
        wanted: Which ones may be returned, shape (memories,); the others only bear on these.
    """

    ids: Sequence[str]
    rows: Places
    dense: Numbers
    lexical: Numbers
    turns: Taken
    wanted: NDArray[np.bool_]


class Scored(NamedTuple):
    """A memory and what it scored.

    Attributes:
        id: Which.
        score: What it is ranked by.
        parts: The cosine (0 where there is no vector), the score of the words, and what each part
            gave, the weights included.
    """

    id: str
    score: float
    parts: dict[str, float]


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


def standardise(values: Numbers) -> Numbers:
    """Return z-scores; NaN, a value that is missing, counts as the mean, 0.

    Source: z(x) = (x - mean) / (sd + 1e-6), over the values that are there.
    """
    is_there = ~np.isnan(values)
    there = values[is_there]
    if not len(there):
        return np.zeros(len(values))
    mean = math.fsum(there.tolist()) / len(there)
    deviation = math.sqrt(math.fsum(((there - mean) ** 2).tolist()) / len(there)) + EPSILON
    return np.where(is_there, (values - mean) / deviation, 0.0)


def rank(query: str, pool: Pool, params: RetrievalParams) -> Iterator[Scored]:
    """Score a pool and yield what is wanted of it: best first, ties by id.

    S = a z(dense) + b z(lexical), over the pool. To S is added, for a turn: c S of the turn before,
    d S of the turn after; e for its speaker, if the query names no other; f for its date; - g for a
    question; h (ln(1 + words) - 3.05) / 0.532; and for everything: i mean of the 3 best S of its
    session, which is itself where it is no turn.

    Args:
        query: What is asked.
        pool: What may be an answer, and what bears on it.
        params: The weights.
    """
    if not len(pool.rows):
        return
    a, b = params.dense_weight, params.lexical_weight
    own = a * standardise(pool.dense) + b * standardise(pool.lexical)
    parts = parts_of(query, pool, own, params)
    total = own + parts[len(FUSED) :].sum(axis=0)
    wanted = np.flatnonzero(pool.wanted)
    best = list(zip((-total[wanted]).tolist(), wanted.tolist(), strict=True))
    heapify(best)  # most often the first few are looked at
    while best:
        behind, at = heappop(best)
        tied = [at]
        while best and best[0][0] == behind:
            tied.append(heappop(best)[1])
        for id, at in sorted((pool.ids[pool.rows[at]], at) for at in tied):
            known = PARTS if pool.turns.speakers[at] != NOWHERE else OF_ALL
            yield Scored(id, -behind, dict(zip(known, parts[:, at].tolist(), strict=False)))


def parts_of(query: str, pool: Pool, own: Numbers, params: RetrievalParams) -> Numbers:
    """Return what each score is made of, shape (parts, memories): those of `FUSED` as they are.

    Args:
        query: What is asked.
        pool: What may be an answer, and what bears on it.
        own: Score of each by itself.
        params: The weights.
    """
    turns = pool.turns
    beside = np.full(turns.given + 1, -np.inf)
    np.maximum.at(beside, turns.places, own)  # there may be several memories of a turn
    beside[beside == -np.inf] = 0.0
    there = {turns.names[at]: at for at in set(turns.speakers.tolist()) - {NOWHERE}}
    meant = there.get(named(query, there) or "", len(turns.names))
    values = {
        "dense": (1.0, np.where(np.isnan(pool.dense), 0.0, pool.dense)),
        "lexical": (1.0, pool.lexical),
        "session": (params.session_weight, best_means(turns, own, params.session_best)),
        "question": (-params.question_penalty, turns.questions),
        "length": (params.length_weight, turns.lengths),
        "previous": (params.previous_weight, beside[turns.before]),
        "next": (params.next_weight, beside[turns.after]),
        "speaker": (params.speaker_weight, turns.speakers == meant),
        "date": (1.0, dated(query, turns, params)),
    }
    parts = np.empty((len(PARTS), len(own)))
    for row, name in enumerate(PARTS):
        weight, its = values[name]
        np.multiply(weight, its, out=parts[row])
    return parts


def best_means(turns: Taken, scores: Numbers, best: int) -> Numbers:
    """Return the mean of the best scores of the session that each memory is of."""
    order = np.lexsort((-scores, turns.sessions))
    sessions = turns.sessions[order]
    is_first = np.ones(len(order), dtype=np.bool_)
    np.not_equal(sessions[1:], sessions[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    ranks = np.arange(len(order)) - starts[is_first.cumsum() - 1]
    is_best = ranks < best
    sums = np.add.reduceat(scores[order] * is_best, starts)
    by_session = np.empty(turns.given)
    by_session[sessions[starts]] = sums / np.add.reduceat(is_best, starts, dtype=np.int64)
    return by_session[turns.sessions]


def dated(query: str, turns: Taken, params: RetrievalParams) -> Numbers:
    """Return what the time of each memory gives where the query names dates."""
    dates = dates_of(query)
    worth = np.zeros(len(turns.times))
    if dates.months or dates.years:
        for at in np.flatnonzero(turns.speakers != NOWHERE).tolist():
            worth[at] = worth_of(float(turns.times[at]), dates, params)
    return worth


def worth_of(at: float, dates: Dates, params: RetrievalParams) -> float:
    """Return what a turn's time gives where a query names dates."""
    day = datetime.fromtimestamp(at, UTC)
    if dates.months:
        return params.date_weight * dates.nearness(day, params.day_half)
    return params.year_weight * (day.year in dates.years)


def lengthy(text: str) -> float:
    """Return how long a text is, as a z-score of the logarithm of its words."""
    return (math.log1p(len(text.split())) - LENGTH_MEAN) / LENGTH_SD
