"""How far a batch is that this process holds, counted from what is told of it."""

import time
from collections.abc import Callable

from persona_mcp.server.batch.batches import Event
from persona_mcp.state.batch.kept_batch import Progress


class Course:
    """Counts the events of a batch; what was done before it is gone on with counts, too."""

    def __init__(
        self, dialogues: int, turns_max: int, tokens: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Count from nothing.

        Args:
            dialogues: Of the batch.
            turns_max: Turns, if each of them goes to its end.
            tokens: Of the dialogues that were over before.
            now: A clock that is never put back, in seconds.
        """
        self._dialogues, self._turns_max = dialogues, turns_max
        self._done = self._failed = self._turns = 0
        self._tokens = tokens
        self._speaker: str | None = None
        self._under_way: dict[int, tuple[int, int]] = {}
        """Turns and tokens so far, by the dialogue's index; what is played again counts once."""
        self._now, self._began = now, now()
        self._before = 0

    def told(self, event: Event) -> None:
        """Count an event."""
        match event["event"]:
            case "started":
                self._failed = event["failed"]
                self._done = event["done"] + event["failed"]
                self._turns = event["turns"]
                self._before, self._began = self._done, self._now()
            case "turn":
                _, tokens = self._under_way.get(event["dialogue"], (0, 0))
                self._under_way[event["dialogue"]] = event["turn"], tokens + event["tokens"]
                self._speaker = event["speaker"]
            case "dialogue_done" | "dialogue_failed":
                _, tokens = self._under_way.pop(event["dialogue"], (0, 0))
                self._done += 1
                self._failed += event["event"] == "dialogue_failed"
                self._turns += event["turns"]
                self._tokens += tokens

    @property
    def progress(self) -> Progress:
        """Return how far it is."""
        live = self._under_way.values()
        return Progress(
            dialogues=self._dialogues,
            turns_max=self._turns_max,
            dialogues_done=self._done,
            dialogues_failed=self._failed,
            turns_done=self._turns + sum(turns for turns, _ in live),
            tokens_used=self._tokens + sum(tokens for _, tokens in live),
            current_speaker=self._speaker if self._under_way else None,
            left_s=self._left_s(),
        )

    def _left_s(self) -> float | None:
        """Estimate what time is left, by the share that was held since it was begun with.

        A dialogue under way counts by its turns, as far as they are of those it may have.
        """
        if not self._dialogues:
            return None
        longest = self._turns_max / self._dialogues
        part = sum(min(1.0, turns / longest) for turns, _ in self._under_way.values())
        held = self._done - self._before + part
        if held <= 0:
            return None
        left = self._dialogues - self._done - part
        return (self._now() - self._began) / held * max(0.0, left)
