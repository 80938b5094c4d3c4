"""A batch as it will be held: its arms, runs, waves and dialogues, each made when it is asked for.

Nothing here is as large as the batch: the plan of a million dialogues keeps the specification and
a number an arm.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain, compress

from persona_mcp.state.batch.arms import arm_faults, bears_on_amount
from persona_mcp.state.batch.checks import cast_faults, run_faults, wave_faults
from persona_mcp.state.batch.faults import first_of, refused
from persona_mcp.state.batch.grid import Arm as Arm
from persona_mcp.state.batch.grid import Arms, grid_faults, only
from persona_mcp.state.batch.size import check_size, repeats_of
from persona_mcp.state.batch.time import time_faults
from persona_mcp.state.batch.values import Job, Place
from persona_mcp.state.batch.waves import SEEDS, Amount, Jobs, Waves
from persona_mcp.state.dialogue_spec import DialogueSpec
from persona_mcp.state.drawing import draw

KEPT_ARMS = 64


def plan_batch(spec: DialogueSpec, largest: int | None = None) -> "BatchPlan":
    """Plan what a specification asks for.

    Args:
        spec: The specification.
        largest: Dialogues that are allowed, if fewer than in a file.

    Raises:
        InvalidParams: It cannot be held; `errors` has each fault with its path.
        LimitExceeded: It has more dialogues than `largest`.
    """
    faults = first_of([*run_faults(spec), *grid_faults(spec)])
    if not faults:
        check_size(spec, largest)  # before each dialogue is looked at
    if not spec.variations:
        found = chain(faults, time_faults(spec), cast_faults(spec), wave_faults(spec))
    elif faults:
        found = chain(faults, cast_faults(spec))
    else:
        found = chain(time_faults(spec), arm_faults(spec))
    faults = first_of(found)
    if faults:
        raise refused(faults)
    return BatchPlan(spec)


class BatchPlan:
    """A batch that was checked.

    Attributes:
        spec: The specification.
        arms: Combinations of its grid, one at least; made when they are asked for.
    """

    def __init__(self, spec: DialogueSpec) -> None:
        """Plan a specification that `plan_batch` found nothing wrong with."""
        self.spec = spec
        self.arms = Arms(spec)
        self._differ = Arms(only(spec, bears_on_amount))
        self._bears = [bears_on_amount(path) for path in spec.variations]
        self._made = lru_cache(KEPT_ARMS)(self._make)

    @property
    def repeats(self) -> int:
        """Return how many runs an arm has."""
        return repeats_of(self.spec)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Return every run as (arm, repeat), in order."""
        return ((arm, repeat) for arm in range(len(self.arms)) for repeat in range(self.repeats))

    def waves_of(self, arm: int) -> Waves:
        """Return the waves of an arm."""
        return self._made(arm)

    def amount(self, arm: int) -> Amount:
        """Return what one run of an arm comes to."""
        if self._different == 1:
            return self._amounts[0]
        chosen = self.arms.chosen(arm)
        return self._amounts[self._differ.number(list(compress(chosen, self._bears)))]

    @cached_property
    def _amounts(self) -> list[Amount]:
        """What one run comes to, once for each combination of what bears on that."""
        return [Waves(arm.spec).amount for arm in self._differ]

    def _make(self, arm: int) -> Waves:
        return Waves(self.arms[arm].spec)

    @cached_property
    def _sums(self) -> tuple[int, Amount, list[int]]:
        """The most waves, what all runs come to, and the dialogues before each arm that differs."""
        most, whole, before = 0, Amount(), [0]
        for amount in map(self.amount, range(self._different)):
            most, whole = max(most, amount.waves), whole + amount * self.repeats
            before.append(whole.dialogues)
        same = len(self.arms) if self._different == 1 else 1
        return most, whole * same, before

    @property
    def _different(self) -> int:
        return len(self.arms) if len(self._differ) > 1 else 1

    @property
    def waves(self) -> int:
        """Return how many waves a run has, of the arm that has the most."""
        return self._sums[0]

    @property
    def total(self) -> int:
        """Return how many dialogues there are."""
        return self._sums[1].dialogues

    @property
    def turns_max(self) -> int:
        """Return how many turns there are, if each dialogue goes to its end."""
        return self._sums[1].turns

    @property
    def calls_max(self) -> int:
        """Return how many replies are made: one a turn, where none is refused."""
        return self._sums[1].turns

    @property
    def tokens_max(self) -> int:
        """Return how many tokens are said, if each dialogue uses its budget up."""
        return self._sums[1].tokens

    def run_seed(self, repeat: int) -> int:
        """Return the seed of a run, the same in each arm; the first one's is the batch's."""
        if self.spec.seeds is not None:
            return self.spec.seeds[repeat]
        if repeat == 0:
            return self.spec.seed
        return int(SEEDS * draw(self.spec.seed, "run", "", repeat))

    def gap_s(self, arm: int, wave: int) -> float:
        """Return the simulated time before a wave, in seconds; the first one has none."""
        return self.waves_of(arm).gap_s(wave)

    def jobs(self, arm: int, repeat: int, wave: int, starts_at: float) -> Sequence[Job]:
        """Return the dialogues of a wave, each made when it is asked for.

        Args:
            arm: Combination of the grid.
            repeat: Run of the arm.
            wave: Of the run, below `waves`; an arm that has fewer has none in it.
            starts_at: When it begins in simulated time, in seconds since the epoch, UTC.
        """
        waves = self.waves_of(arm)
        if not wave < waves.amount.waves:
            return ()
        first = Place(self.first_index(arm, repeat, wave), arm, repeat, wave, 0)
        return Jobs(waves, first, self.spec.seed, self.run_seed(repeat), starts_at)

    def first_index(self, arm: int, repeat: int, wave: int) -> int:
        """Return the index of a wave's first dialogue in the whole batch."""
        waves = self.waves_of(arm)
        return self._first(arm) + repeat * waves.amount.dialogues + waves.dialogues_before(wave)

    def place(self, index: int) -> Place:
        """Return where a dialogue stands.

        Raises:
            IndexError: There is none of this index.
        """
        if not 0 <= index < self.total:
            raise IndexError(index)
        if self._different == 1:
            arm = index // (self.total // len(self.arms))
        else:
            arm = bisect_right(self._sums[2], index) - 1
        waves = self.waves_of(arm)
        repeat, dialogue = divmod(index - self._first(arm), waves.amount.dialogues)
        return Place(index, arm, repeat, *waves.at(dialogue))

    def _first(self, arm: int) -> int:
        """Return the index of an arm's first dialogue."""
        if self._different == 1:
            return arm * (self.total // len(self.arms))
        return self._sums[2][arm]
