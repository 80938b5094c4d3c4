"""A batch of dialogues as its world keeps it: asked for, how far it is, how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from persona_mcp.state.callers import LOCAL

BatchStatus = Literal["queued", "running", "completed", "cancelled", "failed"]
STATUSES: tuple[BatchStatus, ...] = get_args(BatchStatus)
Key = tuple[str, str]
OPEN: tuple[BatchStatus, ...] = ("queued", "running")


@dataclass(frozen=True)
class Progress:
    """How far a batch is.

    Attributes:
        dialogues: Of the whole batch.
        turns_max: Turns, if each of them goes to its end.
        dialogues_done: Those that are over, failed ones too.
        dialogues_failed: Those that failed.
        turns_done: Turns so far, of dialogues under way too.
        tokens_used: Of those turns.
        current_speaker: Who spoke last; None where nobody has.
        left_s: What time is left, in seconds, as estimated at `seen_at`; None if nobody knows.
        seen_at: When its process last showed life, in seconds since the epoch, UTC.
    """

    dialogues: int
    turns_max: int
    dialogues_done: int = 0
    dialogues_failed: int = 0
    turns_done: int = 0
    tokens_used: int = 0
    current_speaker: str | None = None
    left_s: float | None = None
    seen_at: float = 0.0


@dataclass(frozen=True)
class AskedBatch:
    """A batch that is asked for.

    Attributes:
        world_id: Where its personas are.
        id: Its key there.
        name: For people.
        spec: What is to be held, as JSON.
        keep: What happens in it becomes part of this world at its end.
        dialogues: How many there are.
        turns_max: Turns, if each of them goes to its end.
        caller_id: Who asks for it.
    """

    world_id: str
    id: str
    name: str
    spec: Mapping[str, Any]
    keep: bool
    dialogues: int
    turns_max: int
    caller_id: str = LOCAL.id


@dataclass(frozen=True)
class KeptBatch:
    """A batch as it is in SQL.

    Attributes:
        world_id: Where its personas are.
        id: Its key there.
        name: For people.
        spec: What is to be held, as JSON.
        status: Whether it waits, is held, or is over, and how.
        keep: What happens in it becomes part of this world at its end.
        kept_at: When it did, in seconds since the epoch, UTC; None before.
        owner: The process that holds it; None if none does.
        reason: Why it was asked to stop; None if it was not.
        progress: How far it is.
        error: Why it failed, or why it waits, as a problem (code, message, data); None else.
        created_at: When it was asked for, in seconds since the epoch, UTC.
        started_at: When a process first began to hold it.
        finished_at: When it was over.
        caller_id: Who asked for it.
    """

    world_id: str
    id: str
    name: str
    spec: dict[str, Any]
    status: BatchStatus
    keep: bool
    kept_at: float | None
    owner: str | None
    reason: str | None
    progress: Progress
    error: dict[str, Any] | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    caller_id: str

    @property
    def key(self) -> Key:
        """World and id."""
        return self.world_id, self.id

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done about it."""
        return self.status not in OPEN


def to_batch(row: Any) -> KeptBatch:
    """Read a row."""
    values = dict(row._mapping)
    return KeptBatch(**{**values, "progress": Progress(**values["progress"])})
