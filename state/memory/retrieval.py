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
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

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


class Turns:
    """What a score needs of memories that are turns, or anything else: a row for each.

    In columns of numbers, so that many rows are looked at at once. A place is whose memory of which
    turn it is, a session whose of which conversation on which day; each has a number of its own,
    and so has whatever is no turn.

    Attributes:
        places: Of each row.
        before: The places of the turns before.
        after: And of those after; `NOWHERE` for none.
        sessions: Of each row.
        speakers: Places in `names`; `NOWHERE` for what is no turn.
        times: When it was said, in seconds since the epoch, UTC.
        questions: Whether it asks.
        lengths: z-scores of the logarithm of how many words it has; 0 for what is no turn.
        names: What the speakers are called.
    """

    def __init__(self) -> None:
        """Hold no rows yet."""
        self.places, self.before, self.after = array("q"), array("q"), array("q")
        self.sessions, self.speakers = array("q"), array("q")
        self.times, self.questions, self.lengths = array("d"), array("b"), array("d")
        self.names: list[str] = []
        self._speakers: dict[str, int] = {}
        self._numbers: dict[tuple[str, str, int | None, int | None], int] = {}
        self._given = 0

    def add(self, spoken: Spoken | None) -> None:
        """Add a row; None for a memory that is no turn."""
        place, before, after, session, speaker = self._new(), NOWHERE, NOWHERE, self._new(), NOWHERE
        at, asks, length = 0.0, False, 0.0
        if spoken is not None:
            if (number := spoken.number) is not None:
                before, place, after = (
                    self._number(spoken, turn, None) for turn in (number - 1, number, number + 1)
                )
            session = self._number(spoken, None, int(spoken.at // DAY_S))
            speaker = self._speaker(spoken.speaker)
            at, length = spoken.at, lengthy(spoken.text)
            asks = spoken.text.rstrip().endswith("?")
        self.places.append(place)
        self.before.append(before)
        self.after.append(after)
        self.sessions.append(session)
        self.speakers.append(speaker)
        self.times.append(at)
        self.questions.append(asks)
        self.lengths.append(length)

    def _number(self, spoken: Spoken, turn: int | None, day: int | None) -> int:
        """Return the number of a place or a session, a new one if it has none yet."""
        its = spoken.owner, spoken.conversation_id, turn, day
        number = self._numbers.get(its)
        if number is None:
            number = self._numbers[its] = self._new()
        return number

    def _speaker(self, name: str) -> int:
        """Return the number of a speaker, a new one if it has none yet."""
        number = self._speakers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number

    def _new(self) -> int:
        self._given += 1
        return self._given


class Pool(NamedTuple):
    """Memories that may be an answer, and what bears on them.

    Attributes:
        ids: Of the memories.
        dense: Cosines to the query, [-1, 1]; None where there is no vector.
        lexical: Scores of the words, 0 or more; 0 where none is in it.
        turns: What is known of each, and maybe of others.
        rows: Where each stands in `turns`.
    """

    ids: Sequence[str]
    dense: Sequence[float | None]
    lexical: Sequence[float]
    turns: Turns
    rows: Sequence[int]


class Scored(NamedTuple):
    """A memory and what it scored.

    Attributes:
        id: Which.
        dense: Cosine to the query; None where there is no vector.
        lexical: Score of the words.
        score: What it is ranked by.
        parts: What each part gave, the weights included.
    """

    id: str
    dense: float | None
    lexical: float
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


def standardise(values: Sequence[float | None]) -> list[float]:
    """Return z-scores; a missing value counts as the mean, 0.

    Source: z(x) = (x - mean) / (sd + 1e-6), over the values that are there.
    """
    there = [value for value in values if value is not None]
    if not there:
        return [0.0] * len(values)
    mean = math.fsum(there) / len(there)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in there) / len(there)) + EPSILON
    return [0.0 if value is None else (value - mean) / deviation for value in values]


