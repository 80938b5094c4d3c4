"""How far a batch is, as it is shown: a bar on a terminal, lines now and then, or JSON events."""

import json
import time
from collections.abc import Callable
from typing import Protocol

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as ProgressBar

from persona_mcp.server.batch.batches import Event
from persona_mcp.server.batch.course import Course
from persona_mcp.server.terminal import Terminal, encodable
from persona_mcp.state.batch.kept_batch import Progress
from persona_mcp.state.moments import HOUR_S, MINUTE_S

LINE_S = 10.0
"""Between two lines, in seconds."""
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
    """What was counted of a batch while it was watched."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Count from nothing."""
        self._now, self._began = now, now()
        self._course = Course(0, 0, 0, now)

    def count(self, event: Event) -> None:
        """Count an event."""
        if event["event"] == "started":
            self._began = self._now()
            self._course = Course(event["dialogues"], event["turns_max"], 0, self._now)
        self._course.told(event)

    @property
    def progress(self) -> Progress:
        """Return how far it is; the tokens are those that were said meanwhile."""
        return self._course.progress

    @property
    def rate(self) -> float:
        """Return how many tokens are said a second."""
        passed = self._now() - self._began
        return self.progress.tokens_used / passed if passed > 0 else 0.0

    @property
    def left(self) -> str:
        """Say what time is left; empty before a turn was said."""
        left_s = self.progress.left_s
        return "" if left_s is None else f"{duration(left_s)} left"

    @property
    def words(self) -> str:
        """Say all of it but the dialogues and the time."""
        progress = self.progress
        failed = f"{progress.dialogues_failed} failed, " if progress.dialogues_failed else ""
        return f"{failed}{progress.turns_done} turns, {self.rate:.0f} tokens/s"


class Bar:
    """A bar that moves, on a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        """Begin it."""
        self._tally = Tally()
        self._bar = ProgressBar(
            TextColumn(TEXT),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[words]}"),
            TextColumn("{task.fields[left]}"),
            console=terminal.err,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, words="", left="")
        self._bar.start()

    def told(self, event: Event) -> None:
        """Move it."""
        tally = self._tally
        tally.count(event)
        done, total = tally.progress.dialogues_done, tally.progress.dialogues
        words, left = tally.words, tally.left
        self._bar.update(self._task, total=total, completed=done, words=words, left=left)

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
        progress = self._tally.progress
        far = f"{progress.dialogues_done}/{progress.dialogues} dialogues"
        return ", ".join(filter(None, (far, self._tally.words, self._tally.left)))

    def close(self) -> None:
        """Write how it stands, if anything was begun."""
        if self._tally.progress.dialogues:
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
