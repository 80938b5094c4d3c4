"""The waves of a run: how many dialogues each has, and each dialogue by its number."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import accumulate
from typing import overload

from persona_mcp.state.batch.checks import merged, paired
from persona_mcp.state.batch.sound import said_in
from persona_mcp.state.batch.values import Job, Place
from persona_mcp.state.dialogue_spec import DialogueSpec, TalkSpec, WaveSpec
from persona_mcp.state.drawing import draw
from persona_mcp.state.ids import derived_id
from persona_mcp.state.moments import HOUR_S

SEEDS = 2**31


@dataclass(frozen=True)
class Amount:
    """How much is held, at most.

    Attributes:
        dialogues: Dialogues.
        turns: Turns, if each dialogue goes to its end.
        tokens: Tokens of all that is said, if each dialogue uses its budget up.
        waves: Waves, one after the other.
    """

    dialogues: int = 0
    turns: int = 0
    tokens: int = 0
    waves: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        """Return both together."""
        return Amount(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> "Amount":
        """Return so many times this."""
        return Amount(*(one * times for one in astuple(self)))


class Waves:
    """The waves of one arm, those that are held several times counted as several.

    Attributes:
        amount: What a run through all of them comes to.
    """

    def __init__(self, spec: DialogueSpec) -> None:
        """Take a specification without a grid."""
        self.spec = spec
        amounts = [amount_of(spec, wave) for wave in spec.waves]
        whole = [amount * wave.times for amount, wave in zip(amounts, spec.waves, strict=True)]
        self._each = [amount.dialogues for amount in amounts]
        self._waves = list(accumulate((wave.times for wave in spec.waves), initial=0))
        self._dialogues = list(accumulate((one.dialogues for one in whole), initial=0))
        self.amount = sum(whole, start=Amount())

    def of(self, wave: int) -> WaveSpec:
        """Return what a wave was asked for as."""
        return self.spec.waves[self._entry(wave)]

    def dialogues_in(self, wave: int) -> int:
        """Return how many dialogues a wave has; 0 behind the last one."""
        return self._each[self._entry(wave)] if wave < self.amount.waves else 0

    def dialogues_before(self, wave: int) -> int:
        """Return how many dialogues of a run come before a wave."""
        entry = self._entry(wave)
        return self._dialogues[entry] + (wave - self._waves[entry]) * self._each[entry]

    def at(self, dialogue: int) -> tuple[int, int]:
        """Return the wave of a run's dialogue, and its number in it."""
        entry = bisect_right(self._dialogues, dialogue) - 1
        times, number = divmod(dialogue - self._dialogues[entry], self._each[entry])
        return self._waves[entry] + times, number

    def gap_s(self, wave: int) -> float:
        """Return the simulated time before a wave, in seconds; the first one has none."""
        return self.of(wave).gap_hours * HOUR_S if 0 < wave < self.amount.waves else 0.0

    def _entry(self, wave: int) -> int:
        return bisect_right(self._waves, wave) - 1


def amount_of(spec: DialogueSpec, wave: WaveSpec) -> Amount:
    """Return what a wave comes to that is held once."""
    base, dialogues = spec.dialogue, dialogues_of(spec, wave)
    if wave.pairs is None and wave.dialogues:
        turns = sum(said_in(base, own, "max_turns") for own in wave.dialogues)
        tokens = sum(said_in(base, own, "token_budget") for own in wave.dialogues)
        return Amount(dialogues, turns, tokens, waves=1)
    return Amount(dialogues, dialogues * base.max_turns, dialogues * base.token_budget, waves=1)


def dialogues_of(spec: DialogueSpec, wave: WaveSpec) -> int:
    """Return how many dialogues a wave has that is held once."""
    people = len(paired(spec))
    match wave.pairs:
        case "all":
            return people * (people - 1) // 2
        case "drawn":
            return people // 2
    return len(wave.dialogues) or 1


@dataclass(frozen=True)
class Jobs(Sequence[Job]):
    """The dialogues of one wave of one run, each made when it is asked for.

    Attributes:
        waves: Of its arm.
        first: Where the first of them stands in the batch.
        batch_seed: Of the batch.
        run_seed: Of the run, the same in each arm.
        starts_at: When the wave begins in simulated time, in seconds since the epoch, UTC.
    """

    waves: Waves
    first: Place
    batch_seed: int
    run_seed: int
    starts_at: float

    def __len__(self) -> int:
        """Count them."""
        return self.waves.dialogues_in(self.first.wave)

    @overload
    def __getitem__(self, number: int) -> Job: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Job]: ...
    def __getitem__(self, number: int | slice) -> Job | Sequence[Job]:
        """Make a dialogue."""
        if isinstance(number, slice):
            return [self._job(one) for one in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self._job(number % len(self))

    def _job(self, number: int) -> Job:
        first = self.first
        talk = self._talk(number)
        key = (self.run_seed, first.repeat, first.wave, number)
        seed = int(SEEDS * draw(self.run_seed, "dialogue", str(first.wave), number))
        lot = draw(seed, "topic", "", 0)
        return Job(
            place=Place(first.index + number, first.arm, first.repeat, first.wave, number),
            id=derived_id("batch", self.batch_seed, *key),
            seed=seed,
            talk=talk,
            topic=talk.topics[int(lot * len(talk.topics))],
            starts_at=self.starts_at,
            temperature=self.waves.spec.model.temperature,
        )

    def _talk(self, number: int) -> TalkSpec:
        spec = self.waves.spec
        wave = self.waves.of(self.first.wave)
        if wave.pairs is not None:
            pair = list(self._pair(number, all_pairs=wave.pairs == "all"))
            return spec.dialogue.model_copy(update={"participants": pair})
        talk = spec.dialogue
        if wave.dialogues:
            talk = merged(talk, wave.dialogues[number])
        if talk.participants is not None:
            return talk
        everybody = [id for id in spec.personas if id not in talk.witnesses]
        return talk.model_copy(update={"participants": everybody})

    def _pair(self, number: int, all_pairs: bool) -> tuple[str, str]:
        if not all_pairs:
            return self._drawn[2 * number], self._drawn[2 * number + 1]
        people = paired(self.waves.spec)
        count = len(people)

        def before(row: int) -> int:
            return row * count - row * (row + 1) // 2

        row = bisect_right(range(count), number, key=before) - 1
        return people[row], people[row + 1 + number - before(row)]

    @cached_property
    def _drawn(self) -> list[str]:
        """The people in the order of their lots: the first two are a pair, and so on."""
        people, wave = paired(self.waves.spec), self.first.wave
        return sorted(people, key=lambda id: (draw(self.run_seed, "pair", id, wave), id))
