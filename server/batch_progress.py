"""How far a batch is, as it is shown: a bar on a terminal, lines now and then, or JSON events."""

import json
import time
from collections.abc import Callable
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from persona_mcp.server.batches import Event
from persona_mcp.server.terminal import Terminal, encodable

LINE_S = 10.0
"""Between two lines, in seconds."""
MINUTE_S, HOUR_S = 60, 3600
TEXT = "{task.completed}/{task.total} dialogues"


class Display(Protocol):
    """Shows what happens in a batch."""

    def told(self, event: Event) -> None:
        """Take note of an event."""
        ...

    def close(self) -> None:
        """Show the end of it."""
        ...


class Tally:
    """What was counted of a batch while it was watched.

    Attributes:
        total: Dialogues of the batch.
        over: Those that are over, failed ones too.
        failed: Those that failed.
        turns: Said, before it was watched too.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Count from nothing."""
        self.total = self.over = self.failed = self.turns = 0
        self._before, self._tokens = 0, 0
        self._now, self._began = now, now()

    def count(self, event: Event) -> None:
        """Count an event."""
        match event["event"]:
            case "started":
                self.total, self.turns = event["dialogues"], event["turns"]
                self.over = self._before = event["done"] + event["failed"]
                self.failed = event["failed"]
                self._began = self._now()
            case "turn":
                self.turns += 1
                self._tokens += event["tokens"]
            case "dialogue_done" | "dialogue_failed":
                self.over += 1
                self.failed += event["event"] == "dialogue_failed"

    @property
    def rate(self) -> float:
        """Return how many tokens are said a second."""
        passed = self._now() - self._began
        return self._tokens / passed if passed > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Estimate what time is left, in seconds; None before a dialogue is over."""
        made = self.over - self._before
        if not made:
            return None
        return (self._now() - self._began) / made * (self.total - self.over)

    @property
    def words(self) -> str:
        """Say all of it but the dialogues and the time."""
        failed = f"{self.failed} failed, " if self.failed else ""
        return f"{failed}{self.turns} turns, {self.rate:.0f} tokens/s"


class Bar:
    """A bar that moves, on a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        """Begin it."""
        self._tally = Tally()
        self._bar = Progress(
            TextColumn(TEXT),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(),
            console=terminal.err,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, words="")
        self._bar.start()

    def told(self, event: Event) -> None:
        """Move it."""
        tally = self._tally
        tally.count(event)
        self._bar.update(self._task, total=tally.total, completed=tally.over, words=tally.words)

    def close(self) -> None:
        """Take it away."""
        self._bar.stop()


class Lines:
    """A line now and then, where nothing moves."""

    def __init__(self, terminal: Terminal, now: Callable[[], float] = time.monotonic) -> None:
        """Begin it."""
        self._terminal, self._now = terminal, now
        self._tally = Tally(now)
        self._next = now() + LINE_S

    def told(self, event: Event) -> None:
        """Write a line, if it is time."""
        self._tally.count(event)
        if event["event"] == "dialogue_failed":
            what = event["error"].get("message", "")
            self._terminal.err.print(f"dialogue {event['dialogue']} failed: {what}")
        if event["event"] == "started" or self._now() >= self._next:
            self._next = self._now() + LINE_S
            self._terminal.err.print(self._line())

    def _line(self) -> str:
        tally = self._tally
        left = f", {duration(tally.left_s)} left" if tally.left_s is not None else ""
        return f"{tally.over}/{tally.total} dialogues, {tally.words}{left}"

    def close(self) -> None:
        """Write how it stands, if anything was begun."""
        if self._tally.total:
            self._terminal.err.print(self._line())


class Events:
    """One JSON object a line, for scripts."""

    def __init__(self, terminal: Terminal) -> None:
        """Write to standard output."""
        self._terminal = terminal

    def told(self, event: Event) -> None:
        """Write an event."""
        text = json.dumps(event, ensure_ascii=False, allow_nan=False)
        if encodable(text, self._terminal.out.encoding) != text:
            text = json.dumps(event, allow_nan=False)
        self._terminal.write(text + "\n")

    def close(self) -> None:
        """Do nothing: the last event tells the end."""


class Silence:
    """Shows nothing."""

    def told(self, event: Event) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def display(terminal: Terminal, *, as_json: bool) -> Display:
    """Choose how a batch is shown."""
    if as_json:
        return Events(terminal)
    return Bar(terminal) if terminal.err.is_terminal else Lines(terminal)


def duration(seconds: float) -> str:
    """Write a duration for people, as 45 s, 12 min or 3 h 20 min."""
    if seconds < MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    hours, rest = divmod(seconds, HOUR_S)
    return f"{hours:.0f} h {rest / MINUTE_S:.0f} min"
