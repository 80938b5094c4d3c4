"""Pictures of relationships, drawn with matplotlib, which only the extra `plot` brings.

The same data give the same bytes: no time and no random id is written. Nothing needs a display.
"""

import io
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke

from persona_mcp.server.graph_files import NO_XML, REPLACEMENT
from persona_mcp.server.relationship_curves import DIMENSIONS, Axis, Curve, axis_of, in_words

Edge = Mapping[str, Any]
Node = Mapping[str, Any]

INK, PALE, FAINT = "#1f2937", "#6b7280", "#e5e7eb"
LIKING = LinearSegmentedColormap.from_list(
    "liking", ["#b34700", "#e08a3c", "#b8bcc4", "#4a8fd0", "#0b4f9e"]
)
"""Dislike orange, liking blue, which no common colour blindness takes for each other."""
COLOURS = {"affinity": "#0b4f9e", "trust": "#b34700", "respect": "#4d7c0f", "intimacy": "#9333a8"}
STYLES = {"affinity": "-", "trust": "--", "respect": "-.", "intimacy": ":"}
"""A curve is told by its dashes too."""
DPI = 130
NAME_WIDTH, NAME_LINES = 16, 3
FAMILIAR = ((0.1, "new"), (0.5, "known"), (0.9, "familiar"))
"""Familiarities that the legend shows, and what it calls them."""
PAIR = 2
BAND = 0.07
"""Share of the width from which on a rest is wide enough to say how long it was."""
APART, CLEAR = 0.28, 0.3
"""How far the arrows of a pair are apart, as a share of their length; and inches from a party."""
LEGEND = 0.95
"""Height of the legend, in inches."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "persona-mcp",
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
"""Text of an SVG stays text: a browser has more letters than one font, and the file is small."""


def draw_graph(nodes: Sequence[Node], edges: Sequence[Edge], kind: str) -> bytes:
    """Draw who sees whom how: two arrows a pair, coloured by affinity, as wide as familiarity.

    Args:
        nodes: With `id`, `name` and `kind` (persona or user); each stands on a circle.
        edges: With `from`, `to`, `affinity` [-1, 1], `familiarity` [0, 1] and `strength`.
        kind: svg or png.
    """
    order = beside_each_other([node["id"] for node in nodes], edges)
    radius = max(1.9, 0.21 * min(len(order), 12) + 0.13 * max(0, len(order) - 12))
    with mpl.rc_context(STYLE):
        tall = 1.6 if len(order) == PAIR else 2 * radius + 1.1
        figure = Figure(figsize=(2 * radius + 4.0, tall + LEGEND))
        circle = Circle(order, radius)
        area = drawing_area(figure)
        for edge in sorted(edges, key=lambda one: abs(one["affinity"])):
            area.add_patch(arrow(circle, edge))
        for node in nodes:
            add_node(area, node, circle.place(node["id"]))
        add_legend(figure, {node["kind"] for node in nodes})
        return written(figure, kind)


def drawing_area(figure: Figure) -> Axes:
    """Make axes of the figure above the legend; a unit is an inch, and 0 the middle."""
    width, height = figure.get_size_inches()
    area = figure.add_axes((0, LEGEND / height, 1, 1 - LEGEND / height))
    area.set_xlim(-width / 2, width / 2)
    area.set_ylim(-(height - LEGEND) / 2, (height - LEGEND) / 2)
    area.set_axis_off()
    return area


def beside_each_other(ids: Sequence[str], edges: Sequence[Edge]) -> list[str]:
    """Order parties so that those who have most to do with each other stand next to each other."""
    bonds: dict[frozenset[str], float] = {}
    for edge in edges:
        ends = frozenset((edge["from"], edge["to"]))
        weight = abs(edge["strength"]) + edge["familiarity"]
        bonds[ends] = bonds.get(ends, 0.0) + weight
    left = sorted(ids, key=lambda id: (-sum(w for ends, w in bonds.items() if id in ends), id))
    ordered = left[:1]
    left = left[1:]
    while left:
        last = ordered[-1]
        nearest = max(left, key=lambda id: bonds.get(frozenset((last, id)), 0.0))
        left.remove(nearest)
        ordered.append(nearest)
    return ordered


class Circle:
    """Parties on a circle, clockwise from the top; two stand side by side."""

    def __init__(self, ids: Sequence[str], radius: float) -> None:
        """Place them in this order; the radius is in inches."""
        self._radius = radius
        self._number = {id: number for number, id in enumerate(ids)}

    def place(self, id: str) -> tuple[float, float]:
        """Return where somebody stands, from the middle, in inches."""
        count = len(self._number)
        start = math.pi if count == PAIR else math.pi / 2
        angle = start - 2 * math.pi * self._number[id] / count
        return self._radius * math.cos(angle), self._radius * math.sin(angle)

    def bend(self, start: str, end: str) -> float:
        """Return how much an arrow is bent to its right, as a share of its length.

        The two arrows of a pair are the same distance apart everywhere. Neighbours have one on each
        side of the line between them; else the outer one stays clear of those who stand between.
        """
        count = len(self._number)
        if count == PAIR:
            return APART
        clockwise = (self._number[end] - self._number[start]) % count
        steps = min(clockwise, count - clockwise)
        outer = APART / 2
        if steps > 1:
            angle = math.pi * steps / count
            room = self._radius * (1 - math.cos(angle)) - CLEAR
            outer = max(-APART, min(outer, room / (self._radius * math.sin(angle))))
        # Going round clockwise, the middle is on the right.
        return APART - outer if clockwise <= count / 2 else outer


def arrow(circle: Circle, edge: Edge) -> FancyArrowPatch:
    """Draw an arrow, bent so that the one that comes back is seen beside it."""
    width = line_width(edge["familiarity"])
    return FancyArrowPatch(
        circle.place(edge["from"]),
        circle.place(edge["to"]),
        connectionstyle=f"arc3,rad={circle.bend(edge['from'], edge['to'])}",
        arrowstyle="-|>,head_length=0.42,head_width=0.2",
        mutation_scale=14,
        shrinkA=10,
        shrinkB=10,
        linewidth=width,
        color=LIKING(Normalize(-1, 1)(edge["affinity"])),
        joinstyle="miter",
        capstyle="butt",
        path_effects=[withStroke(linewidth=width + 1.8, foreground="white")],
    )


def line_width(familiarity: float) -> float:
    """Return the width of an arrow, in points."""
    return 0.8 + 4.2 * familiarity


def add_node(area: Axes, node: Node, place: tuple[float, float]) -> None:
    """Draw a party: a circle for a persona, a square for a user, and its name outside of it."""
    x, y = place
    persona = node["kind"] == "persona"
    area.plot(
        [x], [y], marker="o" if persona else "s", markersize=13 if persona else 11,
        markerfacecolor="white", markeredgecolor=INK, markeredgewidth=1.4,
    )  # fmt: skip
    away = math.hypot(x, y)
    sideways, upwards = x / away, y / away
    beside = abs(sideways) > 0.3  # noqa: PLR2004 - else above or below
    area.text(
        x + 0.2 * sideways,
        y + 0.2 * upwards,
        label_of(node["name"]),
        ha=("left" if sideways > 0 else "right") if beside else "center",
        va="center" if beside else ("bottom" if upwards > 0 else "top"),
        fontweight="bold",
        linespacing=1.05,
    )


def label_of(name: str) -> str:
    """Write a name in a few short lines, without what no picture can hold."""
    known = NO_XML.sub(REPLACEMENT, " ".join(name.split()))
    lines = textwrap.wrap(known, NAME_WIDTH, max_lines=NAME_LINES, placeholder=" …")
    return "\n".join(lines)


def add_legend(figure: Figure, kinds: set[str]) -> None:
    """Say what colours, widths and shapes mean, below the graph."""
    width, height = figure.get_size_inches()
    middle = width / 2
    bar = figure.add_axes(((middle - 2.7) / width, 0.42 / height, 2.2 / width, 0.14 / height))
    scale = ScalarMappable(Normalize(-1, 1), LIKING)
    drawn = figure.colorbar(scale, cax=bar, orientation="horizontal", ticks=[-1, 0, 1])
    drawn.outline.set_visible(False)
    bar.set_xticklabels(["dislikes", "neutral", "likes"])
    bar.tick_params(length=0, labelsize=9)
    bar.set_title("affinity", fontsize=9, color=PALE, pad=4)
    lines = [
        Line2D([], [], color=PALE, linewidth=line_width(familiarity), label=label)
        for familiarity, label in FAMILIAR
    ]
    if "user" in kinds:
        square = Line2D([], [], marker="s", markersize=8, linestyle="", label="a user")
        square.set(markerfacecolor="white", markeredgecolor=INK)
        lines.append(square)
    legend = figure.legend(
        handles=lines,
        loc="upper left",
        bbox_to_anchor=((middle + 0.1) / width, 0.83 / height),
        ncols=len(lines),
        frameon=False,
        fontsize=9,
        title="familiarity",
        title_fontproperties={"size": 9},
        handlelength=1.6,
        columnspacing=1.1,
        borderpad=0,
    )
    legend.get_title().set_color(PALE)


def draw_curves(curves: Sequence[Curve], kind: str) -> bytes:
    """Draw how views went over time, one panel each, with the events marked below.

    Args:
        curves: One, or two that are the directions of a pair.
        kind: svg or png.
    """
    axis = axis_of(curves)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 0.9 + 2.9 * len(curves)), layout="constrained")
        panels = figure.subplots(len(curves), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for panel, curve in zip(panels, curves, strict=True):
            add_curve(panel, curve, axis)
        low, high = limits(curves)
        panels[0].set_ylim(low - 0.14 * (high - low), high + 0.06 * (high - low))
        ticks = ticks_of(axis)
        panels[-1].set_xticks([place for place, _ in ticks], [label for _, label in ticks])
        panels[-1].set_xlabel("UTC", fontsize=8, color=PALE)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
        return written(figure, kind)


def add_curve(panel: Axes, curve: Curve, axis: Axis) -> None:
    """Draw one direction: its curves, its rests as pale bands, its events as marks."""
    panel.set_title(
        f"How {one_line(curve.from_name)} sees {one_line(curve.to_name)}",
        loc="left",
        fontsize=11,
        fontweight="bold",
    )
    for start, end in axis.rests:
        left, right = axis.place(start), axis.place(end)
        panel.axvspan(left, right, color=FAINT, alpha=0.6, linewidth=0)
        if right - left < BAND:
            continue
        panel.text(
            (left + right) / 2, 0.97, f"{in_words(end - start)} later", ha="center", va="top",
            transform=panel.get_xaxis_transform(), fontsize=8, color=PALE,
        )  # fmt: skip
    panel.axhline(0, color=PALE, linewidth=0.8)
    places = [axis.place(point.at) for point in curve.points]
    for name in DIMENSIONS:
        panel.plot(
            places,
            [getattr(point.shown, name) for point in curve.points],
            color=COLOURS[name],
            linestyle=STYLES[name],
            linewidth=1.9,
            label=name,
        )
    marks = [axis.place(event.at) for event in curve.events]
    panel.plot(
        marks, [0.035] * len(marks), transform=panel.get_xaxis_transform(), linestyle="",
        marker="|", markersize=7, markeredgecolor=INK, label="event",
    )  # fmt: skip
    panel.set_xlim(-0.01, 1.01)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color=FAINT, linewidth=0.6)
    panel.set_axisbelow(True)


def one_line(name: str) -> str:
    """Write a name in one short line."""
    return textwrap.shorten(label_of(name), 2 * NAME_WIDTH, placeholder=" …")


def limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return between which quarters all values lie, at least 0 and 0.25."""
    values = [
        getattr(point.shown, name)
        for curve in curves
        for point in curve.points
        for name in DIMENSIONS
    ]
    return math.floor(4 * min(0.0, *values)) / 4, math.ceil(4 * max(0.25, *values)) / 4


