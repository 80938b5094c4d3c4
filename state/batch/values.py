"""One dialogue of a batch as values: who is cast, what it is asked to be, what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from persona_mcp.state.dialogue_spec import TalkSpec, Tie
from persona_mcp.state.persona import PersonaSpec
from persona_mcp.state.snapshots.rows import Rows

OutcomeStatus = Literal["done", "failed"]


@dataclass(frozen=True)
class CastMember:
    """A persona of a batch.

    Attributes:
        id: In the batch.
        spec: Who it is.
        memories: What it alone knows at the beginning.
        card: Text of the card that it is from, None if it is from none.
    """

    id: str
    spec: PersonaSpec
    memories: tuple[str, ...] = ()
    card: str | None = None


@dataclass(frozen=True)
class Cast:
    """All personas of an arm, read once: nothing outside of the batch is read after that.

    Attributes:
        members: In the file's order.
        ties: How they see each other at the beginning.
        kept: What those who come from a data folder bring with them (relationships, emotions,
            memories), by table; their personas are members like the others.
    """

    members: tuple[CastMember, ...]
    ties: tuple[Tie, ...]
    kept: Rows


@dataclass(frozen=True)
class Place:
    """Where a dialogue stands in its batch; each counts from 0.

    Attributes:
        index: In the whole batch: by arm, repeat, wave and number, in this order.
        arm: Combination of the grid.
        repeat: Run of the arm.
        wave: Of the run; a wave that is held several times counts as several.
        number: In its wave.
    """

    index: int
    arm: int
    repeat: int
    wave: int
    number: int

    @property
    def run(self) -> tuple[int, int]:
        """Return whose world it belongs to: arm and repeat."""
        return self.arm, self.repeat


@dataclass(frozen=True)
class Job:
    """One dialogue that is to be held.

    Attributes:
        place: In its batch.
        id: Of its conversation, derived from the batch's seed and its place, so that it is the same
            whenever and wherever it is held.
        seed: Of all that is drawn in it, [0, 2^31); the same in each arm.
        talk: What it is, with everything filled in (participants too).
        topic: Drawn of its topics.
        starts_at: Simulated time, in seconds since the epoch, UTC.
        temperature: Of every reply; None for by the continue score.
    """

    place: Place
    id: str
    seed: int
    talk: TalkSpec
    topic: str
    starts_at: float
    temperature: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a dialogue; everything but `measured` is the same in a replay.

    Attributes:
        job: Of what.
        status: done, or failed.
        exit_reason: Why it ended; empty for one that failed.
        error: What it failed with, as a problem (code, message, data); None if it is done.
        rows: What it added to its small world, by table, as `snapshots.rows` has them:
            conversation, exchanges, turns, witnesses, events, impulses, energy, memories, vectors.
            A failed one has what was said before.
        before: How each of its personas saw each other at its beginning: (who, whom) to the shown
            dimensions (affinity, trust, respect, intimacy, strength, familiarity).
        after: The same at its end.
        ended_at: Simulated time, in seconds since the epoch, UTC.
        calls: Calls of the model.
        measured: Seconds and tokens as they were measured: wall_s, model_s, cpu_s, tokens.
    """

    job: Job
    status: OutcomeStatus
    exit_reason: str
    error: Mapping[str, Any] | None
    rows: Rows
    before: Mapping[tuple[str, str], Mapping[str, float]]
    after: Mapping[tuple[str, str], Mapping[str, float]]
    ended_at: float
    calls: int
    measured: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed_with(self) -> str:
        """What kind of error ended it, in words as `llm_error`; empty for one that is done."""
        error = self.error or {}
        return str((error.get("data") or {}).get("code") or error.get("code", ""))


@dataclass(frozen=True)
class RecordedCall:
    """One call of the model, as it is recorded and played again.

    Attributes:
        index: Of the dialogue.
        number: 0, 1, ... in the dialogue.
        purpose: reply, summary or appraisal; info where no model was there to be asked; embedding
            where it was the embedder that was asked, and failed.
        asked: SHA-256 of the canonical messages and sampling, or texts; empty for info.
        model: Who answered, `provider:name`; empty for info and embedding.
        text: What it said; before an error, or before nobody listened any more: what it had said.
        output_tokens: As the provider counts; None if it does not.
        finish_reason: stop or length; None after an error, and where nobody listened to the end.
        error: Of a call that failed, as a problem (code, message, data); None else.
        context_tokens: Of the model: prompt and reply together.
        small: The model needs the short prompt.
    """

    index: int
    number: int
    purpose: str
    asked: str
    model: str
    text: str
    output_tokens: int | None
    finish_reason: Literal["stop", "length"] | None
    error: Mapping[str, Any] | None = None
    context_tokens: int = 0
    small: bool = False


@dataclass(frozen=True)
class Work:
    """A dialogue for a worker.

    Attributes:
        job: Which.
        frozen: The world of its run as it stood when its wave began: an SQLite database as bytes.
        played: Calls of it that are recorded already, in order; they are not made again.
    """

    job: Job
    frozen: bytes
    played: tuple[RecordedCall, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A dialogue that was held.

    Attributes:
        outcome: What came of it.
        calls: All calls of the model, those that were played again too, in order.
    """

    outcome: Outcome
    calls: tuple[RecordedCall, ...]


@dataclass(frozen=True)
class TurnTold:
    """A turn that has just been said, for who watches.

    Attributes:
        index: Of the dialogue.
        turn: 1, 2, ...
        speaker: Id.
        tokens: Of the turn.
        text: What was said.
    """

    index: int
    turn: int
    speaker: str
    tokens: int
    text: str


class Engine(Protocol):
    """Where dialogues are held: in this process, or on workers elsewhere.

    Attributes:
        at_once: How many are held at the same time; more wait.
    """

    at_once: int

    async def hold(self, work: Work, told: Callable[[TurnTold], None]) -> Finished:
        """Hold one dialogue to its end; one that fails is an outcome, too.

        Raises:
            Cancelled: It was asked to stop, and did at the end of a turn.
        """
        ...

    def crowd(self, crowded: bool) -> None:
        """Take it that dialogues wait to be begun, or that none does and half have ended.

        At first who has the least to say is asked first: dialogues end one by one, and what their
        ends cost goes on beside the replies to others. Later who has the most is, so that the last
        ones end together and no place at the model is idle before.
        """
        ...

    async def stop(self) -> None:
        """Have every dialogue end where its turn ends."""
        ...

    async def aclose(self) -> None:
        """Let go of workers and models."""
        ...
