"""How one party's view of another went over time: points of a curve, the events, an axis for both.

What is drawn and what is printed are made of the same points.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from persona_mcp.state import relationship
from persona_mcp.state.arrow import Shown
from persona_mcp.state.explaining import course
from persona_mcp.state.relationship import RelationshipParams
from persona_mcp.state.relationship_store import Log

DIMENSIONS = ("affinity", "trust", "respect", "intimacy")
SAMPLES = 200
"""Points that the whole span is divided by, beside those at the events."""
LONG_REST = 20.0
"""A gap this many times the usual one is a rest, and drawn shorter than it was."""
LEAST_SPAN_S = 1.0


class Point(NamedTuple):
    """An arrow at one time, as it is shown."""

    at: float
    shown: Shown


class Happened(NamedTuple):
    """An event of an arrow.

    Attributes:
        id: From the history of the two.
        at: Seconds since the epoch, UTC.
        kind: What sort of event it is.
        why: A short reason.
        after: The arrow just after it.
    """

    id: str
    at: float
    kind: str
    why: str
    after: Shown


@dataclass(frozen=True)
class Curve:
    """How one party's view of another went.

    Attributes:
        from_name: Who sees.
        to_name: Who is seen.
        points: (n,), in order of time; two at each event, just before and just after it.
        events: (m,), in order of time.
    """

    from_name: str
    to_name: str
    points: tuple[Point, ...]
    events: tuple[Happened, ...]


def curve_of(
    names: tuple[str, str], log: Log, now: float, params: RelationshipParams
) -> Curve | None:
    """Follow an arrow from its first event until now; None if nothing happened to it.

    Between events it decays as its law says, so a curve is exact at each of its points.

    Args:
        names: Of who sees, and of who is seen.
        log: What happened to it.
        now: Seconds since the epoch, UTC.
        params: The constants.
    """
    steps = course(log.events, params, log.first)
    if not steps:
        return None
    ends = [step.before for step in steps[1:]]
    end = max(now, steps[-1].after.as_of)
    every = max(LEAST_SPAN_S, end - steps[0].before.as_of) / SAMPLES
    points = [Point(steps[0].before.as_of, relationship.shown(steps[0].before, params))]
    happened = []
    for number, step in enumerate(steps):
        entry, arrow = log.entries[number], step.after
        shown = relationship.shown(arrow, params)
        happened.append(Happened(entry.id, arrow.as_of, step.event.kind, entry.why, shown))
        points.append(Point(arrow.as_of, shown))
        until = ends[number].as_of if number < len(ends) else end
        inside = int((until - arrow.as_of) / every)
        times = [arrow.as_of + (place + 1) * every for place in range(inside)]
        moments = (*(at for at in times if at < until), until)
        rested = (relationship.decay(arrow, at, params) for at in moments)
        points += [Point(one.as_of, relationship.shown(one, params)) for one in rested]
    return Curve(*names, tuple(points), tuple(happened))


@dataclass(frozen=True)
class Axis:
    """A scale of time on which long rests take less room than they took time.

    A talk of minutes, days ago, is else a mere line at the edge. Within a stretch, and within a
    rest, the scale is even.

    Attributes:
        times: (n,), where the scale changes, rising, seconds since the epoch.
        places: (n,), where these are on it, from 0 to 1.
        rests: Pairs of times between which nothing happened for long.
    """

    times: tuple[float, ...]
    places: tuple[float, ...]
    rests: tuple[tuple[float, float], ...]

    def place(self, at: float) -> float:
        """Return where a time is, [0, 1]; what lies outside is at an end."""
        number = bisect_right(self.times, at)
        if number == 0:
            return self.places[0]
        if number == len(self.times):
            return self.places[-1]
        start, end = self.times[number - 1], self.times[number]
        share = (at - start) / (end - start)
        return self.places[number - 1] + share * (self.places[number] - self.places[number - 1])


def axis_of(curves: Iterable[Curve]) -> Axis:
    """Make the scale for some curves that are to be compared.

    A gap between events that is longer than LONG_REST times the median of all gaps gets the room of
    one that is LONG_REST times as long; the time since the last event is a gap too.
    """
    known = list(curves)
    marks = sorted({event.at for curve in known for event in curve.events})
    marks = sorted({*marks, max(curve.points[-1].at for curve in known)})
    if len(marks) == 1:
        marks.append(marks[0] + LEAST_SPAN_S)
    gaps = [after - before for before, after in pairwise(marks)]
    most = LONG_REST * median([gap for gap in gaps if gap >= LEAST_SPAN_S] or gaps)
    widths = [min(gap, most) for gap in gaps]
    places = [0.0]
    for width in widths:
        places.append(places[-1] + width)
    whole = places[-1]
    return Axis(
        tuple(marks),
        tuple(place / whole for place in places),
        tuple((marks[number], marks[number + 1]) for number, gap in enumerate(gaps) if gap > most),
    )


def sampled(curve: Curve, axis: Axis, dimension: str, columns: int) -> list[float | None]:
    """Read a curve at evenly spaced places of an axis, from the left to the right.

    Returns:
        (columns,), what it last was at the place; None before its first event.
    """
    places = [axis.place(point.at) for point in curve.points]
    found: list[float | None] = []
    for column in range(columns):
        number = bisect_right(places, (column + 1) / columns)
        found.append(getattr(curve.points[number - 1].shown, dimension) if number else None)
    return found


def marked(events: Sequence[Happened], axis: Axis, columns: int) -> list[int]:
    """Count the events in each of some evenly wide columns of an axis."""
    counts = [0] * columns
    for event in events:
        counts[min(columns - 1, int(axis.place(event.at) * columns))] += 1
    return counts


def in_words(seconds: float) -> str:
    """Say how long something took, in its largest unit: `3 days`."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = round(seconds / length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{round(seconds)} s"