def ticks_of(axis: Axis) -> list[tuple[float, str]]:
    """Choose the times that are written below: both ends, and where a rest begins or ends.

    Returns:
        Places and labels, from the left, far enough apart to be read.
    """
    moments = [datetime.fromtimestamp(at, UTC) for at in axis.times]
    within_a_day = len({moment.date() for moment in moments}) == 1
    close = axis.times[-1] - axis.times[0] < 600  # noqa: PLR2004 - ten minutes
    form = ("%H:%M:%S" if close else "%H:%M") if within_a_day else "%d %b %Y\n%H:%M"
    wanted = {axis.times[0], axis.times[-1], *(at for rest in axis.rests for at in rest)}
    between = [axis.times[round(share * (len(axis.times) - 1))] for share in (0.25, 0.5, 0.75)]
    chosen: list[float] = []
    for at in (axis.times[0], axis.times[-1], *sorted(wanted), *between):
        if all(abs(axis.place(at) - axis.place(other)) >= 0.12 for other in chosen):  # noqa: PLR2004
            chosen.append(at)
    return [(axis.place(at), f"{datetime.fromtimestamp(at, UTC):{form}}") for at in sorted(chosen)]


def written(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a file."""
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with warnings.catch_warnings():
        # A name may be in any script; an SVG shows it all the same, in whatever font has it.
        warnings.filterwarnings("ignore", r"Glyph \d+")
        figure.savefig(out, format=kind, dpi=DPI, metadata=metadata, facecolor="white")
    return out.getvalue()
