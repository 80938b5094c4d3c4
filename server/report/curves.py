"""How relationships went over the turns of a run, as curves whose points know their turn."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from persona_mcp.server.report.findings import Drawn, ShownTalk
from persona_mcp.server.report.html import Markup, arrow_name, data, el, html, joined
from persona_mcp.state.batch.reading import Ends, Moved

WIDTH, HEIGHT = 1000, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 34
PAIRS = 8
"""Curves of a picture: the pairs whose affinity went farthest."""
CURVED = ("affinity", "trust", "respect", "intimacy", "strength")
TEXT_LONGEST = 500
STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)
LINES = 6


class At(NamedTuple):
    """A move, and where it stands in a run: its turn in the run, counted from 0."""

    x: int
    talk: ShownTalk
    move: Moved


def curves(drawn: Drawn, names: Mapping[str, str]) -> Markup | None:
    """Draw the curves of an arm's first run; None if nothing moved in it."""
    found, starts, total = course(drawn.course)
    pairs = farthest(found)
    if not pairs:
        return None
    groups = [dimension_group(dimension, pairs, found, total) for dimension in CURVED]
    picture = el(
        "svg",
        *separators(drawn.course, starts, total),
        *groups,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"Relationships over the turns of run 0 of arm {drawn.arm}",
        class_="curves",
        tabindex="0",
    )
    buttons = [
        el("button", name, type="button", data_dimension=name, aria_pressed=str(not at).lower())
        for at, name in enumerate(CURVED)
    ]
    legend = [
        el("li", el("span", class_=f"line l{at}"), arrow_name(ends, names))
        for at, ends in enumerate(pairs)
    ]
    return el(
        "figure",
        el("div", *buttons, class_="dimensions", role="group", aria_label="Dimension"),
        el("div", picture, class_="wide"),
        el("ul", *legend, class_="legend"),
        el(
            "div",
            html("Point at a curve, or press ← and → on it, to read the turn behind a point."),
            class_="behind",
            aria_live="polite",
        ),
        data(behind(pairs, found, names)),
        class_="chart",
    )


def course(talks: Sequence[ShownTalk]) -> tuple[list[At], list[int], int]:
    """Lay the dialogues of a run one behind the other.

    Returns:
        Each move at its turn; the turn that each dialogue begins at; all turns.
    """
    found, starts, total = [], [], 0
    for talk in talks:
        starts.append(total)
        found += [At(total + move.turn - 1, talk, move) for move in talk.moves]
        total += max((turn.number for turn in talk.turns if turn.kind != "narrated"), default=0)
    return found, starts, total


def farthest(found: Sequence[At]) -> list[Ends]:
    """Choose the pairs that are drawn, in order of their ids."""
    ways: dict[Ends, float] = {}
    for one in found:
        ends = one.move.of, one.move.to
        ways[ends] = ways.get(ends, 0.0) + abs(one.move.change)
    return sorted(sorted(ways, key=lambda ends: (-ways[ends], ends))[:PAIRS])


def x_of(turn: float, total: int) -> float:
    """Return where a turn is, in pixels."""
    return LEFT + (WIDTH - LEFT - RIGHT) * (turn + 0.5) / max(1, total)


def scale(low: float, high: float) -> tuple[float, float, float]:
    """Return lower end, upper end and step of an axis that has 0 on it and a few lines."""
    low, high = min(0.0, low), max(0.0, high)
    step = next((one for one in STEPS if (high - low) / one <= LINES), STEPS[-1])
    return math.floor(low / step) * step, max(math.ceil(high / step), 1) * step, step


def dimension_group(
    dimension: str, pairs: Sequence[Ends], found: Sequence[At], total: int
) -> Markup:
    """Draw one dimension: lines of the axis, then a curve with its points for each pair."""
    own = [one for one in found if (one.move.of, one.move.to) in set(pairs)]
    values = [one.move.shown[dimension] for one in own]
    low, high, step = scale(min(values), max(values))

    def y_of(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts: list[Markup] = []
    for at in range(round((high - low) / step) + 1):
        value = low + at * step
        y = f"{y_of(value):.1f}"
        zero = abs(value) < step / 2
        parts.append(
            joined(
                el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="zero" if zero else None),
                el("text", f"{abs(value) if zero else value:.3g}", x=LEFT - 8, y=y, class_="tick"),
            )
        )
    for place, ends in enumerate(pairs):
        points = [
            (x_of(one.x, total), y_of(one.move.shown[dimension]), at)
            for at, one in enumerate(own)
            if (one.move.of, one.move.to) == ends
        ]
        way = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
        parts.append(el("path", d=way, class_=f"l{place}"))
        parts += [
            el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_=f"l{place}", data_at=at)
            for x, y, at in points
        ]
    return el(
        "g", *parts, class_=f"dimension{' on' if dimension == CURVED[0] else ''}", data_of=dimension
    )


def separators(talks: Sequence[ShownTalk], starts: Sequence[int], total: int) -> list[Markup]:
    """Draw where each dialogue begins, and its index as far as there is room."""
    parts = []
    room = (WIDTH - LEFT - RIGHT) / max(1, len(starts))
    often = max(1, math.ceil(46 / room))
    for at, (talk, start) in enumerate(zip(talks, starts, strict=True)):
        x = f"{x_of(start - 0.5, total):.1f}"
        label = None
        if at % often == 0 and start < total:  # what has no turns, at the end, has no room either
            index = talk.outcome.job.place.index
            label = el("text", f"#{index}", x=f"{float(x) + 4:.1f}", y=HEIGHT - 12, class_="talk")
        parts.append(
            joined(el("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="begins"), label)
        )
    return parts


def behind(
    pairs: Sequence[Ends], found: Sequence[At], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return what each point stands for, in the order of `data-at`."""
    own = [one for one in found if (one.move.of, one.move.to) in set(pairs)]
    told = []
    for one in own:
        turn = next(
            turn
            for turn in one.talk.turns
            if turn.number == one.move.turn and turn.kind != "narrated"
        )
        told.append(
            {
                "of": names.get(one.move.of, one.move.of),
                "to": names.get(one.move.to, one.move.to),
                "talk": one.talk.outcome.job.place.index,
                "turn": turn.number,
                "speaker": names.get(turn.speaker, turn.speaker),
                "text": turn.text[:TEXT_LONGEST] + ("…" if len(turn.text) > TEXT_LONGEST else ""),
                "why": one.move.why,
                "change": round(one.move.change, 4),
                "values": {name: round(one.move.shown[name], 4) for name in CURVED},
            }
        )
    return told
