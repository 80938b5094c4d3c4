"""The controls of a report, gathered dialogue by dialogue: drift, repetition, likeness."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from persona_mcp.state.batch.controls import (
    begins_neutral,
    drifts,
    neutral_drifts,
    repetition,
    warmths,
)
from persona_mcp.state.batch.reading import Moved, SaidTurn
from persona_mcp.state.batch.statistics import (
    Interval,
    Moments,
    share_interval,
    t_interval,
    wilson,
)
from persona_mcp.state.batch.values import Outcome
from persona_mcp.state.speaker_classifier import Sample, Told, tell_apart

SAMPLED = 400
"""Dialogues whose words are compared; of more, so many evenly spaced ones."""
TURNS_EACH = 40
"""First turns of each that the classifier is given."""
SPOKEN = ("said", "whispered")


@dataclass(frozen=True)
class Controls:
    """What a batch is watched for.

    Attributes:
        drift: What a turn does to affinity in dialogues that begin neutral, a mean.
        all_drift: The same in all dialogues.
        warmth: How warm turns are taken to be in these, a mean.
        neutral: What turns that are neither kind nor hostile do to affinity, a mean.
        repeats: Share of turns that mostly repeat earlier ones.
        distinct: Share of bigrams of a dialogue that are different, a mean.
        accuracy: Share of turns whose speaker a classifier named.
        chance: That it would be right by naming who speaks most.
        told: What that is made of.
        sampled: Dialogues whose words were compared.
        dialogues: All of them.
        neutral_dialogues: Those that begin neutral.
    """

    drift: Interval
    all_drift: Interval
    warmth: Interval
    neutral: Interval
    repeats: Interval
    distinct: Interval
    accuracy: Interval
    chance: float | None
    told: Told
    sampled: int
    dialogues: int
    neutral_dialogues: int


class Spread:
    """A mean over dialogues of what their turns say; over turns, where there is one dialogue."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._means, self._first = Moments(), Moments()

    def add(self, values: Sequence[float]) -> None:
        """Take in what the turns of a dialogue say."""
        if values:
            of = Moments(values)
            self._first = of if self._means.count == 0 else self._first
            self._means.add(of.mean)

    @property
    def interval(self) -> Interval:
        """Return the mean and Student's interval."""
        return t_interval(self._first if self._means.count == 1 else self._means)


def within(found: Interval, least: float, most: float) -> Interval:
    """Cut an interval off where no value can be."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(least, found.low), high=min(most, found.high))


def evenly(total: int, most: int) -> frozenset[int]:
    """Choose indices below `total`, evenly spaced, at most so many; all of them if they are few."""
    if total <= most:
        return frozenset(range(total))
    return frozenset(number * total // most for number in range(most))


class ControlTally:
    """Gathers the controls."""

    def __init__(self, total: int, seed: int) -> None:
        """Begin with nothing.

        Args:
            total: Dialogues that there will be.
            seed: Of what is drawn for intervals.
        """
        self._chosen, self._seed = evenly(total, SAMPLED), seed
        self._drift, self._all_drift = Spread(), Spread()
        self._warmth, self._neutral = Spread(), Spread()
        self._repeats: list[tuple[int, int]] = []
        self._distinct = Spread()
        self._samples: list[Sample] = []
        self._dialogues = self._neutral_dialogues = 0

    def add(self, outcome: Outcome, turns: Sequence[SaidTurn], moves: Sequence[Moved]) -> None:
        """Take one dialogue in."""
        self._dialogues += 1
        self._all_drift.add(drifts(moves))
        self._neutral.add(neutral_drifts(moves))
        if begins_neutral(outcome.before, turns):
            self._neutral_dialogues += 1
            self._drift.add(drifts(moves))
            self._warmth.add(warmths(moves))
        if outcome.job.place.index in self._chosen:
            self._compare(outcome.job.place.index, [t for t in turns if t.kind in SPOKEN])

    def _compare(self, index: int, turns: Sequence[SaidTurn]) -> None:
        found = repetition(turn.text for turn in turns)
        self._repeats.append((found.repeats, found.turns))
        if found.bigrams:
            self._distinct.add([found.distinct / found.bigrams])
        self._samples += [Sample(index, t.speaker, t.text) for t in turns[:TURNS_EACH]]

    def result(self) -> Controls:
        """Return what was gathered."""
        told = tell_apart(self._samples)
        return Controls(
            drift=self._drift.interval,
            all_drift=self._all_drift.interval,
            warmth=within(self._warmth.interval, -1.0, 1.0),
            neutral=self._neutral.interval,
            repeats=share_interval(self._repeats, self._seed),
            distinct=within(self._distinct.interval, 0.0, 1.0),
            accuracy=wilson(told.right, told.turns),
            chance=told.chance / told.turns if told.turns else None,
            told=told,
            sampled=len(self._repeats),
            dialogues=self._dialogues,
            neutral_dialogues=self._neutral_dialogues,
        )