def rank(
    query: str,
    pool: Pool,
    params: RetrievalParams,
    limit: int | None = None,
    among: Container[str] | None = None,
) -> list[Scored]:
    """Score a pool and sort it: best first, ties by id.

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
    if not pool.ids:
        return []
    a, b = params.dense_weight, params.lexical_weight
    meanings, words = standardise(pool.dense), standardise(pool.lexical)
    own = [a * meaning + b * word for meaning, word in zip(meanings, words, strict=True)]
    gains = gains_of(query, pool, own, params)
    parts = list(zip(*gains.values(), strict=True))
    total = [score + sum(its) for score, its in zip(own, parts, strict=True)]
    best = sorted(zip((-score for score in total), pool.ids, range(len(total)), strict=True))
    chosen = [at for _, id, at in best if among is None or id in among][:limit]
    scored = []
    for at in chosen:
        its = dict(zip(gains, parts[at], strict=True))
        if pool.turns.speakers[pool.rows[at]] == NOWHERE:
            its = {"session": its["session"]}
        scored.append(Scored(pool.ids[at], pool.dense[at], pool.lexical[at], total[at], its))
    return scored


def gains_of(
    query: str, pool: Pool, own: Sequence[float], params: RetrievalParams
) -> dict[str, Sequence[float]]:
    """Return what each part adds to each score, by part.

    Args:
        query: What is asked.
        pool: The memories.
        own: Score of each by itself.
        params: The weights.
    """
    turns = pool.turns
    places, before, after, sessions, speakers = (
        [column[row] for row in pool.rows]
        for column in (turns.places, turns.before, turns.after, turns.sessions, turns.speakers)
    )
    means = best_means(sessions, own, params.session_best)
    beside = best_of(places, own)
    there = {turns.names[speaker]: speaker for speaker in set(speakers) - {NOWHERE}}
    meant = there.get(named(query, there) or "")
    dates = dates_of(query)
    dated = [0.0] * len(own)
    if dates.months or dates.years:
        times = (turns.times[row] for row in pool.rows)
        dated = [
            0.0 if speaker == NOWHERE else worth_of(at, dates, params)
            for at, speaker in zip(times, speakers, strict=True)
        ]
    return {
        "session": [params.session_weight * means[session] for session in sessions],
        "question": [-params.question_penalty * turns.questions[row] for row in pool.rows],
        "length": [params.length_weight * turns.lengths[row] for row in pool.rows],
        "previous": [params.previous_weight * beside.get(place, 0.0) for place in before],
        "next": [params.next_weight * beside.get(place, 0.0) for place in after],
        "speaker": [params.speaker_weight * (speaker == meant) for speaker in speakers],
        "date": dated,
    }


def best_means(sessions: Sequence[int], scores: Sequence[float], best: int) -> dict[int, float]:
    """Return the mean of the best scores of each session."""
    found: dict[int, list[float]] = {}
    for session, score in zip(sessions, scores, strict=True):
        found.setdefault(session, []).append(score)
    return {
        session: math.fsum(sorted(its, reverse=True)[:best]) / min(best, len(its))
        for session, its in found.items()
    }


def best_of(places: Sequence[int], scores: Sequence[float]) -> dict[int, float]:
    """Return the best score at each place, where there may be several memories of a turn."""
    best: dict[int, float] = {}
    for place, score in zip(places, scores, strict=True):
        if score > best.get(place, -math.inf):
            best[place] = score
    return best


def worth_of(at: float, dates: Dates, params: RetrievalParams) -> float:
    """Return what a turn's time gives where a query names dates."""
    day = datetime.fromtimestamp(at, UTC)
    if dates.months:
        return params.date_weight * dates.nearness(day, params.day_half)
    return params.year_weight * (day.year in dates.years)


def lengthy(text: str) -> float:
    """Return how long a text is, as a z-score of the logarithm of its words."""
    return (math.log1p(len(text.split())) - LENGTH_MEAN) / LENGTH_SD
