"""Who sees whom how, as a picture: personas in a circle, an arrow for each view of another."""

import math
from collections.abc import Mapping, Sequence

from persona_mcp.server.report.html import Markup, el, html
from persona_mcp.state.batch.reading import DIMENSIONS, Ends
from persona_mcp.state.batch.statistics import Moments

SIZE, MARGIN, NODE = 420, 78, 15
BEND = 0.16
"""How far an arrow swings out, in its own length: two of opposite directions stay apart."""
LEAST_SHOWN = 0.0005
LABEL_AT = 0.34
"""How far along an arrow its number stands."""
LABELLED = 3
"""Personas up to which each arrow has its number beside it."""
NAME_LONGEST = 16
Point = tuple[float, float]
Means = Mapping[Ends, Mapping[str, Moments]]


def graph(people: Sequence[tuple[str, str]], views: Means, label: str) -> Markup:
    """Draw one graph.

    Args:
        people: Id and name of who is in it.
        views: How one sees another, means.
        label: What it shows, for who does not see it.
    """
    flat = len(people) == 2  # noqa: PLR2004 - side by side
    places = {id: place(number, len(people)) for number, (id, _) in enumerate(people)}
    names = dict(people)
    arrows = [
        arrow(places, names, ends, values, len(people) <= LABELLED)
        for ends, values in sorted(views.items())
        if places.keys() >= set(ends)
    ]
    nodes = [node(places[id], name, number) for number, (id, name) in enumerate(people)]
    return el(
        "svg",
        *(line for line, _ in arrows),
        *(number for _, number in arrows),
        *nodes,
        viewBox=f"0 {MARGIN} {SIZE} {SIZE - 2 * MARGIN}" if flat else f"0 0 {SIZE} {SIZE}",
        role="img",
        aria_label=label,
        class_="graph",
    )


def place(number: int, count: int) -> Point:
    """Return where a persona stands: on a circle, the first one on the left."""
    radius = SIZE / 2 - MARGIN
    turned = math.pi + 2 * math.pi * number / count
    return SIZE / 2 + radius * math.cos(turned), SIZE / 2 + radius * math.sin(turned)


def node(at: Point, name: str, number: int) -> Markup:
    """Draw a persona with its name outside of the circle."""
    x, y = at
    out_y = y - SIZE / 2
    below = out_y >= 0 or abs(out_y) < SIZE / 4
    text = el(
        "text",
        name if len(name) <= NAME_LONGEST else name[: NAME_LONGEST - 1] + "…",
        el("title", name),
        x=f"{min(SIZE - 60, max(60, x)):.1f}",
        y=f"{y + NODE + 17 if below else y - NODE - 8:.1f}",
        text_anchor="middle",
    )
    circle = el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=NODE, class_=f"node p{number % 12}")
    return el("g", circle, text)


def arrow(
    places: Mapping[str, Point],
    names: Mapping[str, str],
    ends: Ends,
    values: Mapping[str, Moments],
    labelled: bool,
) -> tuple[Markup, Markup | None]:
    """Draw how one sees another, colour by affinity, width by strength; and its number."""
    affinity, strength = values["affinity"].mean, values["strength"].mean
    start, middle, end = bent(places[ends[0]], places[ends[1]])
    kind = "none" if abs(affinity) < LEAST_SHOWN else "like" if affinity > 0 else "dislike"
    width = 1.2 + 7 * min(1.0, abs(strength))
    seen = ", ".join(f"{name} {values[name].mean:+.3f}" for name in DIMENSIONS)
    title = el("title", f"{names[ends[0]]} → {names[ends[1]]}: {seen}")
    faint = f"{0.35 + 0.65 * min(1.0, abs(affinity) * 2):.2f}"
    way = f"M{start[0]:.1f} {start[1]:.1f}Q{middle[0]:.1f} {middle[1]:.1f} "
    way += f"{end[0]:.1f} {end[1]:.1f}"
    line = el("path", d=way, stroke_width=f"{width:.2f}")
    tip = el("path", d=head(middle, end, width), class_="tip")
    number = None
    if labelled:
        x, y = beside(start, middle, end)
        number = el(
            "text",
            f"{affinity:+.2f}",
            x=f"{x:.1f}",
            y=f"{y + 4:.1f}",
            class_="number",
            text_anchor="middle",
        )
    group = el("g", title, line, tip, class_=kind, opacity=faint)
    return group, number


def bent(start: Point, end: Point) -> tuple[Point, Point, Point]:
    """Return the ends of an arrow at the rims of two personas, and the point that it bends to."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    middle = (start[0] + end[0]) / 2 - dy * BEND * 2, (start[1] + end[1]) / 2 + dx * BEND * 2
    return toward(start, middle, NODE + 2), middle, toward(end, middle, NODE + 8)


def beside(start: Point, middle: Point, end: Point) -> Point:
    """Return where an arrow's number stands: nearer to its start, on its outer side."""
    near, far = 1 - LABEL_AT, LABEL_AT
    x, y = (
        near * near * s + 2 * near * far * m + far * far * e
        for s, m, e in zip(start, middle, end, strict=True)
    )
    chord = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    length = math.dist(chord, middle) or 1.0
    return x + 17 * (middle[0] - chord[0]) / length, y + 11 * (middle[1] - chord[1]) / length


def toward(start: Point, end: Point, by: float) -> Point:
    """Go from one point toward another."""
    length = math.dist(start, end) or 1.0
    return start[0] + (end[0] - start[0]) * by / length, start[1] + (
        end[1] - start[1]
    ) * by / length


def head(before: Point, tip: Point, width: float) -> str:
    """Return the way around the head of an arrow that comes from a point."""
    length = math.dist(before, tip) or 1.0
    x, y = (tip[0] - before[0]) / length, (tip[1] - before[1]) / length
    half = 3 + width * 0.7
    points = (
        (tip[0] + x * 7, tip[1] + y * 7),
        (tip[0] - y * half - x * 3, tip[1] + x * half - y * 3),
        (tip[0] + y * half - x * 3, tip[1] - x * half - y * 3),
    )
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points) + "Z"


def key() -> Markup:
    """Say what colours and widths mean."""
    return el(
        "p",
        el("span", "likes", class_="swatch like"),
        el("span", "dislikes", class_="swatch dislike"),
        html(
            "An arrow goes from who sees to who is seen; the stronger its colour, the larger the "
        ),
        html("affinity; the wider, the stronger the relationship. Hover for all dimensions."),
        class_="note",
    )
