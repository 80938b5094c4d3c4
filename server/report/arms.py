"""The arms of a batch side by side: sums, means and how much they differ from the first one."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from persona_mcp.state.batch.reading import Ends, SaidTurn, participants_of
from persona_mcp.state.batch.statistics import Interval, Moments, t_interval, wilson
from persona_mcp.state.batch.values import Outcome

ARMS_SHOWN = 24
"""Arms that are counted one by one."""
UNITS_PAIRED = 5000
"""Units of the first arm that others are compared with, the first ones."""
Shown = Mapping[Ends, Mapping[str, float]]
Key = tuple[int, int, int]


def change(outcome: Outcome, starts: Shown, dimension: str) -> float | None:
    """Return how much a dimension changed in a dialogue, a mean over who sees whom in it.

    Args:
        outcome: Of the dialogue.
        starts: How they saw each other at the beginning, or at first sight.
        dimension: Which.
    """
    there = {*participants_of(outcome.job), *outcome.job.talk.witnesses}
    changes = [
        after[dimension] - starts[ends][dimension]
        for ends, after in outcome.after.items()
        if there.issuperset(ends) and ends in starts
    ]
    return sum(changes) / len(changes) if changes else None


def spoken(turns: Sequence[SaidTurn]) -> int:
    """Count the turns that personas said."""
    return sum(turn.kind != "narrated" for turn in turns)


Measure = Callable[[Outcome, Sequence[SaidTurn], Shown], float | None]
MEASURES: Mapping[str, Measure] = {
    "turns a dialogue": lambda _, turns, __: spoken(turns),
    "tokens a dialogue": lambda outcome, turns, _: sum(turn.tokens for turn in turns),
    "simulated minutes": lambda outcome, *_: (outcome.ended_at - outcome.job.starts_at) / 60,
    "change of affinity": lambda outcome, _, starts: change(outcome, starts, "affinity"),
    "change of trust": lambda outcome, _, starts: change(outcome, starts, "trust"),
    "change of strength": lambda outcome, _, starts: change(outcome, starts, "strength"),
}
"""What is compared: of each dialogue that is done."""
SIGNED = frozenset({"change of affinity", "change of trust", "change of strength"})


@dataclass
class Counts:
    """What some dialogues come to.

    Attributes:
        done: Dialogues that came to an end.
        failed: Those that did not.
        turns: That personas said, in all of them.
        tokens: Of these.
        estimated: Some of the tokens were estimated.
        calls: Of the model.
        seconds: Of simulated time.
        exits: Dialogues by why they ended.
        errors: Failed dialogues by code.
        kinds: Turns by kind.
    """

    done: int = 0
    failed: int = 0
    turns: int = 0
    tokens: int = 0
    estimated: bool = False
    calls: int = 0
    seconds: float = 0.0
    exits: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome, turns: Sequence[SaidTurn]) -> None:
        """Count one more."""
        self.turns += spoken(turns)
        self.tokens += sum(turn.tokens for turn in turns)
        self.estimated |= any(turn.estimated for turn in turns)
        self.calls += outcome.calls
        self.seconds += outcome.ended_at - outcome.job.starts_at
        self.kinds.update(turn.kind for turn in turns)
        if outcome.status == "done":
            self.done += 1
            self.exits[outcome.exit_reason] += 1
        else:
            self.failed += 1
            self.errors[outcome.failed_with or "unknown"] += 1

    @property
    def share_done(self) -> Interval:
        """Return the share of dialogues that came to an end."""
        return wilson(self.done, self.done + self.failed)


class ArmTally:
    """What one arm comes to.

    A unit is a run where an arm has several, since dialogues of one run bear on each other, else a
    dialogue.
    """

    def __init__(self, number: int, by_run: bool, first: "ArmTally | None" = None) -> None:
        """Begin with nothing.

        Args:
            number: Of the arm.
            by_run: A unit is a run.
            first: The arm that it is compared with; None for that one itself.
        """
        self.number, self.by_run = number, by_run
        self.counts = Counts()
        self._first = first
        self._key: Key | None = None
        self._unit = {name: Moments() for name in MEASURES}
        self._means = {name: Moments() for name in MEASURES}
        self._differences = {name: Moments() for name in MEASURES}
        self._kept: dict[Key, dict[str, float]] = {}

    def add(self, outcome: Outcome, turns: Sequence[SaidTurn], starts: Shown) -> None:
        """Count one more dialogue; those of a run come one after the other.

        Args:
            outcome: Of the dialogue.
            turns: Of it.
            starts: How they saw each other at its beginning, or at first sight.
        """
        self.counts.add(outcome, turns)
        if outcome.status != "done":
            return
        place = outcome.job.place
        key = (place.repeat, 0, 0) if self.by_run else (place.repeat, place.wave, place.number)
        if key != self._key:
            self.finish()
            self._key = key
        for name, measure in MEASURES.items():
            value = measure(outcome, turns, starts)
            if value is not None:
                self._unit[name].add(value)

    def finish(self) -> None:
        """Have the last unit count."""
        if self._key is None:
            return
        means = {name: unit.mean for name, unit in self._unit.items() if unit.count}
        if self._first is None and len(self._kept) < UNITS_PAIRED:
            self._kept[self._key] = means
        other = self._first._kept.get(self._key, {}) if self._first else {}
        for name, mean in means.items():
            self._means[name].add(mean)
            if name in other:
                self._differences[name].add(mean - other[name])
        self._unit = {name: Moments() for name in MEASURES}
        self._key = None

    def mean(self, measure: str) -> Interval:
        """Return a measure's mean over the units, and its interval."""
        return t_interval(self._means[measure])

    def difference(self, measure: str) -> Interval:
        """Return by how much a measure is larger than in the first arm, unit by unit.

        The seeds of a unit are the same in each arm, so that what they bring cancels out.
        """
        return t_interval(self._differences[measure])
