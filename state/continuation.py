"""Whether a talk goes on, how long the next answer is, and why it ends."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from persona_mcp.state.continuation_params import ContinuationParams
from persona_mcp.state.interaction import Priority

__all__ = [
    "ContinuationParams",
    "ExitReason",
    "Party",
    "ResponseType",
    "Route",
    "Score",
    "Talk",
    "direct_word_cap",
    "drift_of",
    "estimated_tokens",
    "exit_reason",
    "human_partner",
    "max_tokens",
    "route",
    "score",
    "should_continue",
    "spent",
]

ResponseType = Literal["full_llm", "constrained", "template"]
ExitReason = Literal[
    "urgent", "tired", "bored", "budget", "time_limit", "natural_conclusion", "stagnation"
]

UNKNOWN_PREFERENCE = 50.0
HUMAN_CHARISMA = 10
SCORE_MAX = 100.0
PERCENT = 100.0
STATUS = (8.0, 6.0, 4.0, 2.0)
"""Points by rank gap 0, 1, 2, 3 or more."""
CHARISMA_MAX = 20
LEISURE: frozenset[Priority] = frozenset({"casual", "social"})


@dataclass(frozen=True)
class Party:
    """What the score needs of one of the two.

    Attributes:
        charisma: 1..20.
        rank_level: Step on the ladder, see `rank_level`.
        preference: For the topic of the talk, 0..100; 50 if unknown.
        fatigue: 0..100.
        energy: 0..200.
        time: Available time, 0..86400 s.
        mood: [-1, 1].
        priority: What it is about just now.
    """

    charisma: int
    rank_level: int
    preference: float = UNKNOWN_PREFERENCE
    fatigue: float = 0.0
    energy: float = 100.0
    time: float = 300.0
    mood: float = 0.0
    priority: Priority = "none"


@dataclass(frozen=True)
class Talk:
    """How far a talk has gone.

    Attributes:
        duration: Seconds of talk so far, >= 0.
        turns: Turns so far, >= 0.
        tokens_left: Of the budget.
        drift: From `drift_of`, >= 0.
        max_duration: Seconds.
        max_turns: Turns.
    """

    duration: float
    turns: int
    tokens_left: int
    drift: int = 0
    max_duration: float = 600.0
    max_turns: int = 100


@dataclass(frozen=True)
class Score:
    """A continue score.

    Attributes:
        total: Sum of the terms, limited to [0, 100].
        terms: time 0..30, topic 0..25, social 0..20, fatigue -15..0, history -10..15, resource
            0..10, emotion -5..5.
    """

    total: float
    terms: Mapping[str, float]

    @property
    def shown(self) -> int:
        """The total as an integer, halves to the even side."""
        return round(self.total)


@dataclass(frozen=True)
class Route:
    """How an answer is made.

    Attributes:
        response_type: full_llm, constrained (the prompt asks to prepare a close) or template.
        temperature: Of the model; None for a template.
        words: Word cap; None for a template.
    """

    response_type: ResponseType
    temperature: float | None
    words: int | None

    @property
    def model(self) -> bool:
        """Whether the model is called."""
        return self.response_type != "template"


def human_partner(rank: int) -> Party:
    """Stand in for a human: charisma 10, the speaker's own rank, preference 50."""
    return Party(charisma=HUMAN_CHARISMA, rank_level=rank)


def score(
    own: Party, partner: Party, talk: Talk, strength: float | None, params: ContinuationParams
) -> Score:
    """Score how much `own` wants to go on with `partner`, [0, 100].

    time max(0, 30 - duration / d), d = 2 urgent, 30 casual or social, else 10; topic 25 * pull,
    pull = (.7 * mean + .3 * min of the preferences) / 100, * .6 when drift > 2; social
    20 * (.8 * lower charisma + status) / 24, status 8, 6, 4, 2 by rank gap 0, 1, 2, 3+; fatigue
    -min(15, fatigue / 2); history 15 S if S >= 0 else 10 S; resource 10 * min(1, time / 60) *
    min(1, tokens / 100) * min(1, energy / 30); emotion 5 * mood. Source: the original Persona MCP
    server's terms, with enemies losing points and what is left counted instead of the budget.

    Args:
        own: Who would speak.
        partner: To whom.
        talk: How far it has gone.
        strength: Of own's relationship to the partner, (-1, 1); None if they never met.
        params: Weights.
    """
    terms = {
        "time": _time_term(own, talk, params),
        "topic": _topic_term(own, partner, talk, params),
        "social": _social_term(own, partner, params),
        "fatigue": -min(params.fatigue_points, own.fatigue / params.fatigue_per_point),
        "history": _history_term(strength or 0.0, params),
        "resource": _resource_term(own, talk, params),
        "emotion": params.emotion_points * own.mood,
    }
    return Score(min(SCORE_MAX, max(0.0, math.fsum(terms.values()))), terms)


def route(total: float, params: ContinuationParams) -> Route:
    """Choose how to answer by the score.

    From 80 full_llm, temperature .8, 100 words; from 60 full_llm, .6, 100; from 40 constrained, .5,
    50; below, a template: an exit line, and the talk ends.
    """
    if total >= params.full_from:
        return Route("full_llm", params.temperature_lively, params.words_full)
    if total >= params.brief_from:
        return Route("full_llm", params.temperature_full, params.words_full)
    if total >= params.close_below:
        return Route("constrained", params.temperature_brief, params.words_brief)
    return Route("template", None, None)


