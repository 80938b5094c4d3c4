"""What a report shows, gathered in one pass: sums of all, and a sample that is chosen by rule."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

from persona_mcp.server.report.arms import ARMS_SHOWN, ArmTally, Counts
from persona_mcp.server.report.controls import Controls, ControlTally, evenly
from persona_mcp.state.batch.plan import BatchPlan
from persona_mcp.state.batch.reading import (
    DIMENSIONS,
    Ends,
    Moved,
    SaidTurn,
    beginnings,
    moved,
    participants_of,
)
from persona_mcp.state.batch.statistics import Moments
from persona_mcp.state.batch.values import Cast, Outcome
from persona_mcp.state.relationship import RelationshipParams

TALKS = 20
"""Dialogues that are shown word by word; of more, so many evenly spaced ones."""
FAILED = 5
"""And the first of the failed ones."""
ARMS_DRAWN = 4
"""Arms whose relationships are drawn: the first ones."""
PEOPLE_DRAWN = 24
"""Personas that are drawn: the first ones of the cast."""
TURNS_DRAWN = 240
"""Turns of a run whose curve is drawn: the first ones."""
Views = Mapping[Ends, Mapping[str, float]]


@dataclass(frozen=True)
class ShownTalk:
    """A dialogue that is shown word by word."""

    outcome: Outcome
    turns: Sequence[SaidTurn]
    moves: Sequence[Moved]


@dataclass
class Drawn:
    """The relationships of an arm, for pictures.

    Attributes:
        arm: Which.
        runs: Runs that the means are over.
        before: How they saw each other at the beginning, means over runs, by dimension.
        after: At the end.
        course: Dialogues of the first run, with what each turn did, as far as they are drawn.
        cut: The first run has more turns than are drawn.
    """

    arm: int
    runs: int = 0
    before: dict[Ends, dict[str, Moments]] = field(default_factory=dict)
    after: dict[Ends, dict[str, Moments]] = field(default_factory=dict)
    course: list[ShownTalk] = field(default_factory=list)
    cut: bool = False


@dataclass(frozen=True)
class Findings:
    """All that a report shows.

    Attributes:
        counts: Of the whole batch.
        arms: The first ARMS_SHOWN of them.
        controls: What the batch is watched for.
        drawn: The first ARMS_DRAWN arms.
        talks: The sample, in order.
    """

    counts: Counts
    arms: Sequence[ArmTally]
    controls: Controls
    drawn: Sequence[Drawn]
    talks: Sequence[ShownTalk]


class Gatherer:
    """Takes in one dialogue after the other, and holds what the report shows of them."""

    def __init__(
        self, plan: BatchPlan, casts: Callable[[int], Cast], laws: RelationshipParams
    ) -> None:
        """Begin with nothing."""
        self._casts, self._laws = casts, laws
        self._counts = Counts()
        first = ArmTally(0, by_run=plan.repeats > 1)
        shown = min(ARMS_SHOWN, len(plan.arms))
        self._arms = [first, *(ArmTally(n, first.by_run, first) for n in range(1, shown))]
        self._controls = ControlTally(plan.total, plan.spec.seed)
        self._drawn = [Drawn(number) for number in range(min(ARMS_DRAWN, len(plan.arms)))]
        self._chosen = evenly(plan.total, TALKS)
        self._failed = 0
        self._talks: list[ShownTalk] = []
        self._run: tuple[int, int] | None = None
        self._first: dict[Ends, Mapping[str, float] | None] = {}
        self._last: dict[Ends, Mapping[str, float]] = {}

    def add(self, outcome: Outcome, turns: Sequence[SaidTurn]) -> None:
        """Take one dialogue in; they come in order."""
        moves = moved(outcome, self._laws)
        place = outcome.job.place
        self._counts.add(outcome, turns)
        self._controls.add(outcome, turns, moves)
        if place.arm < len(self._arms):
            self._arms[place.arm].add(outcome, turns, beginnings(outcome, self._laws))
        if place.run != self._run:
            self._end_run()
            self._run = place.run
        if place.arm < len(self._drawn):
            self._draw(outcome, turns, moves)
        failed = outcome.status == "failed" and self._failed < FAILED
        self._failed += failed
        if failed or place.index in self._chosen:
            self._talks.append(ShownTalk(outcome, turns, moves))

    def _draw(self, outcome: Outcome, turns: Sequence[SaidTurn], moves: Sequence[Moved]) -> None:
        drawn = self._drawn[outcome.job.place.arm]
        people = people_of(self._casts(drawn.arm))
        here = people.intersection(there(outcome))
        for ends in permutations(sorted(here), 2):
            self._first.setdefault(ends, outcome.before.get(ends))
        self._last.update({e: shown for e, shown in outcome.after.items() if people.issuperset(e)})
        if outcome.job.place.repeat == 0:
            said = sum(len(talk.turns) for talk in drawn.course)
            drawn.cut |= bool(drawn.course) and said + len(turns) > TURNS_DRAWN
            if not drawn.cut:
                drawn.course.append(ShownTalk(outcome, turns, moves))

    def _end_run(self) -> None:
        if self._run is None or self._run[0] >= len(self._drawn):
            return
        drawn = self._drawn[self._run[0]]
        drawn.runs += 1
        for sums, views in ((drawn.before, self._first), (drawn.after, self._last)):
            for ends, shown in views.items():
                if shown is None:  # they had not met
                    continue
                means = sums.setdefault(ends, {name: Moments() for name in DIMENSIONS})
                for name in DIMENSIONS:
                    means[name].add(shown[name])
        self._first.clear()
        self._last.clear()

    def result(self) -> Findings:
        """Return what was gathered."""
        self._end_run()
        self._run = None
        for arm in self._arms:
            arm.finish()
        controls = self._controls.result()
        return Findings(self._counts, self._arms, controls, self._drawn, self._talks)


def people_of(cast: Cast) -> frozenset[str]:
    """Return who is drawn of a cast."""
    return frozenset(member.id for member in cast.members[:PEOPLE_DRAWN])


def there(outcome: Outcome) -> tuple[str, ...]:
    """Return who is there at some time of a dialogue: who talks, then who overhears it."""
    job = outcome.job
    return tuple(dict.fromkeys((*participants_of(job), *job.talk.witnesses)))