def direct_word_cap(total: float, params: ContinuationParams) -> int:
    """Cap an answer to a human, who is always answered: 100 words from 60, 50 from 40, else 30."""
    return route(total, params).words or params.words_closing


def estimated_tokens(words: int, params: ContinuationParams) -> int:
    """Estimate tokens where the provider does not count them: ceil(1.3 * words)."""
    return math.ceil(params.tokens_per_word * words)


def max_tokens(
    words: int, token_budget: int, tokens_left: int, answers: int, params: ContinuationParams
) -> int:
    """Limit an answer: min(token_budget, ceil(1.3 * words) + 16, tokens_left), >= 0.

    From a persona's 11th answer on the middle one falls by 20 with each answer, not below 40.

    Args:
        words: Word cap.
        token_budget: Of the call or conversation.
        tokens_left: Of that budget.
        answers: Answers that the persona has given before in this conversation.
        params: Rates.
    """
    cap = estimated_tokens(words, params) + params.tokens_spare
    further = max(0, answers + 1 - params.long_talk_answers)
    shrunk = max(min(cap, params.shrink_floor), cap - params.shrink_tokens * further)
    return max(0, min(token_budget, shrunk, tokens_left))


def should_continue(
    total: float, own: Party, partner: Party, talk: Talk, params: ContinuationParams
) -> bool:
    """Tell whether a talk between personas goes on.

    Score >= 40, more than 50 tokens left, below the limits of duration and turns, and both have
    time.
    """
    return (
        total >= params.close_below
        and talk.tokens_left > params.tokens_needed
        and not _out_of_time(own, partner, talk)
    )


def spent(talk: Talk, params: ContinuationParams) -> ExitReason | None:
    """Say which budget of a talk is used up, whatever its personas would like; None if none is."""
    if talk.tokens_left <= params.tokens_needed:
        return "budget"
    over = talk.duration >= talk.max_duration or talk.turns >= talk.max_turns
    return "time_limit" if over else None


def exit_reason(
    own: Party, partner: Party, talk: Talk, taken: Score, params: ContinuationParams
) -> ExitReason:
    """Say why a talk ends that does not go on; the first that fits.

    urgent: own priority; tired: energy < 30 or fatigue > 50; bored: topic term < 8 or own
    preference < 30; budget: at most 50 tokens left; time_limit: duration, turns or somebody's time
    used up; else natural_conclusion.
    """
    if own.priority == "urgent":
        return "urgent"
    if own.energy < params.tired_energy or own.fatigue > params.tired_fatigue:
        return "tired"
    if taken.terms["topic"] < params.bored_topic or own.preference < params.bored_preference:
        return "bored"
    if talk.tokens_left <= params.tokens_needed:
        return "budget"
    return "time_limit" if _out_of_time(own, partner, talk) else "natural_conclusion"


def drift_of(best_topics: Sequence[str], topic: str) -> int:
    """Count how often a talk has left its topic.

    Args:
        best_topics: (n,), the best-fitting topic of each turn, oldest first.
        topic: Topic of the conversation.

    Returns:
        Number of turns that are off the topic like the turn before them, >= 0.
    """
    off = [best.casefold() != topic.casefold() for best in best_topics]
    return sum(now and before for before, now in pairwise(off))


def _time_term(own: Party, talk: Talk, params: ContinuationParams) -> float:
    pace = params.time_working
    if own.priority == "urgent":
        pace = params.time_urgent
    elif own.priority in LEISURE:
        pace = params.time_leisure
    return max(0.0, params.time_points - talk.duration / pace)


def _topic_term(own: Party, partner: Party, talk: Talk, params: ContinuationParams) -> float:
    mean = (own.preference + partner.preference) / 2
    lower = min(own.preference, partner.preference)
    pull = params.topic_mean_share * mean + (1 - params.topic_mean_share) * lower
    if talk.drift > params.drift_turns:
        pull *= params.drift_factor
    return params.topic_points * pull / PERCENT


def _social_term(own: Party, partner: Party, params: ContinuationParams) -> float:
    gap = abs(own.rank_level - partner.rank_level)
    status = STATUS[min(gap, len(STATUS) - 1)]
    charm = params.charisma_factor * min(own.charisma, partner.charisma)
    most = params.charisma_factor * CHARISMA_MAX + STATUS[0]
    return params.social_points * (charm + status) / most


def _history_term(strength: float, params: ContinuationParams) -> float:
    return (params.history_gain if strength >= 0 else params.history_loss) * strength


def _resource_term(own: Party, talk: Talk, params: ContinuationParams) -> float:
    return (
        params.resource_points
        * min(1.0, own.time / params.plenty_seconds)
        * min(1.0, max(0, talk.tokens_left) / params.plenty_tokens)
        * min(1.0, own.energy / params.plenty_energy)
    )


def _out_of_time(own: Party, partner: Party, talk: Talk) -> bool:
    return (
        talk.duration >= talk.max_duration
        or talk.turns >= talk.max_turns
        or min(own.time, partner.time) <= 0
    )


def reason_in_words(reason: str) -> str:
    """Write why a talk ended for people: `time_limit` is also that all turns were made."""
    return "time or turns used up" if reason == "time_limit" else reason.replace("_", " ")
